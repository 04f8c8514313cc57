"""What may be wrong with one extended answer: pure functions of question, answer and extension.

Signals for a person, not verdicts: a rule of words cannot know medicine. Each names what it saw.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from exgra_med.captions.question import PROMPT
from exgra_med.llm.prompt import load_prompt

WEIGHTS = {
    "answer flipped": 10,
    "side flipped": 10,
    "refusal": 10,
    "prompt leaked": 9,
    "negation lost": 8,
    "negation added": 8,
    "talks about the task": 7,
    "number lost": 6,
    "language drift": 6,
    "number invented": 5,
    "side invented": 4,
    "term lost": 3,
    "copied": 2,
    "too short": 2,
    "too long": 2,
    "duplicate": 1,
}
"""How bad each kind is, to put the worst examples first."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
} | {"single": "1", "both": "2", "pair": "2", "twice": "2"}
_SIDES = {
    "left": "left",
    "left-sided": "left",
    "right": "right",
    "right-sided": "right",
    "bilateral": "both",
    "bilaterally": "both",
    "both": "both",
}
_NEGATION = re.compile(
    r"\b(?:no|not|none|never|neither|nor|without|absen(?:t|ce)|negative|lacks?|cannot|free of"
    r"|den(?:y|ies)|rule[sd]? out|unremarkable|normal)\b|n['’]t\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can’t)"
    r"|unable to (?:see|view|assist|provide|help)|consult (?:a|your) (?:doctor|physician))\b",
    re.IGNORECASE,
)
_REWRITTEN = (
    r"(?:extended|expanded|revised|rewritten|improved|enhanced|rephrased|longer|elaborated)"
)
_TASK = re.compile(
    # Of the model about itself.
    r"\bas an? (?:ai\b|artificial intelligence|(?:large |medical )?language model)"
    r"|\b(?:large )?language model\b"
    # Of a text that only the writer had. "The provided image" alone is how data sets speak, too.
    r"|\b(?:provided|given|supplied|accompanying|above) (?:image |figure )?"
    r"(?:captions?|answers?|questions?|instructions?|prompt|text|context|description)\b"
    r"|\b(?:original|reference) (?:captions?|answers?|questions?)\b"
    r"|\b(?:the|this|image|figure) captions?\b"
    r"|\bthe (?:question|prompt|instructions?|user) (?:asks?|says?|states?|requests?)\b"
    r"|\bas mentioned in the (?:text|answer|question)\b"
    # Of what it is about to write, or has written.
    rf"|\bhere(?: is|['’]s) (?:the|an?|your) (?:{_REWRITTEN}|more detailed|answer|response)"
    rf"|\b{_REWRITTEN} (?:answer|version|caption)\b"
    r"|\b(?:the revision (?:keeps|adds|states|of the answer)|this rewrite|word limit|JSON)\b"
    r"|\b(?:i hope this helps|let me know if|feel free to ask)\b"
    r"|^\s*(?:sure|certainly|of course)[,!] (?:here|i\b)",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"<\|\w+\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|#{2,}\s*(?:instruction|response|input|human|user|assistant|system|question|answer)\b"
    r"|[\"'](?:instruction|answer|revision|explanation|level_of_detail)[\"']\s*:"
    r"|\{\{?\s*(?:question|answer|instruction|caption)\s*\}"
    r"|\bquestion:.*\banswer:|^\s*(?:revision|(?:extended )?answer):"
    r"|\byou are an? (?:[\w-]+ ){0,4}(?:assistant|editor|expert|model|ai)\b|\byour task is\b"
    r"|\banswer the question (?:using|with|in|based)\b"
    r"|\b(?:rewrite|extend|expand|revise|rephrase) the (?:answer|caption|sentence)\b"
    r"|\bdo not (?:mention|invent|refuse|add anything)\b",
    re.IGNORECASE | re.DOTALL,
)
"""What stands around question and answer in the prompts and chat templates of the field."""
_ROLE = re.compile(r"\b(?:USER|ASSISTANT|GPT):")
_LEAKED_WORDS = 6
"""A run of so many words of our own prompt is no chance."""
_REPEATED_WORDS = 4
"""A shorter question may stand in an answer by itself: "heart size"."""

