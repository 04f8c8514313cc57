"""What people say of extended answers: one growing file a rater, beside the captions.

    long.jsonl                     the captions
    long.judgements.ana.jsonl      what Ana said: one line a judgement, on disk before she goes on

The last line of a rater about an answer counts. A line has the SHA-256 of the text that was judged:
where that text has changed since, the judgement is of another text and counts no more.
"""

import csv
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exgra_med.captions.check import CheckedAnswer, checked_records
from exgra_med.captions.output import remove_cut_line
from exgra_med.captions.records import RecordFile
from exgra_med.data.records import BUNDLED
from exgra_med.digests import checked_lines, with_digests
from exgra_med.errors import DataError
from exgra_med.files import append, disk_errors, is_folder, sole_writer, write_text
from exgra_med.reading import decode_json

VERDICTS = ("accept", "reject", "unsure")
_RATER = re.compile(r"[\w-]{1,40}")
_MOST_CHARACTERS = 2000
"""Of a note."""
_DIGITS = 16

Place = tuple[str, int]
"""Id of a record and number of its answer, from 0."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a rater said of one extended answer.

    Args:
        text: of the extended answer, see `text_digest`.
        verdict: one of `VERDICTS`; empty where there is a note alone, or it was taken back.
        time: when, in UTC.
    """

    id: str
    turn: int
    text: str
    verdict: str
    note: str
    rater: str
    time: str

    @property
    def place(self) -> Place:
        """What it is about."""
        return self.id, self.turn


def text_digest(extended: str) -> str:
    """By which a judgement knows its text again."""
    return hashlib.sha256(extended.encode("utf-8", "replace")).hexdigest()[:_DIGITS]


def judgements_path(captions: str, rater: str) -> Path:
    """Where a rater's judgements of a file of captions, or of a prepared folder, are.

    Raises:
        DataError: the rater's name is no name of a file.
    """
    if not _RATER.fullmatch(rater):
        raise DataError(
            f"The rater's name {rater!r} cannot be part of a file's name.",
            "Give letters, digits, - and _, at most 40.",
        )
    return _beside(captions, rater)


def _beside(captions: str, rater: str) -> Path:
    path = Path(captions.removeprefix(BUNDLED))
    if is_folder(path):
        path = path.resolve()
        return path.with_name(f"{path.name}.judgements.{rater}.jsonl")
    return path.with_name(f"{path.stem}.judgements.{rater}.jsonl")


class JudgementFile:
    """The growing file of one rater; safe for several threads.

    Raises:
        DataError: a line is no judgement, or one of another rater.
        DamagedFileError: a line is not what was written.
        RunError: another process writes the file.
        WriteError: it cannot be written.
    """

    def __init__(self, captions: str, rater: str) -> None:
        self.path, self.rater = judgements_path(captions, rater), rater
        self.latest: dict[Place, Judgement] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            lock = self.path.with_name(f".{self.path.name}.writer")
            stack.enter_context(sole_writer(lock, self.path))
            with disk_errors(self.path):
                remove_cut_line(self.path)
                whole = self.path.read_bytes() if self.path.exists() else b""
            self._before = hashlib.sha256(whole)
            self.latest = _latest(self.path, self.rater) if whole else {}
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def add(self, place: Place, extended: str, verdict: str, note: str) -> Judgement:
        """Store a judgement; it is on the disk when this returns.

        Raises:
            DataError: no such verdict, or the note is too long.
            WriteError: the disk is full; nothing was added.
        """
        if verdict not in ("", *VERDICTS):
            raise DataError(f"{verdict!r} is no verdict.", f"They are {', '.join(VERDICTS)}.")
        if len(note) > _MOST_CHARACTERS:
            raise DataError(f"A note may have {_MOST_CHARACTERS} characters, this has {len(note)}.")
        time = datetime.now(UTC).isoformat(timespec="seconds")
        made = Judgement(*place, text_digest(extended), verdict, note, self.rater, time)
        with self._guard:
            # What could not be written must not count for the lines after it.
            before = self._before.copy()
            append(self.path, with_digests([asdict(made)], before))
            self._before = before
            self.latest[place] = made
        return made


def _latest(path: Path, rater: str) -> dict[Place, Judgement]:
    return {each.place: each for each in _read(path, rater)}


def _read(path: Path, rater: str) -> Iterator[Judgement]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    # The last one is empty, or torn by a process that was killed or is writing.
    for number, line in enumerate(checked_lines(raw, path)[:-1], start=1):
        where = f"{path}:{number}"
        row = decode_json(line.decode("utf-8", "replace"), where)
        values = [row.get(name) if isinstance(row, dict) else None for name in Judgement.__slots__]
        kinds = [str, int, *[str] * 5]
        is_whole = all(isinstance(*each) for each in zip(values, kinds, strict=True))
        if not is_whole or row["verdict"] not in ("", *VERDICTS):
            raise DataError(f"{where}: not a judgement.", "Each rater's file has one a line.")
        # The file's name says whose they are, also where it was renamed.
        yield replace(Judgement(*values), rater=rater)  # pyrefly: ignore


