"""What a service says when it does not answer: its sentence, what kind of fault that is, and which
parameter of the request it does not take.

Services that speak the protocol of OpenAI differ most in their errors. They are read by the words
of public reports (OpenAI, Azure, vLLM, Ollama, LM Studio, llama.cpp, LiteLLM, OpenRouter, Gemini,
Mistral, Groq, xAI, Moonshot, DeepSeek, TGI), never by the name of a service or a model.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from exgra_med.llm.request import ChatRequest

# Where services put sentences, codes and names. Other keys, such as "input" or "flagged_input",
# quote the request and are not read.
_SENTENCES = (
    "message", "msg", "error", "errors", "detail", "details", "metadata", "raw", "error_msg",
    "error_message", "status_msg", "base_resp", "innererror", "fieldViolations", "description",
    "violations",
)  # fmt: skip
_CODES = (
    "code", "type", "status", "statusCode", "status_code", "error_code", "error_type", "reason",
    "quotaId",
)  # fmt: skip
_PARAMETERS = ("param", "parameter", "field")
_DEEPEST = 6
"""Levels of an error that are read; a service may nest without end."""
_MOST_READ = 200
"""Sentences and codes of an error that are read."""
_LONGEST = 20_000
"""Characters of an error that are read."""
_LONGEST_SHOWN = 400


@dataclass(frozen=True)
class Fault:
    """An error of a service, as it was sent.

    Args:
        sentence: what it says; empty where it says nothing. It may quote the request: only `shown`
            makes it fit for a person or a file.
        codes: its words for the kind of error.
        parameters: names in fields of their own.
    """

    sentence: str = ""
    codes: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def without(self, model: str) -> "Fault":
        """The same without the name of the model, which may be called after what it can do."""
        names = "|".join(map(re.escape, {model, model.rpartition("/")[2]}))
        return replace(self, sentence=re.sub(rf"(?<!\w)(?:{names})(?!\w)", "x", self.sentence))

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether sentence or codes match."""
        return pattern.search("\n".join((self.sentence, *self.codes))) is not None

    @property
    def status(self) -> int | None:
        """A status of HTTP among the codes, for an error that came with status 200."""
        numbers = [int(code) for code in self.codes if re.fullmatch(r"[45]\d\d", code)]
        return numbers[0] if numbers else None


def read_fault(body: Any) -> Fault:
    """The error in a reply: decoded JSON of any shape, or text, which may be a web page."""
    sentences: list[str] = []
    codes: list[str] = []
    parameters: list[str] = []

    def read(value: Any, depth: int) -> None:
        if depth > _DEEPEST or len(sentences) + len(codes) > _MOST_READ:
            return
        if isinstance(value, str):
            inner = _decoded(value)
            if inner is not None:
                read(inner, depth + 1)
            else:
                sentences.append(value[:_LONGEST].strip())
        elif isinstance(value, list):
            for each in value[:20]:
                read(each, depth + 1)
        elif isinstance(value, dict):
            where = value.get("loc")
            if isinstance(where, list | tuple) and isinstance(value.get("msg"), str):
                # A list of pydantic: the name stands beside the sentence.
                path = [str(each) for each in where if each != "body"]
                parameters.append(path[0] if path else "")
                codes.append(str(value.get("type")))
                sentences.append(f"{'.'.join(path)}: {value['msg']}")
                return
            for name in _CODES:
                if isinstance(value.get(name), str | int):
                    codes.append(str(value[name]))
            for name in _PARAMETERS:
                if isinstance(value.get(name), str):
                    parameters.append(value[name])
            for name in _SENTENCES:
                read(value.get(name), depth + 1)

    if isinstance(body, str):
        body = _decoded(body) or _of_page(body[:_LONGEST])
    read(body, 0)
    said: list[str] = []
    for sentence in sentences:
        if sentence and not any(sentence in each for each in said):
            said.append(sentence)
    return Fault("; ".join(said)[:_LONGEST], tuple(codes), tuple(filter(None, parameters)))