# What an answer says to a question of yes or no.
_ASKS_WHICH = re.compile(
    r"\W*(?:(?:in|on|at|from|to|by|with|of) )?"
    r"(?:what|which|where|who|whose|when|why|how|describe|name|list|explain)\b",
    re.IGNORECASE,
)
_SAYS_YES = re.compile(
    r"\W*(?:(?:yes|yeah)\b(?!-)|(?:correct|true|positive)\s*(?:[.,;:!]|$))", re.IGNORECASE
)
_SAYS_NO = re.compile(
    r"\W*(?:no|not|none|nope|never|incorrect|false|negative|absent)\s*(?:[.,;:!–—]|$)",
    re.IGNORECASE,
)
_SHORT_NO = re.compile(r"\W*(?:no|not|none|never)\b(?!-)", re.IGNORECASE)
_STAYS_OPEN = re.compile(
    r"(?:\bcannot|\bnot|n['’]t)(?: \w+)? (?:be )?(?:\w+ly )?(?:ruled out|excluded)", re.IGNORECASE
)
_DENIES_NEXT = re.compile(
    r"\b(?:no|without|neither|nor|none of|lacks?|lack of|absence of|negative for|rather than"
    r"|instead of|free (?:of|from)|clear of)\b",
    re.IGNORECASE,
)
"""Words that deny what follows them, and nothing else."""
_DENIES = re.compile(
    rf"{_DENIES_NEXT.pattern}|\b(?:not|never|none|cannot|nothing|absent|absence|unlikely"
    r"|den(?:y|ies|ied)|ruled out|excluded?)\b|n['’]t\b",
    re.IGNORECASE,
)
_STATEMENT_END = re.compile(r"[.!?。](?:\s|$)|;")
_CLAUSE_END = re.compile(r"[,;:()]|\b(?:but|although|though|except|while|whereas)\b", re.IGNORECASE)
_MODALITIES = "ct mri mr pet us x-ray xray radiograph ultrasound scan image picture film figure"
_PLACE = re.compile(r"\b(?:in|on|within) (?:this|the|these|that)\b", re.IGNORECASE)
_IS_THERE = re.compile(r"\W*(?:is|are|was|were) there\b", re.IGNORECASE)
_MODALITY_END = re.compile(rf"\b(?:{_MODALITIES.replace(' ', '|')})s?\W*$", re.IGNORECASE)
_EVERYDAY = (
    "is are was were be been being am do does did has have had can could will would should may"
    " might there here this that these those it its they them their he she his her the a an any"
    " all of in on at to for from by with and or as if than then also both either"
    " evidence sign finding see sees seen show shows showing shown visible visualized visualised"
    " present presence noted identified detected observed found appear apparent evident"
    " demonstrated depicted suggest suggested indicate indicates suspicion patient you your i we"
    " clearly definitely case view some"
)
"""Words of a question that do not say what is asked about."""

_FUNCTION_WORDS = {
    "English": "the of and is in to a with are that this which".split(),
    "German": "der die das und eine mit nicht den auf wird von zu".split(),
    "French": "le la les des est une et dans du qui avec pas".split(),
    "Spanish": "el los las es una en del que con se por y".split(),
}
_SENTENCE_END = re.compile(r"[.!?。](?:\s|$)")


@dataclass(frozen=True)
class Fault:
    """One thing that may be wrong.

    Args:
        kind: a name of `WEIGHTS`.
        detail: the words or figures that were seen.
    """

    kind: str
    detail: str


def find_faults(question: str, answer: str, extended: str) -> list[Fault]:
    """What may be wrong with one extended answer; `duplicate` needs the other answers."""
    checks = (
        _lengths,
        _copies,
        _numbers,
        _sides,
        _negations,
        _terms,
        _language,
        _refusals,
        _task_words,
        _leaks,
    )
    return [fault for check in checks for fault in check(question, answer, extended)]


def lower_words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def length_ratio(answer: str, extended: str) -> float:
    """Length of the extension over that of the answer, in characters."""
    return len(extended) / max(1, len(answer))


def copy_rate(answer: str, extended: str, size: int = 4) -> float:
    """Share of the extension's runs of `size` words that the answer has too; 1 for a copy."""
    theirs, ours = lower_words(extended), lower_words(answer)
    size = min(size, len(theirs), len(ours))
    if size == 0:
        return 0.0
    known = {tuple(ours[i : i + size]) for i in range(len(ours) - size + 1)}
    runs = [tuple(theirs[i : i + size]) for i in range(len(theirs) - size + 1)]
    return sum(run in known for run in runs) / len(runs)


