"""Extended answers -> counts of faults and the worst examples."""

import heapq
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from exgra_med.captions.faults import (
    WEIGHTS,
    Fault,
    copy_rate,
    find_faults,
    length_ratio,
    lower_words,
)
from exgra_med.captions.question import pairs_of
from exgra_med.captions.records import RecordFile
from exgra_med.data.records import Record
from exgra_med.errors import DataError


@dataclass(frozen=True)
class CheckedAnswer:
    """One extended answer with what may be wrong with it."""

    id: str
    turn: int
    question: str
    answer: str
    extended: str
    faults: list[Fault]

    @property
    def kinds(self) -> set[str]:
        """Names of its faults."""
        return {fault.kind for fault in self.faults}

    @property
    def badness(self) -> int:
        """Sum of the weights of its faults."""
        return sum(WEIGHTS[fault.kind] for fault in self.faults)


@dataclass
class CaptionCheck:
    """What a check found.

    Args:
        records: number of records with extended answers.
        without: number of records without.
        faulty: answers with at least one fault.
        counts: answers with each kind of fault.
        length_ratio: quartiles of length over the answer's length.
        copy_rate: mean share of runs of four words taken from the answer.
        origins: number of records by model and prompt.
    """

    records: int = 0
    without: int = 0
    answers: int = 0
    faulty: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    length_ratio: list[float] = field(default_factory=list)
    copy_rate: float = 0.0
    origins: Counter[str] = field(default_factory=Counter)
    worst: list[CheckedAnswer] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Figures and ids, without the texts."""
        return {
            "records": self.records,
            "records_without": self.without,
            "answers": self.answers,
            "faulty": self.faulty,
            "faults": {kind: self.counts[kind] for kind in WEIGHTS},
            "length_ratio": dict(zip(("q1", "median", "q3"), self.length_ratio, strict=True)),
            "copy_rate": self.copy_rate,
            "origins": dict(self.origins),
            "worst": [
                {"id": one.id, "turn": one.turn, "faults": [fault.kind for fault in one.faults]}
                for one in self.worst
            ],
        }


def checked_records(records: Iterable[Record]) -> Iterator[tuple[Record, list[CheckedAnswer]]]:
    """Each record with its extended answers and what may be wrong with them; of a record without
    any, none."""
    seen: dict[int, int] = {}
    for record in records:
        answers = []
        pairs = zip(pairs_of(record), record.extended or [], strict=bool(record.extended))
        for turn, ((question, answer), extended) in enumerate(pairs):
            faults = find_faults(question, answer, extended)
            # The same extension of another answer says little about either.
            text, of = hash(tuple(lower_words(extended))), hash(tuple(lower_words(answer)))
            if seen.setdefault(text, of) != of:
                faults.append(Fault("duplicate", "the same as that of another answer"))
            answers.append(CheckedAnswer(record.id, turn, question, answer, extended, faults))
        yield record, answers


def check_captions(source: RecordFile, num_worst: int = 50) -> CaptionCheck:
    """Check every extended answer of a file; memory does not grow with its length.

    Raises:
        DataError: a record is malformed, or no record has extended answers.
    """
    report = CaptionCheck()
    ratios = array("f")
    copied = 0.0
    worst: list[tuple[int, int, CheckedAnswer]] = []
    for record, answers in checked_records(source.iterate()):
        if not answers:
            report.without += 1
            continue
        report.records += 1
        by = record.meta.get("extended_by")
        known = isinstance(by, dict)
        report.origins[f"{by.get('model')}, prompt {by.get('prompt')}" if known else "unknown"] += 1
        for example in answers:
            number = report.answers
            report.answers += 1
            ratios.append(length_ratio(example.answer, example.extended))
            copied += copy_rate(example.answer, example.extended)
            report.counts.update(example.kinds)
            if example.faults:
                report.faulty += 1
                heapq.heappush(worst, (example.badness, -number, example))
                if len(worst) > num_worst:
                    heapq.heappop(worst)
    if not report.answers:
        raise DataError(
            f"{source.path}: no record has extended answers.", "Check the output of `generate`."
        )
    report.copy_rate = round(copied / report.answers, 4)
    report.length_ratio = _quartiles(ratios)
    report.worst = [example for _, _, example in sorted(worst, key=lambda row: row[:2])][::-1]
    return report


def _quartiles(values: array) -> list[float]:
    if len(values) == 1:
        return [round(values[0], 2)] * 3
    return [round(value, 2) for value in statistics.quantiles(values, n=4, method="inclusive")]
