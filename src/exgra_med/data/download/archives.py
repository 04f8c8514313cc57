"""The one place that reads archives: regular files only, within limits on names, number and size.

`tarfile` and `zipfile` parse; everything that bounds them is here. What comes out is counted while
it is read, behind the decompressor, so that headers count as members do, and no header has to tell
the truth. Links, devices, sparse files, absolute names and `..` are refused, where the libraries
would skip or rename.
"""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from exgra_med.errors import DataError
from exgra_med.files import disk_errors
from exgra_med.reading import short, stray

MAX_UNPACKED_BYTES = 64 * 2**30
"""All members together; the largest archive of the paper's datasets has 11 GB."""

MAX_PACKAGE_BYTES = 4 * 2**30
"""Of one article's package: text, figures and films."""

MAX_MEMBERS = 2_000_000
"""More members than this are refused."""

MAX_HEADER_BYTES = 2**20
"""Of one member of a tar, with what says its long name; and a few kilobytes are usual."""

MAX_DIRECTORY_BYTES = 2**28
"""Of the table of contents of a zip, which is read at once: 100 bytes a member and its name."""

MAX_RATIO, FREE_BYTES = 250, 2**30
"""Bytes that come out for each byte that goes in, where more than the second come out. Pictures are
packed already, and whole volumes of zeros are rarer than bombs."""

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")