def _decoded(text: str) -> Any:
    """An error that is written as text inside another one."""
    if not text.lstrip().startswith(("{", "[")) or len(text) > _LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of_page(text: str) -> str:
    """The title of a web page, such as a proxy sends; other text as it is."""
    if not re.match(r"\s*<(?:!doctype|html|head)", text, re.IGNORECASE):
        return text
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return title[1] if title else ""


# What kind of fault. An error often fits several of these words, so `kind_of` asks in an order.

Kind = Literal[
    "quota",
    "permission",
    "model",
    "address",
    "images",
    "content filter",
    "rate limit",
    "server",
    "rejected",
]
"""The first five end a run. `rate limit` and `server` may pass; the others concern one request."""

_QUOTA = re.compile(
    r"insufficient[ _](?:user[ _])?(?:quota|balance|credits?|funds)|billing[ _](?:hard|not)|"
    r"credit balance is too low|(?:no|not enough|requires? more|out of) credits?|arrear|"
    r"payment[ _]required|quota[ _](?:is )?exhausted|PerDay|余额不足|欠费",
    re.IGNORECASE,
)
_QUOTA_OR_PACE = re.compile(
    r"exceeded your current quota|check your plan and billing|per[ -]day", re.IGNORECASE
)
"""Gemini says the same where a minute's quota is used up; then it names a time to come back."""
_SOON = re.compile(
    r"(?:retry|try again) (?:in|after) (?:about )?"
    r"(?:(?P<m>\d{1,6})m)?(?P<s>\d{1,9}(?:\.\d{1,9})?) ?(?P<ms>ms)?",
    re.IGNORECASE,
)
_PERMISSION = re.compile(
    r"(?:api|access|subscription)[ _-]?key(?: is)?[ _-](?:not valid|invalid|incorrect|expired)|"
    r"(?:invalid|incorrect|expired|missing|no)[ _](?:api|access|auth\w*|proxy server)[ _-]?"
    r"(?:key|token|header)|authentication|unauthori[sz]ed|(?:permission|access)[ _]denied",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model[ _]not[ _](?:found|exist|supported|available)|DeploymentNotFound|模型不存在|"
    r"\bmodel\b.{0,120}\b(?:not found|does not exist|doesn't exist|not available|not deployed)|"
    r"requested model\b.{0,120}\bnot supported|unable to access model|"
    r"(?:invalid|unknown|no such) model(?: name| id|:|$)|not a valid model|no models? loaded|"
    r"no endpoints found",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content[ _](?:filter|policy|management)|ResponsibleAI|moderation|\bflagged\b|"
    r"data_inspection_failed|safety system|inappropriate content|PROHIBITED_CONTENT|敏感",
    re.IGNORECASE,
)
_IMAGES = re.compile(
    r"\b(?:image|vision|multi-?modal)(?:_url)?\b.{0,60}(?:not (?:supported|available|enabled)|"
    r"unsupported|only supported by)|at most 0 image|that support image|"
    r"unknown variant `image_url`|"
    r"(?:not|n't|unsupported) .{0,40}\b(?:image|vision|multi-?modal)",
    re.IGNORECASE,
)
_ONE_IMAGE = re.compile(
    r"format|mime|too (?:large|big|small)|dimension|resolution|pixels|bytes|decode|corrupt",
    re.IGNORECASE,
)
"""An error about one image, beside which others are read."""
_MAY_PASS = re.compile(
    r"rate[ _-]?limit|too many requests|overloaded|temporar|try again|capacity|time[ds]? ?out|"
    r"(?:server|internal)[ _]error|unavailable|upstream",
    re.IGNORECASE,
)
_TRANSIENT = {408, 409, 425}
_NEVER_PASSES = {501, 505}
CUT = re.compile(r"max_tokens or model output limit was reached", re.IGNORECASE)
"""OpenAI's error for a model whose thoughts used all tokens: that is a reply that was cut."""


