"""What a published evaluation protocol is: its parts, and the numbers that come of them.

A number of a protocol is put together from parts, so that two numbers can be compared part by part
(`evaluation/explain.py`): which questions are asked, how a question gets its type, which types
count, how an answer is read, what leaves the denominator, and over what the mean goes. A part says
in words what it does; two numbers that share a part share the object.

    LETTERS = Reading("first letter is that of the reference", lambda case: ...)
    Number("letter", "first letter", "all", closed=LETTERS)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Pairing, Question
from exgra_med.evaluation.measures import Candidates, Case
from exgra_med.evaluation.statistics import (
    cluster_bootstrap,
    interval,
    mean_interval,
)

Kind = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which questions of a file a protocol asks at all."""

    words: str
    keeps: Callable[[Question], bool]


@dataclass(frozen=True, slots=True)
class Typing:
    """How a protocol decides whether a question is open or closed."""

    words: str
    kind: Callable[[Question], Kind]


OWN = "own"
"""The words of this project, where the authors' are not given."""
_PLACE = re.compile(r"\{(\w+)\}")


def places_of(request: str) -> tuple[str, ...]:
    """Names in braces, each once.

    >>> places_of("{question} {answer} {answer} {0/1} {}")
    ('question', 'answer')
    """
    return tuple(dict.fromkeys(_PLACE.findall(request)))


@dataclass(frozen=True, slots=True)
class Judge:
    """A language model that a protocol asks whether an answer is right."""

    name: str
    model: str
    """Which one the authors name."""
    request: str
    """What it is asked, with places such as `{question}` for what it is told."""
    told: Callable[[Case], Mapping[str, str] | None]
    """What stands in the places; None where the rules have read the answer, so that nothing is
    asked."""
    verdict: Callable[[str, Case], float | None]
    """1.0 or 0.0 from its reply about an answer; None where the reply says neither."""
    published: str
    """Where the authors' words are, in the repository of the protocol. They are not part of this
    project, and other words can give other verdicts."""
    words: str = OWN
    """Whose `request` is: `own`, or the SHA-256 of a user's file."""

    @property
    def places(self) -> tuple[str, ...]:
        """What the request has places for, in its order."""
        return places_of(self.request)

    def message(self, case: Case) -> str | None:
        """What it is asked about an answer; None where the rules have read it."""
        told = self.told(case)
        if told is None:
            return None
        return _PLACE.sub(lambda place: told.get(place[1], place[0]), self.request)


@dataclass(frozen=True, slots=True)
class Reading:
    """How one answer becomes a value. With a rule and a judge, the value is the sum of both."""

    words: str
    rule: Callable[[Case], float | None] | None = None
    """From 0 to 1; None where the published code appends no value for this answer."""
    judge: Judge | None = None
    needs_candidates: bool = False
    """Whether it looks the answer up in a list of known answers."""
    draws: bool = False
    """Whether it draws an option blindly where it reads none; the value is the chance of a hit."""


@dataclass(frozen=True, slots=True)
class Dropping:
    """What leaves the denominator instead of counting as wrong."""

    words: str
    unanswered: bool = False
    """Questions without an answer, or with an empty one."""
    unread: bool = False
    """Answers for which the reading gives no value."""
    missing: bool = False
    """Questions that the file does not answer at all; an empty answer counts."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Over what the mean goes: the questions, or the means of groups of them."""

    words: str
    group: Callable[[Question, Kind], str] | None = None
    needed: frozenset[str] = frozenset()
    """Groups without which there is no number."""


EVERYTHING = Asked("every question of the file", lambda _: True)
WITH_OPTIONS = Asked("questions that list options", lambda each: len(each.options) > 1)
ENGLISH = Asked("English questions", lambda each: each.meta.get("language", "en") == "en")
PLAIN_TYPE = Asked(
    "questions whose type is written as the script knows it, so not “CLOSED ” with a blank",
    lambda each: not each.type_had_blanks,
)

BY_FIELD = Typing(
    "closed is what the data set's own field calls closed",
    lambda each: "closed" if each.answer_type == "CLOSED" else "open",
)
BY_YES_NO = Typing(
    "closed is what has the reference answer yes or no",
    lambda each: "closed" if each.answer.strip().lower() in ("yes", "no") else "open",
)

