"""The one way to write, atomic, and the one way to read text, JSON and YAML, within bounds; and how
to know again what was written, by its SHA-256.

A file or folder that is written is seen complete or not at all.

Content goes into `.NAME.partial-N` beside the target, then takes the target's place. The writer
holds a lock on it that the operating system drops when the process dies, so the next write of the
same target takes over what a killed run left, and never what another process is writing. (Where
files cannot be locked, on Windows and some network drives, such leftovers stay until removed.)

That lock is on the unfinished file or folder itself. What is written over hours, a run folder or a
node of a study, has a lock file that says who writes: `sole_writer`.
"""

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar
from uuid import uuid4

import yaml

from exgra_med.errors import (
    DamagedFileError,
    DataError,
    ExgraMedError,
    RecipeError,
    RunError,
    WriteError,
)

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EFBIG, errno.EIO, errno.EROFS)
_MAX_WRITERS = 64
"""Processes that may write the same target at the same time."""
_RETRY_SECONDS = 0.05


class DiskFullError(WriteError):
    """Nothing more fits on the disk."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write of `path`, or of something beside or in it, into one sentence.

    Errors of the operating system about other files pass unchanged.

    Raises:
        DiskFullError: the disk is full.
        WriteError: no permission, no such folder, a name that is too long and the like.
    """
    try:
        yield
    except Exception as error:
        failure = _system_error(error)
        if failure is None:
            raise
        if failure.errno not in _DISK and not _is_about(failure, path):
            raise
        what = failure.strerror or str(failure)
        if failure.errno in _FULL:
            raise DiskFullError(
                f"{path}: cannot be written, the disk is full ({what}).",
                "Free some space and start again; what was saved before is untouched.",
            ) from error
        raise WriteError(
            f"{path}: cannot be written ({what}).",
            "Choose another place or mend this one; what was saved before is untouched.",
        ) from error


def system_error_in_words(error: Exception) -> ExgraMedError | None:
    """A sentence for an error of the operating system that nobody expected where it came up; none
    for any other error."""
    failure = _system_error(error)
    if failure is None or failure.errno is None:
        return None
    what = failure.strerror or str(failure)
    name = failure.filename if isinstance(failure.filename, str | os.PathLike) else None
    if failure.errno in _FULL:
        return DiskFullError(
            f"{name or 'Something'} cannot be written, the disk is full ({what}).",
            "Free some space and start again; what was saved before is untouched.",
        )
    if failure.errno == errno.ENOENT:
        try:
            check_working_folder()
        except RunError as gone:
            return gone
    if name is None:
        return WriteError(f"The operating system refused something ({what}).")
    # A path that was given: a folder where a file is needed, a file that may not be read.
    return RunError(f"{os.fspath(name)}: {what}.", "Is this the path that was meant?")


