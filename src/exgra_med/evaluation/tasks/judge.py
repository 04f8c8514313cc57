"""One grading: question and two answers -> messages; a reply -> two grades, or a refusal."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from exgra_med.data.chat_template import answer_of
from exgra_med.errors import ServiceError
from exgra_med.evaluation.engines import allowed_endpoint, refuse_identifying
from exgra_med.files import write_text
from exgra_med.llm.prompt import Prompt, load_prompt, object_with, reply_fault
from exgra_med.llm.request import CompletionError, Message, ReplyError
from exgra_med.llm.service import ChatService, ServiceSettings, Usage, ask_all
from exgra_med.terminal import Reporter

PROMPT = "judge-answers"
LOWEST, HIGHEST = 1.0, 10.0
Order = Literal["reference-first", "model-first"]
ORDERS: tuple[Order, ...] = ("reference-first", "model-first")
"""The published script asks in the first order only."""

_GRADE = {"type": "integer", "minimum": 1, "maximum": 10}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score_1": _GRADE, "score_2": _GRADE},
    "required": ["reason", "score_1", "score_2"],
    "additionalProperties": False,
}
_TWO_NUMBERS = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,;/]+(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """One question, the reference answer, and the caption by which a judge grades."""

    id: str
    published_id: str
    text: str
    reference: str
    caption: str
    mentions: str
    question_type: str
    domain: str
    cluster: str
    """The image, which resampling draws."""


@dataclass(frozen=True, slots=True)
class Grades:
    """What a judge gave, from 1 to 10."""

    reference: float
    model: float


def judge_messages(
    prompt: Prompt, question: ChatQuestion, answer: str, order: Order
) -> list[Message]:
    """The messages that ask for grades; no id, no image and no author is sent."""
    both = [question.reference, answer]
    if order == "model-first":
        both.reverse()
    asked = {
        "caption": question.caption,
        "mentions": question.mentions,
        "question": question.text,
        "answer_1": both[0],
        "answer_2": both[1],
    }
    return [
        {"role": "system", "content": prompt.text},
        {"role": "user", "content": json.dumps(asked, ensure_ascii=False)},
    ]


def read_grades(reply: str, order: Order) -> Grades:
    """The grades in a reply: the JSON object, or two numbers on the first line as judges used to.

    Raises:
        ReplyError: neither is there, or a grade is not from 1 to 10.
    """
    reply = answer_of(reply)
    line = _TWO_NUMBERS.fullmatch(reply.partition("\n")[0])
    if line:
        found = line.groups()
    else:
        value = object_with(reply, "score_1")
        found = value["score_1"], value.get("score_2")
    first, second = map(_grade, found)
    return Grades(first, second) if order == "reference-first" else Grades(second, first)


def _grade(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ReplyError(f"a grade is a {type(value).__name__}")
    try:
        grade = float(value)
    except ValueError as error:
        raise ReplyError("a grade is no number") from error
    if not LOWEST <= grade <= HIGHEST:
        raise ReplyError("a grade is not from 1 to 10")
    return grade


REMINDER = {
    "role": "user",
    "content": 'Reply with the JSON object alone: {"reason": "...", "score_1": 0, "score_2": 0}, '
    "grades from 1 to 10.",
}
REPLY_TOKENS = 200
"""What a reply takes on average: a reason of up to 80 words and two grades; for estimates."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One grading and all that was said in it."""

    id: str
    order: Order
    judge: str
    prompt: str
    grades: Grades | None
    """None where no reply could be read, or none came."""
    reply: str = ""
    refused: tuple[str, ...] = field(default=())
    """Replies that could not be read, before or instead of the good one."""
    failure: str | None = None
    cost: float | None = None
    """US dollars; 0 from the cache, None where unknown."""
    from_cache: bool = False


