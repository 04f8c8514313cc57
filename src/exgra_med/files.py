"""Writes that are whole or absent: a killed process or a full disk never leaves half a file."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from exgra_med.errors import ExgraMedError


class DiskFullError(ExgraMedError):
    """Nothing more fits on the disk."""

    exit_code = 1


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into one sentence that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"The disk that holds {path} is full; what was saved before is untouched.",
            "Free some space and start again with --resume where the verb has it.",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically.

    Raises:
        DiskFullError: the disk is full; an older file of that name is untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with disk_errors(path):
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes otherwise.

    A folder that already stands at `path` is replaced.

    Raises:
        DiskFullError: the disk is full; an older folder of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.mkdir()
    try:
        with disk_errors(path):
            yield temporary
            if path.exists():
                retired = path.with_name(f".{path.name}.{uuid4().hex}.old")
                path.rename(retired)
                temporary.rename(path)
                shutil.rmtree(retired)
            else:
                temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
