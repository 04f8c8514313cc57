"""Strict reading of JSON files, and records on disk: one JSON object a line, UTF-8, unique ids."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from exgra_med.data.record import Record, parse_record
from exgra_med.errors import DataError
from exgra_med.files import new_file


def decode_json(text: str, where: str) -> Any:
    """Decode one JSON document; `NaN`, `Infinity` and a key given twice are refused.

    Args:
        text: the document.
        where: file, and line where known, for the error message.

    Raises:
        DataError: the text is not strict JSON; says where and why.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise DataError(f"{where}: {name} is not a JSON value.", "Write null or a number.")

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise DataError(f"{where}: the key {twice!r} is given twice in one object.")
        return value

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise DataError(
            f"{where}: not valid JSON ({error.msg}, {place}).", "The file may be cut short."
        ) from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deeply.") from error
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}).") from error


def read_text(path: Path) -> str:
    """The whole file as UTF-8 text, a byte-order mark removed.

    Raises:
        DataError: the file is absent, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.start}).", "Save the file as UTF-8."
        ) from error


def read_json(path: Path) -> Any:
    """Decode a whole JSON file.

    Raises:
        DataError: the file is absent, not UTF-8, or not strict JSON.
    """
    return decode_json(read_text(path), str(path))


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Decode a JSON file that must hold a list of objects; outer blanks of keys are stripped.

    Raises:
        DataError: the file holds something else.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a JSON list, found {type(value).__name__}.")
    rows = []
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is a {type(row).__name__}, not an object.")
        rows.append({key.strip(): item for key, item in row.items()})
    return rows


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
