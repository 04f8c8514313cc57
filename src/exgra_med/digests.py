"""How to know again what was written, by its SHA-256.

A document has it in itself, so that no kill can part the two: JSON as its key `sha256`, YAML as its
first line. It is of the values, so another layout is no damage. A file that grows has it in every
line, over all bytes before it in the file: a kill leaves a torn last line at most, and anything
else that is not as it was is found. A folder that is written at once, such as a checkpoint, has
`digests.json`.

A split of prepared data has it in the manifest of its folder, and a cached answer in its table.

A file without any is of an earlier version or of another tool, and nothing of it can be checked.
"""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from exgra_med.errors import DamagedFileError, DataError, ExgraMedError, RecipeError
from exgra_med.files import write_text
from exgra_med.reading import read_json, read_object, read_yaml, short, stray, write_yaml

DIGEST = "sha256"
DIGESTS = "digests.json"
_COPY_AGAIN = "Copy it again from where it is whole"
_DIFFERS = "is not what was written there: its SHA-256 differs"
_YAML_DIGEST = re.compile(rf"# {DIGEST}: ([0-9a-f]{{64}})\n")
_LINE_DIGEST = re.compile(rb', "sha256": "([0-9a-f]{16})"\}(?=\r?\n?\Z)')
_LINE_DIGITS = 16


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError):
        return ""  # a date, a key that is no text: nothing that was written here
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(path: Path, what: str, hint: str) -> DamagedFileError:
    return DamagedFileError(f"{path} {what}.", hint)


def _unreadable(path: Path, error: OSError, hint: str) -> DamagedFileError:
    return _damaged(path, f"cannot be read ({error.strerror})", hint or f"{_COPY_AGAIN}.")


