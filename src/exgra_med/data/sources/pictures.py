"""The images that rows name or bring along: files found under a folder, or bytes in the row."""

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.data.sources.options import decoded_list
from exgra_med.data.sources.parquet import BytesImages, named_image
from exgra_med.data.sources.source import ImageBytes
from exgra_med.data.sources.values import is_null
from exgra_med.errors import DataError

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_BASE64 = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk0")
"""How JPEG, PNG, WebP, GIF and BMP begin in base64."""
_SEPARATORS = ("|", ";", "\n")
_PLAIN_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".nii", ".gz")


@dataclass
class RowImages(ImageBytes):
    """Images by the names that rows give them.

    A name that is no file as it stands is understood where only one file can be meant: `\\` for
    `/`, `./`, the folder's own name in front (`images/a.png`), another case (`a.PNG`), a missing
    ending, and a path of another place or machine whose end is a file here (`C:\\scans\\a.png`).
    Any other name stays as it is, and is refused when it is read.
    """

    folder: ImageFolder
    stored: BytesImages
    keep_bytes: bool = True
    """Whether bytes that come along are kept until they are written, or only named."""
    in_rows: set[str] = field(default_factory=set)
    """Names of the images that came as bytes."""
    _known: dict[str, str] = field(default_factory=dict, repr=False)
    _ends: dict[str, str] = field(default_factory=dict, repr=False)
    """File -> the absolute path that it was found for."""
    _by_case: dict[str, list[str]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, folder: ImageFolder) -> "RowImages":
        """The images under a folder, and whatever rows bring along."""
        return cls(folder, BytesImages(folder.max_pixels))

    def names(self, value: Any, where: str) -> list[str]:
        """The images of a cell or field, in order; none where it is empty.

        Args:
            value: a name, bytes, base64, a struct of `bytes` and `path`, or several of these: a
                list, a list as text, or names separated by `|`, `;` or lines.

        Raises:
            DataError: another type, or an absolute path or URL; names the row.
        """
        if is_null(value):
            return []
        if isinstance(value, (list, tuple)):
            if any(isinstance(item, (list, tuple)) for item in value):
                raise DataError(f"{where}: the images are a list of lists.", "Give one list.")
            return [name for item in value for name in self.names(item, where)]
        if isinstance(value, dict):
            content, path = value.get("bytes"), value.get("path") or value.get("url")
            if not {"bytes", "path", "url"} & value.keys():
                raise DataError(
                    f"{where}: the image is an object with {', '.join(map(repr, value))}.",
                    "An image is a file name, bytes, or a list of these in the order of the text.",
                )
            return self.names(path if content is None else content, where)
        if isinstance(value, bytes):
            name, content = named_image(value, where)
            self.in_rows.add(name)
            if self.keep_bytes:
                self.stored.add(name, content)
            return [name]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise DataError(
                f"{where}: the image is a {type(value).__name__}, not a name.",
                "An image is a file name, bytes, or a list of these.",
            )
        return self._of_text(str(value).strip(), where)

    def found(self, record: Record, where: str) -> Record:
        """A record with the names of the files that its images are.

        Raises:
            DataError: an absolute path or a URL; names the row.
        """
        names = self.names(record.images, where)
        if names == record.images:
            return record
        return record.model_copy(update={"image": names[0] if len(names) == 1 else names})

    def _of_text(self, text: str, where: str) -> list[str]:
        if not text:
            return []
        content = _embedded(text, where)
        if content is not None:
            return self.names(content, where)
        if text[0] in "[(" and (items := decoded_list(text)) is not None:
            return self.names(items, where)
        for mark in _SEPARATORS:
            if mark in text and text not in self._known and not self._is_file(text):
                parts = [part for part in text.split(mark) if part.strip()]
                return [name for part in parts for name in self._of_text(part.strip(), where)]
        # Many questions show the same image; the disk is asked once.
        if text not in self._known:
            self._known[text] = self._found(text, where)
        return [self._known[text]]

    def _found(self, name: str, where: str) -> str:
        if re.match(r"[A-Za-z][\w+.-]+:/?/?", name) and not re.match(r"[A-Za-z]:", name):
            raise DataError(
                f"{where}: the image {name[:80]!r} is a URL.",
                "Download it into the folder images/ first, and write the name of the file.",
            )
        if re.match(r"[A-Za-z]:[\\/]|[\\/]|~", name):
            if found := self._end_of(name, where):
                return found
            last = name.replace("\\", "/").rpartition("/")[2]
            raise DataError(
                f"{where}: the image {name!r} is an absolute path.",
                f"Write names relative to the image folder {str(self.folder.root)!r}, such as "
                f"{last or 'a.png'!r}.",
            )
        written, mark, choice = name.partition("#")
        choice = mark + choice
        if self._is_file(name):
            # One spelling of each file, so that a split by image sees one image.
            return str(PurePosixPath(name))
        plain = str(PurePosixPath(written.replace("\\", "/")))
        for path in (plain, self._below_root(plain)):
            if written[-1:] in ("/", "\\"):
                # A folder that holds a series; what is in it is the reader's business.
                if (self.folder.root / path).is_dir():
                    return f"{path}/{choice}"
                continue
            if self._is_file(path):
                return path + choice
            if len(files := self._any_case(path)) == 1:
                return files[0] + choice
        return name

    def _end_of(self, name: str, where: str) -> str:
        """The file whose name is the longest end of an absolute path; empty where none is.

        Raises:
            DataError: another absolute path ended in the same file, so one of them is not here.
        """
        written, mark, choice = name.replace("\\", "/").partition("#")
        parts = [part for part in written.split("/") if part not in ("", ".")]
        for start in range(1, len(parts)):
            path = "/".join(parts[start:])
            if not self._is_file(path):
                continue
            before = self._ends.setdefault(path, written)
            if before != written:
                raise DataError(
                    f"{where}: both {before!r} and {written!r} end in {path!r}, and one such file "
                    f"is in {str(self.folder.root)!r}.",
                    "Copy the images with their folders, and write names relative to these.",
                )
            return path + mark + choice
        return ""

    def _is_file(self, name: str) -> bool:
        path = Path(name)
        try:
            return ".." not in path.parts and (self.folder.root / path).is_file()
        except (OSError, ValueError):
            return False

    def _below_root(self, path: str) -> str:
        """The path without leading folders that are the last ones of the image folder's path."""
        parts, root = path.split("/"), self.folder.root.resolve().parts
        for count in range(len(parts) - 1, 0, -1):
            if [part.lower() for part in root[-count:]] == [part.lower() for part in parts[:count]]:
                return "/".join(parts[count:])
        return path

    def _any_case(self, path: str) -> list[str]:
        """The files of this name in any case, and those that have it but for their ending."""
        if self._by_case is None:
            self._by_case = {}
            for file in sorted(self.folder.root.rglob("*")):
                name = file.relative_to(self.folder.root).as_posix()
                if file.is_file():
                    self._by_case.setdefault(_key(name), []).append(name)
                    if file.suffix.lower() in _PLAIN_ENDINGS:
                        stem = _key(name[: -len(file.suffix)]).removesuffix(".nii")
                        self._by_case.setdefault(stem, []).append(name)
        return self._by_case.get(_key(path), [])

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The file of an image, after it was decoded once in full.

        Raises:
            DataError: the image is missing or broken.
        """
        return self._home(name).read_bytes(name, where)

    def stored_name(self, name: str) -> str:
        """The image's name in a prepared folder."""
        return self._home(name).stored_name(name)

    def expand(self, name: str, where: str = "") -> list[str]:
        """The images that a name stands for: itself, or those of a volume or series.

        Raises:
            DataError: it asks for slices or frames that are not there.
        """
        return self._home(name).expand(name, where)

    def _home(self, name: str) -> ImageBytes:
        return self.stored if name in self.in_rows else self.folder


def _key(name: str) -> str:
    # Archives of some systems take letters and their accents apart.
    return unicodedata.normalize("NFC", name).casefold()


def _embedded(text: str, where: str) -> bytes | None:
    """The bytes of an image written as base64, with or without `data:image/png;base64,`."""
    url = _DATA_URL.match(text)
    if not url and not (text.startswith(_BASE64) and len(text) > 64):
        return None
    try:
        return base64.b64decode(text[url.end() :] if url else text, validate=True)
    except binascii.Error as error:
        raise DataError(f"{where}: the image is base64 that is broken or cut short.") from error
