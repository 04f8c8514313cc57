"""The one way to write: atomic, so that a file or folder is seen complete or not at all.

Content goes into `.NAME.partial-N` beside the target, then takes the target's place. The writer
holds a lock on it that the operating system drops when the process dies, so the next write of the
same target takes over what a killed run left, and never what another process is writing. (Where
files cannot be locked, on Windows and some network drives, such leftovers stay until removed.)

That lock is on the unfinished file or folder itself. `filelock` needs a lock file of its own, which
stays behind: one beside every file that was ever written. Where a lock has a file anyway, `held`
takes it through `filelock`.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import yaml

from exgra_med.errors import RecipeError, WriteError

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


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a lock on a file, made where it is absent, until the block or this process ends.

    Yields:
        Whether it is ours; False while another process holds it. True where nothing can be locked.

    Raises:
        WriteError: the file cannot be made.
    """
    # Only studies hold locks; every command imports this file, and should start at once.
    from filelock import FileLock, Timeout

    with disk_errors(path):
        path.touch()
    # A new lock for each block, and of no thread: two blocks in one process exclude each other as
    # two processes do.
    lock = FileLock(path, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError:
        # A file system that cannot lock.
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


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


def expand_home(path: str | Path) -> Path:
    """The path with `~` replaced; as it is where there is no user of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


# YAML as people write it: `1e-4` is a number (PyYAML reads a string), no key stands twice.


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2's idea of a float."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?([eE][-+]?\d+)|\d[\d_]*\.\d*|\.\d+([eE][-+]?\d+)?)$"),
    list("-+0123456789."),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: the key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    # No path, name or template can hold NUL, and each would say so in another way.
    if "\0" in node.value:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a text holds the character NUL")
    return node.value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document.

    Raises:
        RecipeError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Also a number of thousands of digits, or brackets as deep.
        raise RecipeError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from error


def read_yaml(path: Path) -> Any:
    """Read a file that holds one YAML document.

    Raises:
        RecipeError: the file cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(f"{path} cannot be read: {why}.", "Is this the right file?") from error
    return parse_yaml(text, str(path))


def write_yaml(value: Any) -> str:
    """Write plain data as YAML, in the order it stands."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