def _lengths(question: str, answer: str, extended: str) -> Iterator[Fault]:
    before, after = len(answer.split()), len(extended.split())
    # The prompt's rule with a margin of a half: 60 words, or twice as long and 300 at most.
    longest = 90 if before <= 20 else min(3 * before, 450)
    if after > longest:
        yield Fault("too long", f"{after} words for {before}")
    if after < before:
        yield Fault("too short", f"{after} words for {before}")


def _copies(question: str, answer: str, extended: str) -> Iterator[Fault]:
    if lower_words(answer) == lower_words(extended):
        yield Fault("copied", "word for word")
    elif len(lower_words(answer)) >= 8 and (rate := copy_rate(answer, extended)) >= 0.9:
        yield Fault("copied", f"{rate:.0%} of its runs of four words")


def _numbers(question: str, answer: str, extended: str) -> Iterator[Fault]:
    before, after = _digits(answer), _digits(extended)
    known = before | _digits(question) | _named(_NUMBER_WORDS, f"{answer} {question}")
    if lost := before - after - _named(_NUMBER_WORDS, extended):
        yield Fault("number lost", ", ".join(sorted(lost)))
    if invented := after - known:
        yield Fault("number invented", ", ".join(sorted(invented)))


def _digits(text: str) -> set[str]:
    found = set()
    for number in _NUMBER.findall(text):
        plain = re.sub(r",(?=\d{3}\b)", "", number).replace(",", ".")
        found.add(plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0")
    return found


def _sides(question: str, answer: str, extended: str) -> Iterator[Fault]:
    before, after, asked = (_named(_SIDES, text) for text in (answer, extended, question))
    plainly_both = "both" in before
    before, after, asked = (
        {"left", "right"} if "both" in found else found for found in (before, after, asked)
    )
    if before and after and (not before & after or (plainly_both and len(after) == 1)):
        yield Fault("side flipped", f"{_listed(before)} became {_listed(after)}")
    elif new := after - before - asked:
        yield Fault("side invented", _listed(new))


def _named(meanings: dict[str, str], text: str) -> set[str]:
    """What the words of a text that are in a table mean."""
    return {meanings[word] for word in lower_words(text) if word in meanings}


def _listed(found: set[str]) -> str:
    return " and ".join(sorted(found))


def _negations(question: str, answer: str, extended: str) -> Iterator[Fault]:
    said, now = _says(question, answer), _says(question, extended)
    if said is not None and now is not None:
        if said != now:
            yield Fault("answer flipped", f"{said} became {now}")
        return
    before = _NEGATION.search(answer)
    start = extended[: end.end()] if (end := _SENTENCE_END.search(extended)) else extended
    after = _NEGATION.search(start)
    if before and not _NEGATION.search(extended):
        yield Fault("negation lost", before.group().lower())
    # Later sentences explain; the first one answers.
    if not before and after and not _NEGATION.search(question):
        yield Fault("negation added", after.group().lower())


def _says(question: str, text: str) -> str | None:
    """What a text answers to a question of yes or no; None where words do not tell.

    Either its first word tells, or the first sentence with all that is asked about: "There is a
    fracture of the rib." says yes to "Is a rib fracture seen?".
    """
    if _SAYS_YES.match(text):
        return "yes"
    if _SAYS_NO.match(text) or (_SHORT_NO.match(text) and len(text.split()) <= 2):
        return "no"
    if _ASKS_WHICH.match(question):
        return None
    asked = _subject(question)
    if "normal" in asked:
        text = re.sub(r"\babnormal(?:ly)?\b", "not normal", text, flags=re.IGNORECASE)
    for sentence in _STATEMENT_END.split(text):
        if asked and asked <= _stems(sentence):
            return _asserts(sentence, asked)
    return None


def _asserts(sentence: str, asked: set[str]) -> str | None:
    if _STAYS_OPEN.search(sentence):
        return None
    for denial in _DENIES.finditer(sentence):
        scope = _stems(_CLAUSE_END.split(sentence[denial.end() :], maxsplit=1)[0]) - _SAY_NOTHING
        if not scope & asked:
            if not scope and not _DENIES_NEXT.fullmatch(denial.group()):
                return "no"  # "the fracture is not seen", "is absent"
            if not _DENIES_NEXT.fullmatch(denial.group()):
                return None  # "is not displaced": may deny either
        elif not asked <= _stems(sentence[: denial.start()]):
            # Else it was said before, and something else of the kind is denied.
            return "no"
    return "yes"


def _subject(question: str) -> set[str]:
    """Stems of what a question asks about; of a modality only where it asks for nothing else.

    Where it lies is no part of it if the question is whether it is there: an answer may leave that
    out. Nor is "in this chest X-ray" of any question.
    """
    place = _PLACE.search(question)
    if place and (_IS_THERE.match(question) or _MODALITY_END.search(question)):
        question = question[: place.start()]
    asked = _stems(question)
    return asked - _SAY_NOTHING or asked - _stems(_EVERYDAY)


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in lower_words(text)}