def judge_answers(
    questions: Sequence[ChatQuestion],
    answers: Mapping[str, str],
    settings: ServiceSettings,
    reporter: Reporter,
) -> tuple[list[Judgement], Usage]:
    """Grade every answer against its reference, in both orders.

    A question without an answer, or with an empty one, is not sent.

    Returns:
        Judgements in the order of the questions, and what they used.

    Raises:
        ServiceError: no judge can be reached; what was paid is in the cache.
        DataError: text that seems to identify patients would leave this machine.
    """
    endpoint = allowed_endpoint(settings)
    asked = [question for question in questions if answers.get(question.id, "").strip()]
    texts = {
        e.id: "\n".join((e.caption, e.mentions, e.text, e.reference, answers[e.id])) for e in asked
    }
    refuse_identifying(texts, settings, endpoint)
    prompt = load_prompt(PROMPT)
    pairs = [(question, order) for question in asked for order in ORDERS]

    async def ask(service: ChatService, pair: tuple[ChatQuestion, Order]) -> Judgement:
        question, order = pair
        return await _judge(service, prompt, question, answers[question.id], order)

    title = f"judging by {settings.model}"
    judgements, usage = ask_all(pairs, ask, settings, endpoint, reporter, title, "gradings")
    counts = reply_counts(judgements)
    # A score of nothing is none; a judge that replied without grades is told by its transcripts.
    if judgements and counts["failed"] == counts["asked"]:
        why = str(judgements[-1].failure)
        is_away = why.startswith(("connection", "timeout"))
        hint = "Check --base-url, and that the server runs." if is_away else ""
        raise ServiceError(f"The judge gave no reply: {why}.", hint or "The same call asks again.")
    return judgements, usage


def estimate_judging(
    questions: Sequence[ChatQuestion], answers: Mapping[str, str], settings: ServiceSettings
) -> dict[str, Any]:
    """Requests, tokens and US dollars of `judge_answers`, without any connection."""
    prompt, endpoint = load_prompt(PROMPT), settings.endpoint()
    price = settings.known_price(endpoint)
    asked = [question for question in questions if answers.get(question.id, "").strip()]
    with closing(settings.open_cache()) as cache:
        everything = [
            settings.request(endpoint, judge_messages(prompt, each, answers[each.id], order))
            for each in asked
            for order in ORDERS
        ]
        requests = [request for request in everything if cache.get(request.key) is None]
    prompt_tokens = sum(request.prompt_tokens for request in requests)
    completion_tokens = REPLY_TOKENS * len(requests)
    return {
        "requests": len(requests),
        "from_cache": len(everything) - len(requests),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if price is None else price.cost(prompt_tokens, completion_tokens),
        "judge": settings.served_name(endpoint),
        "prompt": prompt.label,
    }


def write_transcripts(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write every judgement with its raw replies, one a line.

    Raises:
        WriteError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(each), ensure_ascii=False) for each in judgements]
    # A reply may hold half a character, which no UTF-8 file can.
    text = "".join(line + "\n" for line in lines).encode("utf-8", "replace").decode("utf-8")
    write_text(path, text)


def reply_counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    """What became of the gradings: `asked`, `graded`, and why others were not.

    These are `empty`, `cut` at the token limit, `unparsed`, and `failed` where no reply came.
    """
    counts = dict.fromkeys(("asked", "graded", "empty", "cut", "unparsed", "failed"), 0)
    for each in judgements:
        counts["asked"] += 1
        kind, _, detail = (each.failure or "").partition(" (")
        counts["graded" if each.grades else reply_fault(kind, detail.rstrip(")"))] += 1
    return counts


async def _judge(
    service: ChatService, prompt: Prompt, question: ChatQuestion, answer: str, order: Order
) -> Judgement:
    refused: list[str] = []

    def accept(reply: str) -> None:
        try:
            read_grades(reply, order)
        except ReplyError:
            refused.append(reply)
            raise

    about = (question.id, order, service.model, prompt.label)
    messages = judge_messages(prompt, question, answer, order)
    try:
        try:
            said = await service.complete(messages, SCHEMA, accept)
        except CompletionError:
            if not refused:
                raise
            # A judge without chance in it says the same again, unless it is told what is wrong.
            again = [{"role": "assistant", "content": refused[-1]}, REMINDER]
            said = await service.complete([*messages, *again], SCHEMA, accept)
    except CompletionError as error:
        failure = f"{error.kind} ({error.detail})"
        return Judgement(*about, None, refused=tuple(refused), failure=failure)
    return Judgement(
        *about,
        read_grades(said.text, order),
        said.text,
        tuple(refused),
        cost=said.cost,
        from_cache=said.from_cache,
    )