def write_document(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its SHA-256, atomically.

    Raises:
        ValueError: the object holds a number that is not finite.
        DiskFullError, WriteError: an older file of that name is untouched.
    """
    # As a reader will see it: keys are texts, tuples are lists.
    plain = json.loads(json.dumps(value, allow_nan=False))
    whole = plain | {DIGEST: _digest(plain)}
    write_text(path, json.dumps(whole, ensure_ascii=False, indent=2) + "\n")


def read_document(path: Path, hint: str = "") -> dict[str, Any]:
    """A JSON object that `write_document` wrote, or one without a digest, which is not checked.

    Args:
        path: the file.
        hint: how to go on without it.

    Raises:
        DamagedFileError: it is gone, cannot be read, or is not what was written.
    """
    try:
        value = read_json(path, DamagedFileError)
    except DamagedFileError as error:
        raise DamagedFileError(error.message, hint or f"{_COPY_AGAIN}.") from error
    if not isinstance(value, dict):
        raise _damaged(path, "is damaged: it is no JSON object", hint or f"{_COPY_AGAIN}.")
    found = value.pop(DIGEST, None)
    if found is not None and found != _digest(value):
        own = f"If it was changed on purpose, delete `{DIGEST}` in it."
        raise _damaged(path, _DIFFERS, hint or own)
    return value


def has_digest(path: Path) -> bool:
    """Whether a JSON document can be checked; those of earlier versions cannot."""
    try:
        return DIGEST in read_object(path)
    except DataError:
        return False


def yaml_with_digest(value: Mapping[str, Any]) -> str:
    """A YAML document whose first line is a comment with the SHA-256 of its values."""
    return f"# {DIGEST}: {_digest(value)}\n{write_yaml(value)}"


def with_digests(values: Sequence[Mapping[str, Any]], before: Any) -> bytes:
    """JSON Lines, each with the SHA-256 of everything before it in its file.

    Args:
        values: one a line; none is empty.
        before: `hashlib.sha256` over what is in the file already; it is taken on over these lines.
    """
    written = bytearray()
    for value in values:
        # Of half a character, which no UTF-8 has, a model may say.
        body = json.dumps(value, ensure_ascii=False)[:-1].encode("utf-8", "replace")
        own = before.copy()
        own.update(body)
        digest = own.hexdigest()[:_LINE_DIGITS].encode()
        line = body + b', "sha256": "' + digest + b'"}\n'
        before.update(line)
        written += line
    return bytes(written)


def checked_lines(raw: bytes, path: Path, hint: str = "") -> list[bytes]:
    """The lines of a file that grows, without their digests; the last one is empty or torn.

    Args:
        raw: what is in the file.
        path: the file, for the sentence.
        hint: how to go on without it.

    Raises:
        DamagedFileError: a line is not what was written there; the first such one is named.
    """
    lines = [line.removesuffix(b"\n") for line in iterate_checked(BytesIO(raw), path, hint)]
    return lines if raw and not raw.endswith(b"\n") else [*lines, b""]


def iterate_checked(lines: Iterable[bytes], path: Path, hint: str = "") -> Iterator[bytes]:
    """The lines of a file that grows one by one, with their line ends and without their digests.

    Args:
        lines: as they are in the file; one without a line end is torn.
        path: the file, for the sentence.
        hint: how to go on without it.

    Raises:
        DamagedFileError: a line is not what was written there.
    """
    before, has_digests = hashlib.sha256(), False
    for number, line in enumerate(lines, start=1):
        # Line ends of Windows, as git may make them, count as those that were written.
        written = line.removesuffix(b"\r\n") + b"\n" if line.endswith(b"\r\n") else line
        match = _LINE_DIGEST.search(written)
        if match:
            before.update(written[: match.start()])
            is_whole = before.hexdigest()[:_LINE_DIGITS].encode() == match[1]
            before.update(written[match.start() :])
        else:
            before.update(written)
            is_whole = not has_digests or not line.endswith(b"\n") or not line.strip()
        if not is_whole:
            where = f"holds a line {number} that is not what was written there, or stands after one"
            own = f"If it was changed on purpose, delete `{DIGEST}` from its lines."
            raise _damaged(path, where, hint or own)
        has_digests = has_digests or match is not None
        yield without_digest(line)


def without_digest(line: bytes) -> bytes:
    """A line of `with_digests` as it was before; any other line as it is."""
    return _LINE_DIGEST.sub(b"}", line)


def write_digests(folder: Path) -> None:
    """Write `digests.json`: the SHA-256 of every file that lies in a folder now.

    Left out is what people read and may change, `*.md`. It reads every file once, mostly from
    memory as they were just written: about a second for each gigabyte.
    """
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")
    names = sorted(p.relative_to(folder).as_posix() for p in files if p.name != DIGESTS)
    write_document(folder / DIGESTS, {"files": {name: _sha256(folder / name) for name in names}})


def check_digests(folder: Path, hint: str = "") -> bool:
    """Check the files of a folder against its `digests.json`, in the first process of a machine.

    Returns:
        Whether there was one; folders of earlier versions and of other tools have none.

    Raises:
        DamagedFileError: a file is gone, or is not what was written; it is named.
    """
    listed = folder / DIGESTS
    if not os.path.lexists(listed):
        return False
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return True
    known = read_document(listed, hint).get("files")
    if not isinstance(known, dict):
        raise _damaged(listed, "is damaged: it names no files", hint or f"{_COPY_AGAIN}.")
    for name in known:
        if problem := stray(name, folder="its folder"):
            raise _damaged(listed, f"names {short(name)}, which {problem}", hint)
    stamp = _stamp(folder, known)
    if None not in stamp and _CHECKED.get(str(folder.resolve())) == stamp:
        return True
    for name, digest in known.items():
        path = folder / name
        try:
            is_whole = _sha256(path) == digest
        except OSError as error:
            raise _unreadable(path, error, hint) from error
        if not is_whole:
            own = f"{_COPY_AGAIN}; if it was changed on purpose, delete {listed}."
            raise _damaged(path, _DIFFERS, hint or own)
    _CHECKED[str(folder.resolve())] = stamp
    return True


_CHECKED: dict[str, tuple[tuple[int, int] | None, ...]] = {}
"""Folder that was whole -> its stamp: what a process reads twice is hashed once."""


def _stamp(folder: Path, names: Collection[str]) -> tuple[tuple[int, int] | None, ...]:
    """Size and time of each file; none where it is gone."""
    found: list[tuple[int, int] | None] = []
    for name in names:
        try:
            about = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((about.st_size, about.st_mtime_ns))
    return tuple(found)


def _sha256(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):
        # A device or a pipe, to which a link may lead, need not end.
        raise OSError(errno.EINVAL, "it is no file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_yaml_document(
    path: Path, error: type[ExgraMedError] = RecipeError, again: str = _COPY_AGAIN
) -> Any:
    """Read a file of `yaml_with_digest`, or one without a digest, which is not checked.

    Args:
        path: the file.
        error: what is raised where it cannot be read.
        again: how to get it back, a sentence without its end.

    Raises:
        ExgraMedError: of the kind `error`: the file cannot be read, or is not YAML.
        DamagedFileError: its values are not those that were written.
    """
    try:
        value = read_yaml(path, error)
    except ExgraMedError as fault:
        raise error(fault.message, fault.hint or f"{again}.") from fault
    found = _YAML_DIGEST.match(path.read_text(encoding="utf-8"))
    if found and _digest(value) != found[1]:
        own = f"{again}; if it was changed on purpose, delete its first line."
        raise _damaged(path, _DIFFERS, own)
    return value
