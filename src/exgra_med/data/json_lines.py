"""Records on disk: one JSON object a line, UTF-8, ids unique within a file."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from exgra_med.data.json_text import decode_json
from exgra_med.data.record import Record, parse_record
from exgra_med.errors import DataError
from exgra_med.files import new_file


def iterate_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file one by one; only their ids stay in memory.

    Raises:
        DataError: a line is not a record, or an id comes twice; the message names file and line.
    """
    seen: set[int] = set()
    for where, text in iterate_lines(path):
        record = parse_record(decode_json(text, where), where)
        # 64-bit hashes instead of the strings: a million ids stay below 100 MB.
        key = hash(record.id)
        if key in seen:
            raise DataError(f"{where}: the id {record.id!r} comes twice.", "Ids must be unique.")
        seen.add(key)
        yield record


def iterate_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (`FILE:LINE`, text) of each line that is not blank.

    Raises:
        DataError: the file is absent, cannot be read, or is not UTF-8.
    """
    number = 0
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield f"{path}:{number}", text
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 text.", "Save the file as UTF-8.") from error


def iterate_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`FILE:LINE`, row) of each line that is not blank, whatever its keys.

    Raises:
        DataError: see `iterate_lines`, or a line is no JSON object.
    """
    for where, text in iterate_lines(path):
        row = decode_json(text, where)
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object.")
        yield where, row


def read_records(path: Path) -> list[Record]:
    """All records of a file, in order.

    Raises:
        DataError: a line is not a record, or an id comes twice.
    """
    return list(iterate_records(path))


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records atomically and return how many there were.

    Raises:
        WriteError: the disk is full or the folder cannot be written; `path` is as it was before.
        DataError: an id comes twice.
    """
    seen: set[int] = set()
    with new_file(path) as stream:
        for record in records:
            key = hash(record.id)
            if key in seen:
                raise DataError(f"{path}: the id {record.id!r} comes twice.")
            seen.add(key)
            stream.write(record_line(record))
    return len(seen)


def record_line(record: Record) -> bytes:
    """The bytes of one record in a file, its line end included."""
    return json.dumps(record.to_json(), ensure_ascii=False).encode("utf-8") + b"\n"
