"""The files of a run: extended records, each written once when it is finished, and the failures.

The file of records only grows, in the order in which answers arrive; a process that is killed
leaves at most one cut line, which the next run removes.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from exgra_med.captions.records import RecordFile
from exgra_med.data.records import (
    IMAGE_PLACEHOLDER,
    Record,
    iterate_lines,
    json_line,
    leading_id,
    parse_record,
)
from exgra_med.digests import DIGEST, iterate_checked, with_digests, without_digest
from exgra_med.errors import DataError
from exgra_med.files import disk_errors, new_file
from exgra_med.reading import decode_json


def failures_path(out: Path) -> Path:
    """Where the failures of an output file are listed."""
    return out.with_name(f"{out.stem}.failures.jsonl")


class ExtendedFile:
    """A growing file of extended records, with the failures of this run beside it.

    Nothing is written before the `with` block begins.

    Args:
        path: JSON Lines; what is in it counts as finished.
        failures: JSON Lines; begins anew, since failed records are tried again.
        origin: model and prompt, stored with each record; a file of another origin is refused.

    Raises:
        DataError: the file is no output of this verb, or of another model or prompt.
        DamagedFileError: a line is not what was written.
        WriteError: a file cannot be written.
    """

    def __init__(self, path: Path, failures: Path, origin: dict[str, Any]) -> None:
        self.path = path
        self.failures = failures
        self.origin = origin
        with disk_errors(path):
            remove_cut_line(path)
        self._finished = {hash(name) for name, _ in finished_ids(path)}
        self._check_origin()

    def __enter__(self) -> "ExtendedFile":
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._records: IO[bytes] = self.path.open("ab")
            with self.path.open("rb") as stream:
                self._before = hashlib.file_digest(stream, "sha256")
        with disk_errors(self.failures):
            self._failures: IO[bytes] = self.failures.open("wb")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._records, self._failures:
            if kind is None:
                os.fsync(self._records.fileno())

    def has(self, name: str) -> bool:
        """The record of this id was finished before this run."""
        return hash(name) in self._finished

    def write(self, record: Record, extended: list[str]) -> None:
        """Append a finished record."""
        meta = record.meta | {"extended_by": self.origin}
        done = record.model_copy(update={"extended": extended, "meta": meta})
        self._append(self._records, with_digests([done.to_json()], self._before))

    def fail(self, record: Record, turn: int, kind: str, detail: str, attempts: int) -> None:
        """List a record that could not be extended, without any of its text."""
        row = {"id": record.id, "turn": turn, "kind": kind, "detail": detail, "attempts": attempts}
        self._append(self._failures, json_line(row))

    def _append(self, stream: IO[bytes], line: bytes) -> None:
        with disk_errors(self.path):
            stream.write(line)
            stream.flush()

    def _check_origin(self) -> None:
        if not self.path.is_file():
            return
        for where, text in islice(iterate_lines(self.path), 1):
            row = decode_json(text, where)
            meta = row.get("meta") if isinstance(row, dict) else None
            found = meta.get("extended_by") if isinstance(meta, dict) else None
            if found != self.origin:
                raise DataError(
                    f"{self.path}: was made by {found or 'something else'}, "
                    f"this run is {self.origin}.",
                    "Choose another --out.",
                )


def finished_ids(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (id, byte offset) of each record of an output file.

    Raises:
        DataError: a line has no id.
        DamagedFileError: a line is not what was written.
    """
    offset = 0
    with path.open("rb") if path.exists() else Path(os.devnull).open("rb") as stream:
        for number, raw in enumerate(iterate_checked(stream, path, _GENERATE_AGAIN), start=1):
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 text.") from error
            name = leading_id(text)
            if name is None:
                row = decode_json(text, f"{path}:{number}")
                name = row.get("id") if isinstance(row, dict) else None
            if not isinstance(name, str):
                raise DataError(f"{path}:{number}: no record of this verb.")
            yield name, offset
            offset = stream.tell()


_GENERATE_AGAIN = (
    "Remove that line and all behind it, and generate again, which asks for nothing that was paid; "
    f"if it was changed on purpose, delete `{DIGEST}` from its lines."
)


def remove_cut_line(path: Path) -> None:
    """Remove what a process that was killed left of a last line."""
    if not path.is_file():
        return
    with path.open("rb+") as stream:
        end = size = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            stream.truncate(end)


_ROLES = {"user": "human", "assistant": "gpt"}


def original_item(record: Record) -> dict[str, Any]:
    """An item of the JSON file that the original trains on, with `conversations_long`."""
    short = [{"from": _ROLES[turn.role], "value": turn.text} for turn in record.turns]
    if not record.places_images:
        short[0]["value"] = f"{IMAGE_PLACEHOLDER}\n" * len(record.images) + short[0]["value"]
    answers = iter(record.extended or [])
    long = [
        {"from": message["from"], "value": next(answers)} if message["from"] == "gpt" else message
        for message in short
    ]
    item: dict[str, Any] = {"id": record.meta.get("published_id", record.id)}
    known = {"image": record.image, "answer_type": record.answer_type}
    item |= {key: value for key, value in known.items() if value is not None}
    if "domain" in record.meta:
        item["domain"] = record.meta["domain"]
    return item | {"conversations": short, "conversations_long": long}


def write_original(source: RecordFile, extended: Path, out: Path) -> int:
    """Write the finished records of a source as the original's JSON list, in the source's order.

    Returns:
        How many items were written.

    Raises:
        WriteError: the disk is full; an older file is untouched.
    """
    offsets = {hash(name): offset for name, offset in finished_ids(extended)}
    number = 0
    with extended.open("rb") as stream, new_file(out) as target:
        target.write(b"[")
        for record in source.iterate():
            offset = offsets.get(hash(record.id))
            if offset is None:
                continue
            stream.seek(offset)
            where = f"{extended}, byte {offset}"
            line = without_digest(stream.readline()).decode("utf-8")
            item = original_item(parse_record(decode_json(line, where), where))
            target.write(b",\n" if number else b"\n")
            target.write(json.dumps(item, ensure_ascii=False, indent=4).encode("utf-8"))
            number += 1
        target.write(b"\n]\n")
    return number