ALL_COUNT = Dropping("nothing leaves the denominator")
ONLY_ANSWERED = Dropping(
    "questions without an answer, or with an empty one, leave the denominator", unanswered=True
)
ONLY_GIVEN = Dropping("questions that the file does not answer leave the denominator", missing=True)
ONLY_READ = Dropping("answers without a value leave the denominator", unread=True)

OVER_QUESTIONS = Mean("mean over the questions")
OVER_KINDS = Mean(
    "mean of the open and the closed score", lambda _, kind: kind, frozenset({"open", "closed"})
)


@dataclass(frozen=True, slots=True)
class Number:
    """One number that a protocol reports."""

    name: str
    label: str
    """As tables name it, lower case."""
    of: Literal["open", "closed", "all"]
    """Types of question that count."""
    closed: Reading
    """Of closed questions; also of open ones where `open` is absent."""
    open: Reading | None = None
    asked: Asked = EVERYTHING
    typing: Typing = BY_FIELD
    dropping: Dropping = ALL_COUNT
    mean: Mean = OVER_QUESTIONS
    is_main: bool = True
    """Whether a short table shows it."""

    def reading(self, kind: Kind) -> Reading:
        """How answers to questions of a type are read."""
        return self.closed if kind == "closed" or self.open is None else self.open

    @property
    def readings(self) -> list[Reading]:
        """Those of the types that count."""
        kinds: Sequence[Kind] = ("closed", "open") if self.of == "all" else (self.of,)
        return list(dict.fromkeys(self.reading(kind) for kind in kinds))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a protocol is published."""

    where: str
    """Repository or paper."""
    version: str
    """Commit of the repository that was read, or version of the paper."""
    files: tuple[str, ...] = ()
    """Of the repository."""

    @property
    def text(self) -> str:
        """In one line."""
        files = f": {', '.join(self.files)}" if self.files else ""
        version = re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", self.version)
        return f"{self.where}, {version}{files}"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A published way from answers to numbers, with all that is said of it in the table."""

    name: str
    title: str
    source: Source
    datasets: tuple[str, ...]
    """Data sets, as in a manifest, for which the source states it."""
    numbers: tuple[Number, ...]
    split: str
    prompt: str
    """What the model is asked, in short; few words of the source are quoted."""
    notes: str = ""
    """What a reader must know, such as a defect that changes the number."""
    is_exact: bool = True
    """Whether the source is code. From a paper's words alone a number can be off."""

    def number(self, name: str) -> Number | None:
        """The number of that name; None where there is none."""
        return next((each for each in self.numbers if each.name == name), None)


Verdicts = Mapping[str, Mapping[str, float | None]]
"""Judge's name -> question id -> what it said; None where its reply could not be read."""
Wording = Mapping[str, str]
"""Judge's name -> whose words it was asked in, as `Judge.words`."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Questions with the answers as they were written, and what a protocol may look up."""

    cases: list[Case | None]
    """One a question; None without an answer."""
    questions: Sequence[Question]
    clusters: NDArray[np.int64]
    candidates: Candidates | None = None
    verdicts: Verdicts | None = None
    wording: Wording | None = None

    @classmethod
    def of(
        cls,
        pairing: Pairing,
        candidates: Candidates | None = None,
        verdicts: Verdicts | None = None,
    ) -> "Answered":
        """From questions and answers that were joined."""
        cases = [
            None if answer is None else Case(answer, question, candidates)
            for question, answer in zip(pairing.questions, pairing.answers, strict=True)
        ]
        return cls(cases, pairing.questions, pairing.clusters, candidates, verdicts)


@dataclass(frozen=True, slots=True)
class Count:
    """A number, and what every question adds to it."""

    value: float | None
    """From 0 to 1; None where no question counts."""
    values: NDArray[np.float64]
    """(questions,) NaN where a question does not count."""
    groups: list[str]
    """(questions,) which mean each question belongs to."""
    interval: tuple[float, float] | None = None

    @property
    def num_questions(self) -> int:
        """The denominator."""
        return int((~np.isnan(self.values)).sum())