def read_judgements(captions: str) -> dict[str, dict[Place, Judgement]]:
    """The last judgement of each rater about each answer, by rater; a torn last line is left out.

    Raises:
        DataError: a file is malformed.
        DamagedFileError: a line is not what was written.
    """
    own = _beside(captions, "*")
    first, last = own.name.split("*")
    found: dict[str, dict[Place, Judgement]] = {}
    paths = sorted(own.parent.iterdir()) if own.parent.is_dir() else []
    for path in paths:
        rater = path.name.removeprefix(first).removesuffix(last)
        if path.name == f"{first}{rater}{last}" and _RATER.fullmatch(rater):
            found[rater] = _latest(path, rater)
    return found


def needed_judgements(captions: str) -> dict[str, dict[Place, Judgement]]:
    """As `read_judgements`, where nothing can be done without any.

    Raises:
        DataError: nobody has judged the captions, or a file is malformed.
        DamagedFileError: a line is not what was written.
    """
    if not (found := read_judgements(captions)):
        raise DataError(
            f"{captions}: nobody has judged these captions.",
            f"Judge them with `exgra-med captions review {captions} --rater NAME`.",
        )
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgements that count for an answer, one a rater."""

    judgements: list[Judgement]

    @property
    def is_rejected(self) -> bool:
        """Somebody rejects it."""
        return any(each.verdict == "reject" for each in self.judgements)

    @property
    def is_accepted(self) -> bool:
        """Somebody accepts it, and nobody rejects it."""
        return not self.is_rejected and any(each.verdict == "accept" for each in self.judgements)


def judged(by_rater: Mapping[str, Mapping[Place, Judgement]], place: Place, text: str) -> Judged:
    """What raters said of an answer, as far as it was about this text."""
    found = (each[place] for each in by_rater.values() if place in each)
    return Judged([each for each in found if each.text == text_digest(text)])


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """A judgement that counts, with what it is about."""

    answer: CheckedAnswer
    judgement: Judgement
    image_group: str

    @property
    def place(self) -> Place:
        """What it is about."""
        return self.judgement.place

    @property
    def rater(self) -> str:
        """Who judged."""
        return self.judgement.rater

    @property
    def verdict(self) -> str:
        """What was said; empty of a note alone."""
        return self.judgement.verdict

    def to_json(self) -> dict[str, Any]:
        """As it is exported."""
        return {
            "id": self.answer.id,
            "turn": self.answer.turn,
            "question": self.answer.question,
            "answer": self.answer.answer,
            "extended": self.answer.extended,
            "signs": "; ".join(f"{fault.kind}: {fault.detail}" for fault in self.answer.faults),
            "rater": self.rater,
            "verdict": self.verdict,
            "note": self.judgement.note,
            "time": self.judgement.time,
        }


def judgement_rows(captions: str, source: RecordFile) -> Iterator[JudgedAnswer]:
    """Every judgement of the captions as they are now, in their order.

    Raises:
        DataError: nobody has judged them, or a file is malformed.
    """
    by_rater = needed_judgements(captions)
    for record, answers in checked_records(source.iterate()):
        for answer in answers:
            for said in judged(by_rater, (answer.id, answer.turn), answer.extended).judgements:
                if said.verdict or said.note:
                    yield JudgedAnswer(answer, said, record.image_group)


def judgement_counts(captions: str, rows: Iterable[JudgedAnswer]) -> dict[str, Any]:
    """How often each rater gave each verdict; and how many judgements are of other texts."""
    by_rater = read_judgements(captions)
    found = {rater: Counter(dict.fromkeys(VERDICTS, 0)) for rater in by_rater}
    count = 0
    for row in rows:
        count += 1
        if row.verdict:
            found[row.rater][row.verdict] += 1
    stored = [each for said in by_rater.values() for each in said.values()]
    return {
        "raters": {rater: dict(counts) for rater, counts in found.items()},
        "of_other_texts": sum(bool(each.verdict or each.note) for each in stored) - count,
    }


def write_export(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV or JSON Lines, by the ending of the file.

    Raises:
        DataError: another ending.
        WriteError: the disk is full.
    """
    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif path.suffix == ".csv":
        stream = StringIO()
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["id"], lineterminator="\n")
        writer.writeheader()
        # A spreadsheet would run a text that begins so; a quote makes it a text.
        formula = ("=", "+", "-", "@", "\t", "\r")
        for row in rows:
            writer.writerow(
                {
                    key: f"'{value}" if isinstance(value, str) and value.startswith(formula)
                    else value
                    for key, value in row.items()
                }
            )  # fmt: skip
        write_text(path, stream.getvalue())
    else:
        raise DataError(f"{path}: an export ends in .csv or .jsonl.")
