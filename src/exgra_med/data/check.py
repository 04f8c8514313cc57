"""`data check`: every record read, every image decoded, everything odd counted and named."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from exgra_med.data.chat import conversation_segments, plain
from exgra_med.data.prepare import MAX_PIXELS, Progress
from exgra_med.data.prepared import Prepared
from exgra_med.data.record import Record
from exgra_med.errors import DataError

TEMPLATE = "exgra"
LONG_TEXT_CHARACTERS = 6000
"""About 1,500 tokens; with a picture's 256 and a prompt, near the paper's window of 2,048."""


@dataclass
class CheckReport:
    """What a check found.

    Args:
        counts: records per split.
        faults: what makes the folder unusable, one sentence each.
        notices: what a person should know but training can live with.
        facts: further numbers.
    """

    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; `ok` says whether it is without a fault."""
        return {"ok": not self.faults, **vars(self)}

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = [f"{split}: {count} records" for split, count in self.counts.items()]
        lines += [f"{key.replace('_', ' ')}: {value}" for key, value in self.facts.items()]
        lines += [f"notice: {text}" for text in self.notices]
        lines += [f"fault: {text}" for text in self.faults[:20]]
        if len(self.faults) > 20:
            lines.append(f"... and {len(self.faults) - 20} more faults")
        if not self.faults:
            lines.append("no fault found")
        return lines


def check_prepared(prepared: Prepared, progress: Progress | None = None) -> CheckReport:
    """Check a prepared folder against its manifest and its images.

    Args:
        prepared: the folder.
        progress: is told of each image.
    """
    report = CheckReport()
    images: dict[str, set[str]] = defaultdict(set)
    triples: Counter[tuple[str, ...]] = Counter()
    longest = 0
    for split in prepared.splits:
        try:
            records = prepared.records(split)
        except DataError as error:
            report.faults.append(str(error))
            continue
        report.counts[split] = len(records)
        expected = prepared.manifest["counts"][split]
        if len(records) != expected:
            report.faults.append(f"{split}: the manifest says {expected}, found {len(records)}.")
        for record in records:
            longest = max(longest, sum(len(turn.text) for turn in record.turns))
            triples[(*record.images, record.question, record.answer)] += 1
            for name in record.images:
                images[name].add(split)
            _check_texts(record, report)
    folder = prepared.image_folder(MAX_PIXELS)
    for number, name in enumerate(sorted(images), start=1):
        try:
            folder.open(name)
        except DataError as error:
            report.faults.append(error.message)
        if progress:
            progress("images", number)
    _summarise(report, images, triples, longest)
    return report


def _check_texts(record: Record, report: CheckReport) -> None:
    segments = conversation_segments(record, TEMPLATE)
    if not any(plain(text) for text in record.answers) or not any(s.supervised for s in segments):
        report.faults.append(f"{record.id}: nothing in it is learned from.")
    for text in [*record.answers, *(record.extended or [])]:
        if not text.strip():
            report.faults.append(f"{record.id}: an answer or extended answer is blank.")
    length = sum(len(segment.text) for segment in segments)
    if length > LONG_TEXT_CHARACTERS:
        report.notices.append(f"{record.id}: {length} characters may not fit the context window.")


def _summarise(
    report: CheckReport,
    images: dict[str, set[str]],
    triples: Counter[tuple[str, ...]],
    longest: int,
) -> None:
    shared = sum(1 for splits in images.values() if {"train", "test"} <= splits)
    tested = sum(1 for splits in images.values() if "test" in splits)
    twice = sum(count - 1 for count in triples.values() if count > 1)
    report.facts = {
        "images": len(images),
        "test_images": tested,
        "test_images_in_train": shared,
        "repeated_records": twice,
        "longest_conversation_in_characters": longest,
    }
    if shared:
        report.notices.append(f"{shared} of {tested} test images are in train too.")
    if twice:
        report.notices.append(f"{twice} records repeat image, question and answer of another.")
