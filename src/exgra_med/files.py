"""The one way to write: atomic, so that a file or folder is seen complete or not at all.

Content goes into `.NAME.partial-N` beside the target, then takes the target's place. The writer
holds a lock on it that the operating system drops when the process dies, so the next write of the
same target takes over what a killed run left, and never what another process is writing. (Where
files cannot be locked, on Windows and some network drives, such leftovers stay until removed.)

That lock is on the unfinished file or folder itself. What is written over hours, a run folder or a
node of a study, has a lock file that says who writes: `sole_writer`.
"""

import ctypes
import errno
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

from exgra_med.errors import (
    ExgraMedError,
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


def check_names(names: Iterable[str]) -> None:
    """See that what a command was given is text. Systems take names of any bytes; what is not
    UTF-8 in them can be opened, but neither shown nor written into a report.

    Raises:
        RunError: a name is not.
    """
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RunError(
                f"{os.fsencode(name)!r} is not UTF-8 text.", "Give the file or folder another name."
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
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[max(0, error.start - 30) : error.end].splitlines()[-1]
        raise WriteError(
            f"{path}: cannot be written, a name or a text in it is not UTF-8 ({half!r}).",
            "Give the file or folder another name.",
        ) from error
    write_bytes(path, content)


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
def sole_writer(lock: Path, what: object, patience: float = 0.0) -> Iterator[None]:
    """Be the only process that writes something until the block, or this process, ends.

    The lock is the operating system's, on the file `lock`, whose text says who holds it. It ends
    with its process, however that ends, so nothing stale has to be removed. Blocks of one process
    do not exclude one another. Of the processes of one launch (`torchrun`, `accelerate launch`) the
    first one holds the lock for all. Where nothing can be locked, everybody may write.

    Args:
        lock: a file in a folder that exists; it is made, and stays.
        what: what is written, for the sentence.
        patience: seconds to wait for a process that is ending.

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
            _WRITING[name] = [_claimed(lock, what, time.monotonic() + patience), 0]
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


def _claimed(lock: Path, what: object, deadline: float) -> int:
    """The descriptor of a lock file that is this process's until it is closed."""
    with disk_errors(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    while not _lock_for_process(descriptor):
        if time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
            continue
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
