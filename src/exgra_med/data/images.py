"""The one place that opens images: confined to a folder, capped, refused when broken."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from exgra_med.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that may be decoded; every other decoder is code that hostile bytes never reach."""

MAX_IMAGE_BYTES = 512 * 2**20
"""Larger files are refused before their header is read."""

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class ImageFolder:
    """Images under one folder, which no name can leave.

    Args:
        root: the folder.
        max_pixels: width times height above which an image is refused before it is decoded.
    """

    root: Path
    max_pixels: int

    def locate(self, name: str, where: str = "") -> Path:
        """The file of an image, checked to lie in the folder.

        Args:
            name: path relative to the folder, with `/`.
            where: record id, for the error message.

        Raises:
            DataError: an absolute path, `..`, a URL, a link that leaves the folder, or no file.
        """
        prefix = f"{where}: " if where else ""
        if not name or "\0" in name:
            raise DataError(f"{prefix}the image name {name!r} is empty or not a name.")
        if _SCHEME.match(name):
            raise DataError(
                f"{prefix}the image {name!r} is a URL or a drive.",
                "Only files under the image folder are read; download it first.",
            )
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(
                f"{prefix}the image {name!r} leaves the image folder.",
                "Names are relative to the image folder, without '..'.",
            )
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise DataError(f"{prefix}the image {name!r} is a link that leaves the image folder.")
        if not path.is_file():
            state = "is not a file" if path.exists() else "is missing"
            raise DataError(f"{prefix}the image {name!r} {state} in {self.root}.")
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise DataError(f"{prefix}the image {name!r} is larger than {MAX_IMAGE_BYTES} bytes.")
        return path

    def open(self, name: str, where: str = "") -> Image.Image:
        """Decode an image in full, as RGB.

        Args:
            name: path relative to the folder, with `/`.
            where: record id, for the error message.

        Raises:
            DataError: the name leaves the folder, or the file is missing, too large, of another
                format, or broken.
        """
        return decode_image(self.locate(name, where), self.max_pixels, name, where)

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The file of an image, unchanged, after it was decoded once in full.

        Raises:
            DataError: as for `open`.
        """
        self.open(name, where)
        return self.locate(name, where).read_bytes()


def decode_image(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str = ""
) -> Image.Image:
    """Decode one file in full, as RGB.

    Args:
        file: path, or an open binary stream.
        max_pixels: width times height above which it is refused before it is decoded.
        name: of the image, for the error message.
        where: record id, for the error message.

    Raises:
        DataError: too large, of another format, or broken.
    """
    prefix = f"{where}: " if where else ""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"{prefix}the image {name!r} has {width} x {height} pixels, "
                    f"more than {max_pixels}.",
                    "Raise `data.max_pixels` in the recipe if this image is wanted.",
                )
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{prefix}the image {name!r} has more than 8 bits per channel "
                    f"(mode {image.mode}).",
                    "Convert it to 8 bits with a window of your choice first.",
                )
            return image.convert("RGB")
    except DataError:
        raise
    # Decoders raise whatever hostile bytes make them raise: all of it means a broken file.
    except Exception as error:
        raise DataError(
            f"{prefix}the image {name!r} cannot be decoded ({_reason(error)}).",
            f"It must be a whole {', '.join(FORMATS)} file.",
        ) from error


def _reason(error: Exception) -> str:
    # Pillow's own text may hold the full path; only the kind of fault is for the reader.
    if "truncated" in str(error):
        return "the file is cut short"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than the decoder allows"
    return "unknown or broken format"