def kind_of(status: int | None, fault: Fault, with_images: bool, waits: bool = False) -> Kind:
    """What kind of fault an error is.

    Args:
        status: of HTTP; None where an error came with status 200 and names none.
        with_images: the request has images, so an error may be about them.
        waits: the service says when to come back.
    """
    waits = waits or wait_in(fault) is not None
    if with_images and status != 429 and fault.says(_IMAGES) and not fault.says(_ONE_IMAGE):
        return "images"
    if status is not None and status >= 500:
        return "rejected" if status in _NEVER_PASSES else "server"
    if status == 402 or fault.says(_QUOTA) or (fault.says(_QUOTA_OR_PACE) and not waits):
        return "quota"
    if status == 429:
        return "rate limit"
    if fault.says(_FILTER):
        return "content filter"
    if status in (401, 403) or fault.says(_PERMISSION):
        return "permission"
    if fault.says(_MODEL):
        return "model"
    if status in (404, 405):
        return "address"
    if status in _TRANSIENT or (status is None and fault.says(_MAY_PASS)):
        return "server"
    return "rejected"


# Which parameter. A parameter is given up only where the error speaks of it, and of nothing worse.

_SPELLINGS = {
    "top_p": re.compile(r"\btop[_ ]?p\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
    "max_tokens": re.compile(
        r"\bmax[_ ]?(?:completion[_ ]?|new[_ ]?|output[_ ]?)?tokens\b", re.IGNORECASE
    ),
    "response_format": re.compile(
        r"\bresponse[_ ]?format\b|\bjson[_ ]?schema\b|\bstructured[_ ]?outputs?\b", re.IGNORECASE
    ),
}
_TOO_LONG = re.compile(
    r"too (?:large|long|many)|context[ _](?:length|window|size)|exceed|above[ _]max|"
    r"less[ _]than|maximum|at most|<=",
    re.IGNORECASE,
)
"""The value is beyond a limit: the parameter itself is known."""
_UNKNOWN_WORDS = (
    r"unsupported|not[ _]support|n['’]t support|unrecogni[sz]ed|not recogni[sz]ed|unknown|"
    r"unexpected|extra[ _](?:input|field|forbid|param)|deprecated|unavailable|removed|"
    r"not (?:be )?(?:permitted|allowed|accepted|implemented|available|compatible|enabled)|"
    r"cannot both|only .{0,40}(?:allowed|supported|accepted)|不支持|不允许"
)
_UNKNOWN = re.compile(_UNKNOWN_WORDS, re.IGNORECASE)
"""Whatever its value, it is not taken."""
_NOT_TAKEN = re.compile(
    rf"{_UNKNOWN_WORDS}|invalid|not valid|cannot|can't|only|must|ha(?:s|ve) to be|should|in range|"
    "无效|非法",
    re.IGNORECASE,
)
"""This value is not taken; ours are those of an evaluation, and nobody chose them."""
_TAKEN = re.compile(
    r"(?<!not )(?<!n't )\b(?:supported|allowed|valid|available|accepted|known)\b[^:]{0,30}:",
    re.IGNORECASE,
)
"""Behind it stands a list of what is taken."""
_NEVER_LEFT_OUT = {"messages", "model", "prompt", "content", "input", "image_url"}


def refused_parameters(fault: Fault, sent: Mapping[str, Any], texts: Sequence[str]) -> list[str]:
    """Which parameters of a request a service does not take, by our names for them.

    Args:
        sent: the body of the request.
        texts: of its messages; an error may quote them, and they may speak of temperatures.
    """
    ours = {"max_completion_tokens": "max_tokens"}
    asked = {ours.get(name, name) for name in sent} & _SPELLINGS.keys()

    def is_refused(name: str, words: str) -> bool:
        if name == "response_format":
            return True
        if _TOO_LONG.search(words):
            return False
        # A limit, or a temperature that somebody chose, is not given up for its value.
        is_chosen = name == "max_tokens" or (name == "temperature" and sent["temperature"])
        return not is_chosen or _UNKNOWN.search(words) is not None

    for name in fault.parameters:
        start = re.split(r"[.\[]", name)[0]
        start = ours.get(start, start)
        if start in _NEVER_LEFT_OUT:
            return []
        if start in asked:
            words = "\n".join((fault.sentence, *fault.codes))
            return [start] if is_refused(start, words) else []
    said = fault.sentence
    for text in texts:
        said = said.replace(text, " ") if text else said
    # Pydantic writes the name on a line of its own, and what is wrong with it below.
    said = re.sub(r"\n(\w+)\n\s+", r"\n\1: ", said)
    found = [
        name
        for name in _SPELLINGS
        if name in asked
        and any(
            _SPELLINGS[name].search(_TAKEN.split(part)[0])
            and _NOT_TAKEN.search(part)
            and is_refused(name, part)
            for part in re.split(r"[.;](?:\s|$)|\n", said)
        )
    ]
    if {"top_p", "temperature"} <= set(found) and re.search(r"\bboth\b", said):
        found.remove("temperature")
    return found


def wait_in(fault: Fault) -> float | None:
    """Seconds after which the error itself asks to come back; None where it names none."""
    found = _SOON.search(fault.sentence)
    if not found:
        return None
    seconds = float(found["s"]) * (1e-3 if found["ms"] else 1.0)
    return seconds + 60 * int(found["m"] or 0)


# What a person may read. An error may quote the question, the picture or the key, and it is written
# by another machine.

_KEY = re.compile(
    r"\b(?:sk|pk|gsk|xai|hf|nvapi|AIza)[-_]?[\w*.\-]{6,}|[\w-]{0,40}\*{3,}[\w-]{0,40}|Bearer\s+\S+",
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@|(?<=[?&])[\w-]*(?:key|token|code|sig)=[^&\s\"']+")
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{33,}")
"""No word of a language: a picture, a key or its hash."""
_WORD = re.compile(r"[^\W_]+")
_SAME_WORDS = 4
"""So many words in a row that also stand in the request are a quotation of it."""


def shown(fault: Fault, request: ChatRequest, key: str) -> str:
    """The sentence on one line, without keys, quotations of the request and control characters."""
    text = fault.sentence[: 10 * _LONGEST_SHOWN].replace("\\n", " ").replace('\\"', '"')
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = _IN_ADDRESS.sub("[…]", text)
    if len(key) > 5:
        parts = {key[start : start + 6] for start in range(len(key) - 5)}
        text = re.sub(
            r"[^\s\"',;]+",
            lambda word: "[key]" if any(part in word[0] for part in parts) else word[0],
            text,
        )
    text = _RUN.sub("[…]", _KEY.sub("[key]", text))
    text = _without_quotations(text, request)
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN].rsplit(" ", 1)[0] + " …"
    return text.strip().rstrip(".")


def _without_quotations(text: str, request: ChatRequest) -> str:
    asked = [word.casefold() for word in _WORD.findall("\n".join(request.texts))]
    runs = {tuple(asked[at : at + _SAME_WORDS]) for at in range(len(asked) - _SAME_WORDS + 1)}
    whole = f" {' '.join(asked)} "
    words = list(_WORD.finditer(text))
    folded = [word[0].casefold() for word in words]
    private = [False] * len(words)
    for at in range(len(words) - _SAME_WORDS + 1):
        if tuple(folded[at : at + _SAME_WORDS]) in runs:
            private[at : at + _SAME_WORDS] = [True] * _SAME_WORDS
    # A short question, or a name out of it, stands between quotation marks.
    names = {*_SPELLINGS, request.model.casefold()}
    for quoted in re.finditer(r"'([^']{1,200})'|\"([^\"]{1,200})\"|`([^`]{1,200})`", text):
        inside = next(filter(None, quoted.groups()), "")
        said = " ".join(word.casefold() for word in _WORD.findall(inside))
        if said and inside.casefold() not in names and f" {said} " in whole:
            for at, word in enumerate(words):
                private[at] |= quoted.start() < word.start() and word.end() < quoted.end()
    result, end, hidden = [], 0, False
    for word, is_private in zip(words, private, strict=True):
        if not is_private:
            result.append(text[end : word.start()] + word[0])
        elif not hidden:
            result.append(text[end : word.start()] + "[…]")
        hidden, end = is_private, word.end()
    return "".join(result) + text[end:]
