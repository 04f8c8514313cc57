"""Whole files or none: write beside the target, flush to disk, then rename."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from exgra_med.errors import WriteError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` only when the block ends without an error.

    Raises:
        WriteError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8, or leave what was there.

    Raises:
        WriteError: the disk is full or the folder cannot be written.
    """
    with atomic_file(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_error(path: Path, error: OSError) -> WriteError:
    """The error of a failed write, with a way out."""
    return WriteError(
        f"{path}: cannot be written ({error.strerror or error}).",
        "Free some space or choose another folder; nothing half-written was left.",
    )