def _stem(word: str) -> str:
    return re.sub(r"(?<=ss)es$|(?<![su])s$", "", word)[:6]


_SAY_NOTHING = _stems(f"{_EVERYDAY} {_MODALITIES}")


def _terms(question: str, answer: str, extended: str) -> Iterator[Fault]:
    stems = {word[:6] for word in lower_words(extended)}
    terms = {word for word in lower_words(answer) if len(word) >= 7}
    lost = {word for word in terms if word[:6] not in stems}
    if lost and 3 * len(lost) > len(terms):
        yield Fault("term lost", ", ".join(sorted(lost)[:5]))


def _language(question: str, answer: str, extended: str) -> Iterator[Fault]:
    scripts = _script(answer), _script(extended)
    tongues = _tongue(answer) or _tongue(question), _tongue(extended)
    for before, after in (scripts, tongues):
        if before and after and before != after:
            yield Fault("language drift", f"{before} became {after}")
            return


def _script(text: str) -> str | None:
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return None
    latin = sum(char < "ɐ" for char in letters) / len(letters)
    return "Latin script" if latin > 0.6 else "another script" if latin < 0.4 else None


def _tongue(text: str) -> str | None:
    found = lower_words(text)
    if len(found) < 6:
        return None
    counts = {
        language: sum(word in known for word in found)
        for language, known in _FUNCTION_WORDS.items()
    }
    best = max(counts, key=lambda language: counts[language])
    others = sorted(counts.values())[-2]
    return best if counts[best] >= 2 and counts[best] > 2 * others else None


def _refusals(question: str, answer: str, extended: str) -> Iterator[Fault]:
    if (found := _REFUSAL.search(extended)) and not _REFUSAL.search(answer):
        yield Fault("refusal", found.group().lower())


def _task_words(question: str, answer: str, extended: str) -> Iterator[Fault]:
    if (found := _TASK.search(extended)) and not _TASK.search(answer):
        yield Fault("talks about the task", found.group().strip().lower())


def _leaks(question: str, answer: str, extended: str) -> Iterator[Fault]:
    for pattern in (_TEMPLATE, _ROLE):
        if (found := pattern.search(extended)) and not pattern.search(answer):
            yield Fault("prompt leaked", " ".join(found.group().split())[:60])
            return
    words, theirs = lower_words(extended), lower_words(answer)
    known = _runs(theirs, _LEAKED_WORDS) | _runs(lower_words(question), _LEAKED_WORDS)
    if leaked := (_runs(words, _LEAKED_WORDS) & _prompt_runs()) - known:
        yield Fault("prompt leaked", " ".join(min(leaked)))
        return
    asked = question.strip(" \n?.!:").split()
    whole = r"\s+".join(map(re.escape, asked))
    repeated = re.compile(rf"(?<!\w){whole}\s*(?:[?.!:]|$)", re.IGNORECASE)
    if len(asked) >= _REPEATED_WORDS and repeated.search(extended) and not repeated.search(answer):
        yield Fault("prompt leaked", "it repeats the question")


def _runs(words: list[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@cache
def _prompt_runs() -> set[tuple[str, ...]]:
    return _runs(lower_words(load_prompt(PROMPT).text), _LEAKED_WORDS)
