"""The one place that unpacks archives: into one folder, regular files only, within limits.

`tarfile` (filter "data") and `zipfile` write the files. Before each of them stand the checks that
they lack: number and size of members, and a refusal, where the library would skip or rename, of
links, devices, absolute names and `..`. Sizes are those of the headers: neither library lets more
bytes out than a member's header says.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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

    Raises:
        DataError: a link, a device, a name that leaves the folder, too many members or bytes, or a
            broken archive. The target is removed.
        WriteError: the disk is full.
    """
    try:
        with disk_errors(target), broken_archives(archive):
            target.mkdir(parents=True)
            # A wheel of Python is a zip.
            if archive.name.lower().endswith((".zip", ".whl")):
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

    Returns:
        Name to content of those that are there.

    Raises:
        DataError: as for `unpack`, or a wanted file that is larger than `max_bytes`.
    """
    label = Path("the package")
    found: dict[str, bytes] = {}
    with broken_archives(label), tarfile.open(fileobj=archive, mode="r:*") as bundle:
        # What is skipped is decompressed too, so every member counts.
        sizes = ((each, each.name, each.size) for each in bundle)
        for member in _allowed(sizes, label, max_total_bytes, max_members):
            if member.name not in names or member.name in found:
                continue
            source = bundle.extractfile(member) if member.isreg() else None
            if source is None:
                raise _no_file(label, member.name)
            content = source.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise DataError(f"{label}: {member.name!r} has more than {max_bytes} bytes.")
            found[member.name] = content
            if len(found) == len(names):
                break
    return found


def _unpack_zip(archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
    with zipfile.ZipFile(archive) as bundle:
        sizes = ((each, each.filename, each.file_size) for each in bundle.infolist())
        # All of them, before the first one is written.
        for member in list(_allowed(sizes, archive, max_bytes, max_members)):
            # The upper 16 bits are the Unix mode, 0 where another system wrote the archive.
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_file(archive, member.filename)
            if member.flag_bits & 1:
                raise DataError(
                    f"{archive}: the member {member.filename!r} is encrypted.",
                    "Unpack it yourself and give the folder.",
                )
            if not member.is_dir():
                bundle.extract(member, target)


def _unpack_tar(archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
    with tarfile.open(archive, "r:*") as bundle:
        # Python 3.11.0 to 3.11.3 lack filters; what is refused below is all that this one refuses.
        bundle.extraction_filter = getattr(tarfile, "data_filter", None)
        sizes = ((each, each.name, each.size) for each in bundle)
        for member in _allowed(sizes, archive, max_bytes, max_members):
            if member.isdir():
                continue
            if not member.isreg():
                raise _no_file(archive, member.name)
            # Owner, mode and time are not taken over: the umask decides, as for every other file.
            bundle.extract(member, target, set_attrs=False)


def _allowed(
    members: Iterable[tuple[Any, str, int]], archive: Path, max_bytes: int, max_members: int
) -> Iterator[Any]:
    """Yield members, given with name and size, as long as number, names and total are allowed."""
    total = 0
    for number, (member, name, size) in enumerate(members):
        if number >= max_members:
            raise DataError(f"{archive}: more than {max_members} members.")
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
            raise DataError(f"{archive}: the member {name!r} would leave the folder.")
        total += size
        if total > max_bytes:
            raise DataError(f"{archive}: more than the allowed bytes come out of it.")
        yield member


def _no_file(archive: Path, name: str) -> DataError:
    return DataError(f"{archive}: the member {name!r} is a link or a device.")
