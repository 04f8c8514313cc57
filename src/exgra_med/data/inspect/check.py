"""`data check`: every record read, every image decoded, everything suspicious counted and named."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from exgra_med.data.chat_template import (
    clean_text,
    conversation_segments,
    encode_conversation,
    encode_text,
)
from exgra_med.data.prepare import MAX_PIXELS, image_digest
from exgra_med.data.records import GUESSED, MANIFEST, NOT_STATED, Met, Prepared, Record
from exgra_med.errors import DamagedFileError, DataError
from exgra_med.terminal import ProgressCallback

LONG_TEXT_CHARACTERS = 6000
"""About 1,500 tokens; with a picture's 256 and a prompt, near the paper's window of 2,048."""

_RECORDS_BETWEEN_WORDS = 1000
MAX_LINES = 20
"""Faults and notices of a kind that are printed for a person; JSON has all."""


@dataclass(frozen=True)
class Window:
    """How a model reads a conversation."""

    tokenizer: Any
    num_image_tokens: int
    max_length: int


@dataclass
class CheckReport:
    """What a check found.

    Args:
        faults: what makes the folder unusable, one sentence each.
        notices: what a person should know but training can live with.
    """

    counts: dict[str, int] = field(default_factory=dict)
    answer_types: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = [
            f"{split}: {count} records ({types})"
            if (types := ", ".join(f"{kind} {n}" for kind, n in self.answer_types[split].items()))
            else f"{split}: {count} records"
            for split, count in self.counts.items()
        ]
        lines += [f"{key.replace('_', ' ')}: {value}" for key, value in self.facts.items()]
        for kind, texts in (("notice", self.notices), ("fault", self.faults)):
            lines += [f"{kind}: {text}" for text in texts[:MAX_LINES]]
            if len(texts) > MAX_LINES:
                lines.append(f"... and {len(texts) - MAX_LINES} more {kind}s, see --json")
        if not self.faults:
            lines.append("no fault found")
        return lines


def check_prepared(
    prepared: Prepared,
    progress: ProgressCallback | None = None,
    window: Window | None = None,
    template: str = "exgra",
) -> CheckReport:
    """Check a prepared folder against its manifest, its images and a model's window.

    Args:
        window: the model that will be trained; without it characters are counted, not tokens.

    Raises:
        DataError: there is no such template.
    """
    report = CheckReport()
    lengths: Counter[str] = Counter()
    # Of what is shown and of groups a name stays, with the splits that have it: one list for each
    # set of splits there is. Of records nothing but a hash stays.
    images: dict[str, frozenset[str]] = {}
    groups: dict[str, frozenset[str]] = {}
    in_splits: dict[frozenset[str], frozenset[str]] = {}
    triples = Met()
    longest = guessed = twice = 0

    def note(names: dict[str, frozenset[str]], name: str, split: str) -> None:
        known = names.get(name, frozenset())
        if split not in known:
            more = known | {split}
            names[name] = in_splits.setdefault(more, more)

    for split in prepared.splits:
        try:
            records = prepared.stored(split, progress)
        except (DataError, DamagedFileError) as error:
            report.faults.append(str(error))
            continue
        report.counts[split] = len(records)
        expected = prepared.manifest["counts"][split]
        types: Counter[str] = Counter()
        if len(records) != expected:
            report.faults.append(f"{split}: the manifest says {expected}, found {len(records)}.")
        for number, record in enumerate(records, start=1):
            if progress and not number % _RECORDS_BETWEEN_WORDS:
                progress("records of " + split, number, len(records))
            types[record.known_type] += 1
            guessed += record.answer_type is None
            longest = max(longest, sum(len(turn.text) for turn in record.turns))
            twice += not triples.add((*record.images, record.question, record.answer))
            for name in record.images:
                note(images, name, split)
            if "group" in record.meta:
                note(groups, str(record.meta["group"]), split)
            segments = conversation_segments(record, template)
            has_answer = any(clean_text(text) for text in record.answers)
            if not has_answer or not any(segment.supervised for segment in segments):
                report.faults.append(f"{record.id}: nothing in it is learned from.")
            for text in (*record.answers, *(record.extended or [])):
                if not text.strip():
                    report.faults.append(f"{record.id}: an answer or extended answer is blank.")
            if window:
                _check_tokens(record, template, window, report, lengths)
            elif (length := sum(len(each.text) for each in segments)) > LONG_TEXT_CHARACTERS:
                report.notices.append(
                    f"{record.id}: {length} characters may not fit the context window."
                )
        report.answer_types[split] = dict(sorted(types.items()))
    folder = prepared.image_folder(MAX_PIXELS)
    for number, name in enumerate(sorted(images), start=1):
        try:
            folder.open(name)
        except DataError as error:
            report.faults.append(error.message)
        if progress:
            progress("pictures", number, len(images))
    known = prepared.manifest.get("images") or {}
    if known and known != image_digest(prepared.path / "images"):
        report.faults.append(
            f"{prepared.path / 'images'}: the images are not those that {MANIFEST} describes. "
            "Prepare the folder again, unless you have changed them on purpose."
        )
    shared = sum({"train", "test"} <= splits for splits in images.values())
    tested = sum("test" in splits for splits in images.values())
    said = {name: prepared.manifest.get(name) for name in ("licence", "origin")}
    report.facts = {
        **{name: text for name, text in said.items() if text},
        "images": len(images),
        "test_images": tested,
        "test_images_in_train": shared,
        **({"groups": len(groups)} if groups else {}),
        "repeated_records": twice,
        "longest_conversation_in_characters": longest,
        **lengths,
    }
    if shared:
        report.notices.append(f"{shared} of {tested} test images are in train too.")
    if divided := sum(len(splits) > 1 for splits in groups.values()):
        report.notices.append(
            f"{divided} of {len(groups)} groups are in more than one split; `data split` makes "
            "new ones."
        )
    for name in ("licence", "origin"):
        if prepared.manifest.get(name) == NOT_STATED:
            report.notices.append(f"the {name} is not stated; `data prepare --{name}` says it.")
    if twice:
        report.notices.append(f"{twice} records repeat image, question and answer of another.")
    if guessed:
        report.notices.append(f"{guessed} records {GUESSED}.")
    if window:
        report.facts["max_length_in_tokens"] = window.max_length
    else:
        report.notices.append("characters were counted; --tokenizer CHECKPOINT counts tokens.")
    return report


def _check_tokens(
    record: Record, template: str, window: Window, report: CheckReport, lengths: Counter[str]
) -> None:
    """Count tokens as training does: what would stop it is a fault, what it cuts a notice."""
    try:
        encoded, cut = (
            encode_conversation(window.tokenizer, record, template, window.num_image_tokens, most)
            for most in (sys.maxsize, window.max_length)
        )
    except DataError as error:
        report.faults.append(error.message)
        return
    length = len(encoded.input_ids)
    if not cut.num_supervised:
        report.faults.append(
            f"{record.id}: nothing in its first {window.max_length} tokens is learned from."
        )
    elif cut.truncated:
        lost = encoded.num_supervised - cut.num_supervised
        report.notices.append(
            f"{record.id}: {length} tokens, more than {window.max_length}; "
            f"{lost} that should be learned from are cut off."
        )
    extended = [encode_text(window.tokenizer, t, sys.maxsize) for t in record.extended or []]
    longest = max(map(len, extended), default=0)
    if longest > window.max_length:
        report.notices.append(f"{record.id}: an extended answer has {longest} tokens and is cut.")
    for name, value in (("conversation", length), ("extended_answer", longest)):
        key = f"longest_{name}_in_tokens"
        lengths[key] = max(lengths[key], value)
    lengths["tokens"] += length
    lengths["tokens_learned_from"] += encoded.num_supervised
    lengths["records_cut"] += cut.truncated