_BLOCK_BYTES = 2**16
_BY_HAND = "Unpack it yourself and give the folder."
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
# Both libraries stumble over odd headers with errors of many kinds.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    # Also a place in front of the beginning that a header names.
    OSError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    TypeError,
)


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive which `unpack` reads."""
    return path.is_file() and path.name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Member:
    """A regular file of an archive, to be read before the next one is asked for."""

    name: str
    size: int
    """Bytes, by its header."""
    _archive: str
    _open: Any

    def copy(self, target: IO[bytes]) -> None:
        """Write its content into an open file.

        Raises:
            DataError: it is damaged, or has other than `size` bytes.
        """
        written = 0
        for block in self._blocks():
            target.write(block)
            written += len(block)
        if written != self.size:
            raise _broken(self._archive)

    def _blocks(self) -> Iterator[bytes]:
        with broken_archives(self._archive), self._open() as source:
            # In blocks: `_Counted` takes a larger read for a header.
            while block := source.read(_BLOCK_BYTES):
                yield block

    def content(self, max_bytes: int) -> bytes:
        """Its content.

        Raises:
            DataError: as for `copy`, or it has more than `max_bytes`.
        """
        if self.size > max_bytes:
            raise DataError(f"{self._archive}: {self.name!r} has more than {max_bytes} bytes.")
        target = io.BytesIO()
        self.copy(target)
        return target.getvalue()


def unpack(
    archive: Path,
    target: Path,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
) -> None:
    """Unpack an archive into a folder that does not exist yet. Mode, owner and time of the members
    are not taken over: the umask decides, as for every other file.

    Raises:
        DataError: a link, a device, a name that leaves the folder or comes twice, too many members
            or bytes, or a broken archive. The target is removed.
        WriteError: the disk is full.
    """
    try:
        with disk_errors(target):
            target.mkdir(parents=True)
            # A wheel of Python is a zip.
            is_zip = archive.name.lower().endswith((".zip", ".whl"))
            with archive.open("rb") as stream:
                read = zip_members if is_zip else tar_members
                for member in read(stream, str(archive), max_bytes, max_members):
                    _write(member, target, archive)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _write(member: Member, target: Path, archive: Path) -> None:
    path = target / member.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            member.copy(stream)
    # Also two names that differ in upper and lower case alone, where the disk makes them one.
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"{archive}: the member {short(member.name)} would replace another one.",
            _BY_HAND,
        ) from error


@contextmanager
def broken_archives(archive: Path | str) -> Iterator[None]:
    """Turn what a damaged archive makes its reader say into one sentence.

    Raises:
        DataError: the archive is damaged.
    """
    try:
        yield
    except _BROKEN as error:
        raise _broken(archive) from error


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
    found: dict[str, bytes] = {}
    for member in tar_members(archive, "the package", max_total_bytes, max_members):
        if member.name in names and member.name not in found:
            found[member.name] = member.content(max_bytes)
            if len(found) == len(names):
                break
    return found


class _Counted(io.RawIOBase):
    """What a decompressor gives, bounded: all of it, in proportion to what went in, and at once.

    `tarfile` reads a header of any length at once, and members in blocks.
    """

    def __init__(self, inner: IO[bytes], packed: IO[bytes], archive: str, max_bytes: int) -> None:
        self._inner, self._packed = inner, packed
        self._archive, self._max_bytes = archive, max_bytes
        self.allowance = MAX_HEADER_BYTES
        """Bytes that may still be read for the header at hand."""

    def tell(self) -> int:
        return self._inner.tell()

    def seek(self, place: int, whence: int = 0) -> int:
        # In steps: what is skipped is decompressed too.
        while (
            self._inner is not self._packed
            and place > (at := self._inner.tell()) + 2 * _BLOCK_BYTES
        ):
            self._inner.seek(at + _BLOCK_BYTES)
            self._check(_BLOCK_BYTES)
            if self._inner.tell() == at:
                break
        found = self._inner.seek(place, whence)
        self._check(0)
        return found

    def read(self, size: int = -1) -> bytes:  # pyrefly: ignore[bad-override]
        if size < 0 or size > self.allowance:
            raise DataError(
                f"{self._archive}: a header of more than {MAX_HEADER_BYTES} bytes.",
                "It is no usual archive; unpack it yourself and give the folder.",
            )
        self.allowance -= size
        self._check(size)
        return self._inner.read(size)

    def _check(self, size: int) -> None:
        out = self._inner.tell() + size
        if out > self._max_bytes:
            raise _too_many(self._archive)
        if out > FREE_BYTES and out > MAX_RATIO * max(self._packed.tell(), 1):
            raise _ratio(self._archive)


def tar_members(
    stream: IO[bytes],
    archive: str,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
) -> Iterator[Member]:
    """The regular files of a tar, compressed or not, in their order; folders are passed over.

    Args:
        stream: opened to read bytes, and at its beginning.
        archive: what errors call it.
        max_bytes: of all that comes out of it: members, those passed over, and headers.
        max_members: of any kind.

    Raises:
        DataError: see `unpack`.
    """
    with broken_archives(archive):
        # A header is 512 bytes; the last block of a short tar may be cut.
        beginning = stream.read(6)
        stream.seek(0)
        opener = next((make for magic, make in _OPENERS if beginning.startswith(magic)), None)
        inner: Any = stream if opener is None else opener(stream)
        room = max_bytes + 1024 * max_members
        counted: Any = _Counted(inner, stream, archive, room)
        # Closed with the stream, which is the caller's.
        bundle: Any = tarfile.open(fileobj=counted, mode="r:")  # noqa: SIM115
    total = 0
    for number in range(max_members + 1):
        with broken_archives(archive):
            counted.allowance = MAX_HEADER_BYTES
            member = bundle.next()
            if member is None:
                _check_end(bundle, counted, archive)
                return
            # Else it would hold all that were read; and headers for all that follow add up.
            bundle.members.clear()
            bundle.pax_headers.clear()
        if number >= max_members:
            raise DataError(f"{archive}: more than {max_members} members.")
        _check_name(member.name, archive)
        if member.size < 0:
            raise _broken(archive)
        total += member.size
        if total > max_bytes:
            raise _too_many(archive)
        if member.isdir():
            continue
        if not member.isreg():
            raise _no_file(archive, member.name)
        if member.issparse():
            raise DataError(f"{archive}: the member {short(member.name)} is sparse.", _BY_HAND)
        counted.allowance = member.size + _BLOCK_BYTES

        def opened(member: tarfile.TarInfo = member) -> IO[bytes]:
            source = bundle.extractfile(member)
            assert source is not None, "it is a regular file"
            return source

        yield Member(member.name, member.size, archive, opened)


def _check_end(bundle: tarfile.TarFile, counted: _Counted, archive: str) -> None:
    """Refuse a tar that does not end where its reader stops: it stops at a damaged header too."""
    counted.allowance = MAX_HEADER_BYTES
    counted.seek(bundle.offset)
    if counted.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise _broken(archive)


def unpacked_bytes(path: Path) -> int:
    """Bytes of all members of a zip, by its table; no member yields more than that says.

    Raises:
        DataError: its table is too large.
        BadZipFile, OSError, ValueError: it is no complete zip.
    """
    with path.open("rb") as stream:
        if _directory_bytes(stream, os.fstat(stream.fileno()).st_size) > MAX_DIRECTORY_BYTES:
            raise DataError(f"{path}: a table of more than {MAX_DIRECTORY_BYTES} bytes.")
        with zipfile.ZipFile(stream) as packed:
            return sum(member.file_size for member in packed.infolist())


def zip_members(
    stream: IO[bytes],
    archive: str,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
) -> Iterator[Member]:
    """The files of a zip, after all of them were checked; see `tar_members`.

    Raises:
        DataError: see `unpack`.
    """
    packed = os.fstat(stream.fileno()).st_size
    with broken_archives(archive):
        if _directory_bytes(stream, packed) > MAX_DIRECTORY_BYTES:
            raise DataError(f"{archive}: a table of more than {MAX_DIRECTORY_BYTES} bytes.")
        bundle = zipfile.ZipFile(stream)
    members = bundle.infolist()
    if len(members) > max_members:
        raise DataError(f"{archive}: more than {max_members} members.")
    total = 0
    for member in members:
        _check_name(member.filename, archive)
        total += member.file_size
        if total > max_bytes:
            raise _too_many(archive)
        if total > FREE_BYTES and total > MAX_RATIO * packed:
            raise _ratio(archive)
        # The upper 16 bits are the Unix mode, 0 where another system wrote the archive.
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _no_file(archive, member.filename)
        if member.flag_bits & 1:
            raise DataError(
                f"{archive}: the member {short(member.filename)} is encrypted.",
                _BY_HAND,
            )
    # Entries that share their bytes, of which a few become petabytes.
    if sum(member.compress_size for member in members) > packed:
        raise _broken(archive)
    for member in members:
        if not member.is_dir():

            def opened(member: zipfile.ZipInfo = member) -> IO[bytes]:
                return bundle.open(member)

            yield Member(member.filename, member.file_size, archive, opened)


def _directory_bytes(stream: IO[bytes], size: int) -> int:
    """Bytes of the table of contents of a zip, which `zipfile` reads at once, as its end says."""
    # The record at the end has 22 bytes and a comment of at most 65,535, in front of it stands that
    # of large archives.
    stream.seek(max(0, size - 2**17))
    tail = stream.read()
    stream.seek(0)
    usual, large = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    told = [struct.unpack_from("<L", tail, usual + 12)[0]] if usual >= 0 else [0]
    told = [each for each in told if each != 2**32 - 1]
    if large >= 0:
        told += struct.unpack_from("<Q", tail, large + 40)
    return min(size, max(told, default=0))


def _check_name(name: str, archive: str) -> None:
    if problem := stray(name.rstrip("/") or name):
        raise DataError(
            f"{archive}: the member {short(name)} {problem}.",
            _BY_HAND,
        )


def _broken(archive: Path | str) -> DataError:
    return DataError(f"{archive}: a broken archive.", "Download it again.")


def _too_many(archive: str) -> DataError:
    return DataError(f"{archive}: more than the allowed bytes come out of it.")


def _ratio(archive: str) -> DataError:
    return DataError(
        f"{archive}: more than {MAX_RATIO} bytes come out of each of its bytes.",
        _BY_HAND,
    )


def _no_file(archive: str, name: str) -> DataError:
    return DataError(f"{archive}: the member {short(name)} is a link or a device.")