def missing_for(number: Number, answered: Answered) -> str:
    """What a number needs that is not there, as the end of a sentence; empty where nothing is."""
    for reading in number.readings:
        if reading.needs_candidates and answered.candidates is None:
            return "needs a list of known answers (--candidates)"
        if reading.judge and reading.judge.name not in (answered.verdicts or {}):
            return f"needs a judge (--judge; the authors': {reading.judge.model})"
    return ""


def count(number: Number, answered: Answered) -> Count:
    """Compute a number of a protocol, without an interval (see `with_intervals`).

    Raises:
        ScoreError: it needs a judge, or known answers, that are not there.
    """
    if lack := missing_for(number, answered):
        raise ScoreError(f"The number {number.label!r} {lack}.")
    rows = list(zip(answered.questions, answered.cases, strict=True))
    values = np.array([_counted(number, *row, answered.verdicts or {}) for row in rows])
    groups = [
        number.mean.group(each, number.typing.kind(each)) if number.mean.group else ""
        for each in answered.questions
    ]
    known = _by_group(values, groups)
    if not known or not number.mean.needed <= known.keys():
        return Count(None, values, groups)
    means = [float(np.nanmean(column)) for column in known.values()]
    return Count(sum(means) / len(means), values, groups)


def with_intervals(
    counts: Sequence[Count], answered: Answered, num_samples: int, seed: int = 0
) -> list[Count]:
    """The same numbers with 95 % intervals over pictures, all from the same resamples.

    Args:
        counts: of these answers.
        answered: questions and answers.
        num_samples: resamples of pictures; 0 gives no interval.
        seed: of the resamples.
    """
    tables = [
        np.stack(list(_by_group(each.values, each.groups).values()), axis=1)
        for each in counts
        if each.value is not None
    ]
    if not tables:
        return list(counts)
    samples = cluster_bootstrap(np.hstack(tables), answered.clusters, num_samples, seed)
    found, start = [], 0
    for each in counts:
        if each.value is None:
            found.append(each)
            continue
        table = tables.pop(0)
        end = start + table.shape[1]
        bounds = _bounds(table, samples[:, start:end], answered.clusters)
        found.append(replace(each, interval=bounds))
        start = end
    return found


def _by_group(values: NDArray[np.float64], groups: list[str]) -> dict[str, NDArray[np.float64]]:
    """Group -> values of all questions, NaN where a question is not of it or does not count."""
    names = sorted({name for name, value in zip(groups, values, strict=True) if value == value})
    own = np.array(groups, dtype=object)
    return {name: np.where(own == name, values, np.nan) for name in names}


def _bounds(
    table: NDArray[np.float64], samples: NDArray[np.float64], clusters: NDArray[np.int64]
) -> tuple[float, float] | None:
    counts = ~np.isnan(table)
    total = len(np.unique(clusters[counts.any(axis=1)]))
    if np.nanmax(table) > 1:
        # A protocol that counts a question twice has no share, and so no exact bounds.
        return interval(samples.mean(axis=1), total)
    means = [float(each) for each in np.nanmean(table, axis=0)]
    return mean_interval(
        samples, means, [len(np.unique(clusters[each])) for each in counts.T], total
    )


def counted(number: Number, case: Case, verdicts: Verdicts | None = None) -> float:
    """What one answer adds to a number; NaN where its question does not count."""
    return _counted(number, case.question, case, verdicts or {})


def _counted(number: Number, question: Question, case: Case | None, verdicts: Verdicts) -> float:
    kind = number.typing.kind(question)
    if number.of not in ("all", kind) or not number.asked.keeps(question):
        return np.nan
    if number.dropping.unanswered and (case is None or not case.answer.strip()):
        return np.nan
    if case is None:
        return np.nan if number.dropping.missing else 0.0
    value = _value(number.reading(kind), case, verdicts)
    if value is None:
        return np.nan if number.dropping.unread else 0.0
    return value


def _value(reading: Reading, case: Case, verdicts: Verdicts) -> float | None:
    parts = []
    if reading.rule is not None:
        parts.append(reading.rule(case))
    if reading.judge is not None:
        parts.append(verdicts[reading.judge.name].get(case.question.id) or 0.0)
    known = [float(each) for each in parts if each is not None]
    return sum(known) if known else None
