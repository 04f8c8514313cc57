"""What may be wrong with one extended answer: pure functions of question, answer and extension.

Signals for a person, not verdicts: a rule of words cannot know medicine. Each names what it saw.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

WEIGHTS = {
    "side flipped": 10,
    "refusal": 10,
    "negation lost": 8,
    "negation added": 8,
    "number lost": 6,
    "language drift": 6,
    "number invented": 5,
    "side invented": 4,
    "talks about the task": 4,
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
    r"\b(?:as an ai|language model|i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can’t)"
    r"|unable to (?:see|view|assist|provide|help)|consult (?:a|your) (?:doctor|physician))\b",
    re.IGNORECASE,
)
_TASK = re.compile(
    r"\b(?:original answer|the revision|revised answer|the instruction|the prompt|this rewrite"
    r"|JSON|expanded answer)\b"
)
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
    checks = (_lengths, _copies, _numbers, _sides, _negations, _terms, _language, _refusals)
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
    before = _NEGATION.search(answer)
    start = extended[: end.end()] if (end := _SENTENCE_END.search(extended)) else extended
    after = _NEGATION.search(start)
    if before and not _NEGATION.search(extended):
        yield Fault("negation lost", before.group().lower())
    # Later sentences explain; the first one answers.
    if not before and after and not _NEGATION.search(question):
        yield Fault("negation added", after.group().lower())


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
    if (found := _TASK.search(extended)) and not _TASK.search(answer):
        yield Fault("talks about the task", found.group().lower())
