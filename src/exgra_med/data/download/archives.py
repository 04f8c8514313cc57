"""The one place that unpacks archives: into one folder, regular files only, with caps."""

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from exgra_med.errors import DataError
from exgra_med.files import disk_errors

MAX_UNPACKED_BYTES = 64 * 2**30
"""All members together; the largest archive of the paper's datasets has 11 GB."""

MAX_PACKAGE_BYTES = 4 * 2**30
"""Of one article's package: text, figures and films."""

MAX_MEMBERS = 2_000_000
"""More members than this are refused."""

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
)


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive which `unpack` reads."""
    return path.is_file() and path.name.lower().endswith(ENDINGS)


def unpack(
    archive: Path,
    target: Path,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
) -> None:
    """Unpack an archive into a folder that does not exist yet.

    Links, devices, absolute names and `..` are refused; sizes are counted while bytes come out, not
    believed from the headers.

    Args:
        archive: a zip or tar file.
        target: folder to make.
        max_bytes: of all members together.
        max_members: number of members.

    Raises:
        DataError: a member that may not be, too many or too large, or a broken archive; the
            target is gone then.
        WriteError: the disk is full.
    """
    try:
        with disk_errors(target), broken_archives(archive):
            target.mkdir(parents=True)
            if archive.name.lower().endswith(".zip"):
                _unpack_zip(archive, target, max_bytes, max_members)
            else:
                _unpack_tar(archive, target, max_bytes, max_members)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


@contextmanager
def broken_archives(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive makes its reader say into one sentence.

    Raises:
        DataError: the archive is damaged.
    """
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"{archive}: a broken archive.", "Download it again.") from error


def read_members(
    archive: IO[bytes],
    names: set[str],
    max_bytes: int,
    max_total_bytes: int = MAX_PACKAGE_BYTES,
    max_members: int = MAX_MEMBERS,
) -> dict[str, bytes]:
    """The contents of some files of a tar, which is read once; nothing is written.

    Args:
        archive: an open tar, compressed or not.
        names: of the wanted files, exactly as in the archive.
        max_bytes: of each wanted file.
        max_total_bytes: of all members up to the last wanted one.
        max_members: number of members.

    Returns:
        Name to content of those that are there.

    Raises:
        DataError: a member that may not be, too many or too large, or a broken archive.
    """
    label = Path("the package")
    found: dict[str, bytes] = {}
    total = 0
    with broken_archives(label), tarfile.open(fileobj=archive, mode="r:*") as bundle:
        for number, member in enumerate(bundle):
            if number >= max_members:
                raise DataError(f"{label}: more than {max_members} members.")
            _refuse_outside(member.name, label)
            # What is skipped is decompressed too.
            total += member.size
            if total > max_total_bytes:
                raise DataError(f"{label}: more than the allowed bytes come out of it.")
            if member.name not in names or member.name in found:
                continue
            source = bundle.extractfile(member) if member.isreg() else None
            if source is None:
                raise DataError(f"{label}: the member {member.name!r} is a link or a device.")
            content = source.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise DataError(f"{label}: {member.name!r} has more than {max_bytes} bytes.")
            found[member.name] = content
            if len(found) == len(names):
                break
    return found


def _unpack_zip(archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
    left = max_bytes
    with zipfile.ZipFile(archive) as bundle:
        members = bundle.infolist()
        if len(members) > max_members:
            raise DataError(f"{archive}: more than {max_members} members.")
        for member in members:
            if member.is_dir():
                continue
            # The upper 16 bits are the Unix mode; 0o120000 marks a symbolic link.
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"{archive}: the member {member.filename!r} is a link.")
            if member.flag_bits & 1:
                raise DataError(
                    f"{archive}: the member {member.filename!r} is encrypted.",
                    "Unpack it yourself and give the folder.",
                )
            path = _inside(target, member.filename, archive)
            with bundle.open(member) as source:
                left -= _copy(source, path, left, archive)


def _unpack_tar(archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
    left = max_bytes
    with tarfile.open(archive, "r:*") as bundle:
        for number, member in enumerate(bundle):
            if number >= max_members:
                raise DataError(f"{archive}: more than {max_members} members.")
            if member.isdir():
                continue
            source = bundle.extractfile(member) if member.isreg() else None
            if source is None:
                raise DataError(f"{archive}: the member {member.name!r} is a link or a device.")
            left -= _copy(source, _inside(target, member.name, archive), left, archive)


def _refuse_outside(name: str, archive: Path) -> None:
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
        raise DataError(f"{archive}: the member {name!r} would leave the folder.")


def _inside(target: Path, name: str, archive: Path) -> Path:
    _refuse_outside(name, archive)
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(source: IO[bytes], path: Path, left: int, archive: Path) -> int:
    """Copy a member and return its size; more than `left` bytes are an error."""
    size = 0
    with path.open("xb") as stream:
        while block := source.read(2**20):
            size += len(block)
            if size > left:
                raise DataError(f"{archive}: more than the allowed bytes come out of it.")
            stream.write(block)
    return size