def check_working_folder() -> None:
    """See that the folder that paths are relative to exists.

    Raises:
        RunError: it was deleted.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise RunError(
            "The folder that this command was started in is gone.",
            "Change into one that exists, and start again.",
        ) from error


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error names the target, something in it, its unfinished twin, or its folder."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    place = Path(error.filename)
    if path.is_relative_to(place) or place.is_relative_to(path):
        return True
    if not place.is_relative_to(path.parent):
        return False
    return place.relative_to(path.parent).parts[0].startswith(_slot(path, "").name)


def _system_error(error: Exception) -> OSError | None:
    """The error of the operating system; libraries written in Rust wrap it in one of their own."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` when the block ends well, and vanishes otherwise.

    Raises:
        DiskFullError, WriteError: an older file of that name is untouched.
    """
    with disk_errors(path), _own(path, is_folder=False) as temporary:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DiskFullError, WriteError: an older file of that name is untouched.
    """
    with new_file(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, line ends as they are.

    Raises:
        DiskFullError, WriteError: an older file of that name is untouched.
    """
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes otherwise.

    A folder that already stands at `path` is replaced, see `put_folder`.

    Raises:
        DiskFullError, WriteError: an older folder of that name is untouched.
    """
    with scratch_folder(path) as temporary:
        yield temporary
        # safetensors writes for the owner alone (0600), whatever the umask: the group that shares
        # a disk could read everything of a checkpoint but its weights.
        mode = temporary.stat().st_mode & 0o666
        for file in temporary.rglob("*.safetensors"):
            if not file.is_symlink():
                file.chmod(mode)
        put_folder(temporary, path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is gone, with all in it, after the block.

    Raises:
        DiskFullError, WriteError: it cannot be made, or something in it cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _own(path, is_folder=True) as temporary:
            try:
                yield temporary
            except WriteError as error:
                # The place that a person knows.
                message = error.message.replace(f"{temporary}", f"{path}", 1)
                raise type(error)(message, error.hint) from error


def put_folder(temporary: Path, path: Path) -> None:
    """Give a `scratch_folder` its final name; an older folder there is deleted.

    On Linux old and new are exchanged in one step where the file system can. Elsewhere the old one
    is moved away first: for a moment there is no folder at `path`, and a process killed in just
    that moment leaves the old one as `.NAME.partial-N.old`.

    Raises:
        DiskFullError, WriteError: the older folder is untouched.
    """
    old = temporary.with_name(f"{temporary.name}.old")
    with disk_errors(path):
        try:
            # Also replaces an empty folder.
            temporary.replace(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                raise
        # Until it is gone, no other writer may take the old content for a leftover.
        with _locked(path, os.O_RDONLY, num_tries=100):
            if _exchange(temporary, path):
                shutil.rmtree(temporary, ignore_errors=True)
                return
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
            try:
                temporary.replace(path)
            except OSError:
                old.replace(path)
                raise
            shutil.rmtree(old, ignore_errors=True)


def append(path: Path, content: bytes, to_disk: bool = True) -> None:
    """Add to the end of a file, which need not exist.

    Args:
        path: the file; its folder exists.
        content: whole lines.
        to_disk: wait until it is on the disk, and would survive a power cut.

    Raises:
        DiskFullError, WriteError: nothing was added.
    """
    with disk_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(descriptor, left) :]
                if to_disk:
                    os.fsync(descriptor)
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(descriptor, before)
                error.filename = error.filename or str(path)
                raise
        finally:
            os.close(descriptor)


LOCK = ".writer"
"""Name of the lock file in a run folder."""
_WRITING: dict[str, list[int]] = {}
"""Lock files that this process holds -> descriptor, and how many blocks hold it."""
_GUARD = threading.Lock()


@contextmanager
def sole_writer(lock: Path, what: object) -> Iterator[None]:
    """Be the only process that writes something until the block, or this process, ends.

    The lock is the operating system's, on the file `lock`, whose text says who holds it. It ends
    with its process, however that ends, so nothing stale has to be removed. Blocks of one process
    do not exclude one another. Of the processes of one launch (`torchrun`, `accelerate launch`) the
    first one holds the lock for all. Where nothing can be locked, everybody may write.

    Args:
        lock: a file in a folder that exists; it is made, and stays.
        what: what is written, for the sentence.

    Raises:
        RunError: another process writes it; says which one.
        WriteError: the file cannot be made.
    """
    name = str(lock.resolve())
    if fcntl is None or os.environ.get("RANK", "0") != "0":
        yield
        return
    with _GUARD:
        if name not in _WRITING:
            _WRITING[name] = [_claimed(lock, what), 0]
        _WRITING[name][1] += 1
    try:
        yield
    finally:
        with _GUARD:
            _WRITING[name][1] -= 1
            descriptor, num_blocks = _WRITING[name]
            if not num_blocks:
                del _WRITING[name]
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                os.close(descriptor)


def _claimed(lock: Path, what: object) -> int:
    """The descriptor of a lock file that is this process's until it is closed."""
    with disk_errors(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    if not _lock_for_process(descriptor):
        holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
        os.close(descriptor)
        raise RunError(
            f"{what} is being written by {holder or 'another process'}.",
            "Wait until that has ended, or stop it; the lock ends with it.",
        )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    told = f"process {os.getpid()} on {socket.gethostname()}, since {started}\n".encode()
    # Only for the sentence; on a full disk the lock itself is enough.
    with suppress(OSError):
        os.pwrite(descriptor, told, 0)
        os.ftruncate(descriptor, len(told))
    return descriptor


def _lock_for_process(descriptor: int) -> bool:
    """Take a lock of this process (POSIX); False where another one has it.

    Unlike a lock of the descriptor (flock), a forked worker that outlives its parent does not go on
    holding it, and it works over NFS. It ends when this process closes the file, however it has
    opened it, so nothing else here may open a lock file.
    """
    assert fcntl is not None, "nobody asks without it"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system that cannot lock
    return True


def is_being_written(lock: Path) -> bool:
    """Whether some process holds a lock of `sole_writer`."""
    if fcntl is None or not lock.is_file():
        return False
    if str(lock.resolve()) in _WRITING:
        return True
    try:
        stream = lock.open("rb+")
    except OSError:
        return False  # somebody else's, which only they can write
    with stream:
        return not _lock_for_process(stream.fileno())


def is_unused(folder: Path, leftovers: Collection[str] = ()) -> bool:
    """Whether a folder is absent, empty, or holds only what a start that was killed has left.

    Args:
        folder: where something is to be made.
        leftovers: names of files that are written before the folder counts as begun.
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    ours = re.compile(rf"\..+\.partial-\w+(\.old)?|{re.escape(LOCK)}")
    names = (inside.name for inside in folder.iterdir())
    return all(name in leftovers or ours.fullmatch(name) for name in names)


# What was written is known again by its SHA-256. A document has it in itself, so that no kill can
# part the two: JSON as its key `sha256`, YAML as its first line. It is of the values, so another
# layout is no damage. A file that grows has it in every line, over all bytes before it in the file:
# a kill leaves a torn last line at most, and anything else that is not as it was is found. A folder
# that is written at once, such as a checkpoint, has `digests.json`.
#
# A file without any is of an earlier version or of another tool, and nothing of it can be checked.

DIGEST = "sha256"
DIGESTS = "digests.json"
_COPY_AGAIN = "Copy it again from where it is whole"
_DIFFERS = "is not what was written there: its SHA-256 differs"
_YAML_DIGEST = re.compile(rf"# {DIGEST}: ([0-9a-f]{{64}})\n")
_LINE_DIGEST = re.compile(rb', "sha256": "([0-9a-f]{16})"\}$')
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
    lines = raw.split(b"\n")
    before, has_digests, found = hashlib.sha256(), False, []
    for number, line in enumerate(lines, start=1):
        match = _LINE_DIGEST.search(line)
        body = line[: match.start()] if match else line
        before.update(body)
        if match:
            is_whole = before.hexdigest()[:_LINE_DIGITS].encode() == match[1]
            before.update(line[match.start() :])
        else:
            is_whole = not has_digests or number == len(lines) or not line.strip()
        if not is_whole:
            where = f"holds a line {number} that is not what was written there, or stands after one"
            own = f"If it was changed on purpose, delete `{DIGEST}` from its lines."
            raise _damaged(path, where, hint or own)
        before.update(b"\n")
        has_digests = has_digests or match is not None
        found.append(body + b"}" if match else line)
    return found


def write_digests(folder: Path) -> None:
    """Write `digests.json`: the SHA-256 of every file that lies in a folder now.

    It reads every file once, mostly from memory as they were just written: about a second for each
    gigabyte.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _slot(path: Path, number: object) -> Path:
    return path.with_name(f".{path.name}.partial-{number}")


@contextmanager
def _own(path: Path, is_folder: bool) -> Iterator[Path]:
    """Yield the path of an empty file or folder beside `path` that only this caller writes."""
    for number in [*range(_MAX_WRITERS), uuid4().hex]:
        temporary = _slot(path, number)
        try:
            if is_folder:
                temporary.mkdir()
            else:
                temporary.touch(exist_ok=False)
            is_new = True
        except FileExistsError:
            is_new = False
        with _locked(temporary, os.O_RDONLY if is_folder else os.O_RDWR) as is_locked:
            # Where nothing can be locked, only what was just made is surely nobody else's.
            if not (is_locked or (is_locked is None and is_new)):
                continue
            ours = temporary.stat(follow_symlinks=False)
            for inside in temporary.iterdir() if is_folder else ():
                if inside.is_dir() and not inside.is_symlink():
                    shutil.rmtree(inside)
                else:
                    inside.unlink()
            try:
                yield temporary
            finally:
                # Once it is in its place, the name may belong to the next writer.
                if _is_same(temporary, ours):
                    if is_folder:
                        shutil.rmtree(temporary, ignore_errors=True)
                    else:
                        temporary.unlink(missing_ok=True)
            return
    raise AssertionError("a fresh name was taken")


@contextmanager
def _locked(path: Path, flags: int, num_tries: int = 1) -> Iterator[bool | None]:
    """Hold the lock on a file or folder; yields whether it was free, None where locks do not work.

    After the lock was taken, `path` may name something else than what was opened: the process that
    held it has just put it in its place. That counts as not free.
    """
    for left in reversed(range(num_tries)):
        try:
            descriptor = os.open(path, flags)
        except OSError:
            yield None if fcntl is None else False
            return
        try:
            is_locked = _take_lock(descriptor, path)
            if is_locked is False and left:
                time.sleep(_RETRY_SECONDS)
                continue
            try:
                yield is_locked
            finally:
                if fcntl and is_locked:
                    # A forked child may still hold the descriptor.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            return
        finally:
            os.close(descriptor)


def _take_lock(descriptor: int, path: Path) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return None


def _is_same(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), known)
    except FileNotFoundError:
        return False


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; says whether the operating system could."""
    at_working_folder, swap = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(first), os.fsencode(second)
    return rename(at_working_folder, paths[0], at_working_folder, paths[1], swap) == 0


PROBES = "probes"
"""Folder of `cache_folder` in which figures measured on models are kept, one file a model."""


def cache_folder() -> Path:
    """The folder of this project in the user's cache; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exgra-med"


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; there is none of a name that is too long or no name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; see `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def expand_home(path: str | Path) -> Path:
    """The path with `~` replaced; as it is where there is no user of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


# Reading. What a file says is bounded here, whoever reads it: no text that is not UTF-8, no value
# that cannot be written again, and no few bytes that become many.

MAX_DEPTH = 100
"""Lists and mappings inside one another. Python's own limit is 1000 calls, of which some are taken
already when a file is read, and others when it is written again."""
MAX_DIGITS = 300
"""Of a whole number; what is longer does not fit into a float."""


def read_text(path: Path, error: type[ExgraMedError] = DataError) -> str:
    """The whole file as UTF-8 text, a byte-order mark removed.

    Args:
        error: what is raised.

    Raises:
        ExgraMedError: of the kind `error`: the file is absent, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as fault:
        raise error(f"{path}: no such file.") from fault
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}).") from fault
    except ValueError as fault:
        if not isinstance(fault, UnicodeDecodeError):
            raise error(f"{str(path)!r} is no name of a file.") from fault
        kind = " but UTF-16" if fault.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise error(
            f"{path}: not UTF-8 text{kind} (byte {fault.start}).", "Save the file as UTF-8."
        ) from fault


def decode_json(
    text: str,
    where: str,
    nan_is_null: bool = False,
    error: type[ExgraMedError] = DataError,
    finite: bool = True,
) -> Any:
    """Decode one JSON document.

    Refused are `NaN`, `Infinity` and numbers beyond a float, a key given twice, half of a
    character, and lists and objects in more than `MAX_DEPTH` others.

    Args:
        where: what errors begin with: the file, or file and line.
        nan_is_null: take `NaN`, which Python's own writers put for a missing value, as null.
        error: what is raised.
        finite: else `NaN` and `Infinity` are numbers, as in the log of a training.

    Raises:
        ExgraMedError: of the kind `error`: the text is not strict JSON; says where and why.
    """

    def constant(name: str) -> float | None:
        if not finite:
            return float(name)
        if nan_is_null and name == "NaN":
            return None
        raise error(f"{where}: {name} is not a JSON value.", "Write null or a number.")

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise error(f"{where}: a number of {len(digits)} digits.", "Write it as text.")
        return int(digits)

    def fraction(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise error(f"{where}: the number {digits[:40]} is beyond every float.")
        return value

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise error(f"{where}: the key {twice!r} is given twice in one object.")
        return value

    try:
        value = json.loads(
            text,
            parse_constant=constant,
            parse_int=whole,
            parse_float=fraction,
            object_pairs_hook=unique_keys,
        )
    except json.JSONDecodeError as fault:
        place = f"column {fault.colno}" if fault.lineno == 1 else f"line {fault.lineno}"
        raise error(
            f"{where}: not valid JSON ({fault.msg}, {place}).", "The file may be cut short."
        ) from fault
    except RecursionError as fault:
        raise error(f"{where}: JSON nested too deeply.") from fault
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise error(f"{where}: JSON nested too deeply.")
    if "\\ud" in text or "\\uD" in text:
        refuse_half_characters(value, where, error)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def refuse_half_characters(value: Any, where: str, error: type[ExgraMedError] = DataError) -> None:
    """Refuse text that cannot be written as UTF-8.

    JSON writes a character beyond the 65,536 first ones in two halves, and a text that is cut
    between them ends with half of one.

    Args:
        value: of JSON.

    Raises:
        ExgraMedError: of the kind `error`.
    """
    rows = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, row in rows:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as fault:
            row_of = "" if number is None else f"row {number}: "
            raise error(
                f"{where}: {row_of}half of a character (a lone surrogate such as \\ud83d).",
                "The text was cut in the middle of a character; write the whole of it.",
            ) from fault


def read_json(path: Path, error: type[ExgraMedError] = DataError) -> Any:
    """Decode a whole JSON file; see `decode_json`.

    Raises:
        ExgraMedError: of the kind `error`: the file is absent, not UTF-8, or not strict JSON.
    """
    return decode_json(read_text(path, error), str(path), error=error)


def read_object(path: Path, error: type[ExgraMedError] = DataError) -> dict[str, Any]:
    """Decode a JSON file that holds one object.

    Raises:
        ExgraMedError: of the kind `error`: as for `read_json`, or it holds something else.
    """
    value = read_json(path, error)
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object.")
    return value


# YAML as people write it: `1e-4` is a number (PyYAML reads a string), a date is text, no key stands
# twice, and every key is text.

MAX_YAML_BYTES = 2**17
"""Of a document. Recipes and studies have some kilobytes, and PyYAML reads some 50 in a second."""
MAX_YAML_VALUES = 50_000
"""Of a document, each alias (`*name`) counted as all that it stands for."""
_KNOWN_TAGS = ("null", "bool", "int", "float", "seq", "map", "str")


class _Loader(yaml.SafeLoader):
    """Safe loader of plain values, with YAML 1.2's idea of a float."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KNOWN_TAGS
    }


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if not pair[0].endswith((":timestamp", ":value"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?([eE][-+]?\d+)|\d[\d_]*\.\d*|\.\d+([eE][-+]?\d+)?)$"),
    list("-+0123456789."),
)


def _fault(node: yaml.Node, what: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {what}")


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = None
        if isinstance(key_node, yaml.ScalarNode):
            key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise _fault(key_node, "a key is no text; put it in quotes")
        if key in seen:
            raise _fault(key_node, f"the key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    # No path, name or template can hold NUL, and each would say so in another way.
    if "\0" in node.value:
        raise _fault(node, "a text holds the character NUL")
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _fault(node, "a text holds half of a character")
    return node.value


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        raise _fault(node, f"a number of {len(node.value)} digits")
    return loader.construct_yaml_int(node)


def _fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        raise _fault(node, f"{node.value[:40]} is no finite number")
    return value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _fraction)


def _check_size(root: yaml.Node) -> None:
    """Refuse few bytes that become many values, a value inside itself, and what is too deep."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node), 0)
        if known is None:
            raise _fault(node, "a value holds itself")
        if depth > MAX_DEPTH:
            raise _fault(node, "nested too deeply")
        if not known:
            sizes[id(node)] = None
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            parts = [part for pair in pairs for part in pair] or node.value
            known = sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        if known > MAX_YAML_VALUES:
            raise _fault(node, f"more than {MAX_YAML_VALUES} values, with what aliases stand for")
        return known

    size(root, 0)


def parse_yaml(text: str, where: str, error: type[ExgraMedError] = RecipeError) -> Any:
    """Read one YAML document of plain values: mappings with keys of text, lists, text, numbers,
    true, false and null.

    Raises:
        ExgraMedError: of the kind `error`: the text is not YAML, or more than `MAX_YAML_BYTES` or
            `MAX_YAML_VALUES`.
    """
    if len(text) > MAX_YAML_BYTES:
        raise error(f"{where} is larger than {MAX_YAML_BYTES} bytes.")
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_size(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    # PyYAML stumbles over odd numbers and tags with errors of every kind.
    except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, ValueError) as fault:
        raise error(f"{where} is not valid YAML: {' '.join(str(fault).split())}.") from fault
    except RecursionError as fault:
        raise error(f"{where} is not valid YAML: nested too deeply.") from fault


def read_yaml(path: Path, error: type[ExgraMedError] = RecipeError) -> Any:
    """Read a file that holds one YAML document.

    Raises:
        ExgraMedError: of the kind `error`: the file cannot be read, or is not YAML.
    """
    return parse_yaml(read_text(path, error), str(path), error)


def read_yaml_document(path: Path, error: type[ExgraMedError] = RecipeError) -> Any:
    """Read a file of `yaml_with_digest`, or one without a digest, which is not checked.

    Raises:
        ExgraMedError: of the kind `error`: the file cannot be read, or is not YAML.
        DamagedFileError: its values are not those that were written.
    """
    value = read_yaml(path, error)
    found = _YAML_DIGEST.match(path.read_text(encoding="utf-8"))
    if found and _digest(value) != found[1]:
        own = f"{_COPY_AGAIN}; if it was changed on purpose, delete its first line."
        raise _damaged(path, _DIFFERS, own)
    return value


def write_yaml(value: Any) -> str:
    """Write plain data as YAML, in the order it stands."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


# Names that come from data: whoever wrote the data chose them, and not whoever reads it.

MAX_NAME_BYTES = 255
"""Of a file or folder; what file systems take."""
MAX_PATH_BYTES = 1024
"""Of a path below a folder; systems take 4096 with what stands in front."""
_DRIVE = re.compile(r"[A-Za-z]:")
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that end a line, steer a terminal, or are half of one."""


def stray(name: Any, parts: int | None = None, folder: str = "the folder") -> str:
    """Why a name from data may not be joined to a folder; empty where it may.

    A name is one or several parts between `/`, which go down from the folder and never up: no `..`,
    no root, no drive, no backslash, nothing that a terminal or a shell would read as a command.

    Args:
        parts: how many it may have; any number where absent.
        folder: what the folder is called.
    """
    if not isinstance(name, str) or not name:
        return "is empty or not a name"
    if STEERING.search(name):
        return "is not a name: it holds a character that ends a line or steers a terminal"
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or ".." in name.split("/"):
        return f"leaves {folder}"
    pieces = name.split("/")
    if len(os.fsencode(name)) > MAX_PATH_BYTES or any(
        len(os.fsencode(each)) > MAX_NAME_BYTES for each in pieces
    ):
        return "is too long"
    if parts is not None and (len(pieces) > parts or name.strip(".") == ""):
        return "is not the name of one file or folder"
    return ""


def inside(
    folder: Path,
    name: Any,
    what: str,
    error: type[ExgraMedError] = DataError,
    called: str = "the folder",
) -> Path:
    """The path of a name from data, which lies below a folder whatever links are there.

    Args:
        name: relative to the folder; it need not be there.
        what: what errors call the name, such as `the split 'a' of FILE`.
        error: what is raised.
        called: what errors call the folder.

    Raises:
        ExgraMedError: of the kind `error`: see `stray`, or a link that leaves the folder.
    """
    if problem := stray(name, folder=called):
        raise error(f"{what} {problem}.", "Names are relative to the folder, without '..'.")
    path = folder / name
    try:
        found = path.resolve()
        if found.is_symlink():
            raise RuntimeError("links in a circle; `resolve` itself says so up to 3.12")
        if not found.is_relative_to(folder.resolve()):
            raise error(f"{what} is a link that leaves {called}.")
    # A name that is too long, no permission; links in a circle are the RuntimeError.
    except (OSError, RuntimeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "links in a circle"
        raise error(f"{what} cannot be opened ({reason}).") from fault
    return path


def short(value: Any) -> str:
    """A value from data as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
