"""The one place that opens images: confined to a folder, capped, refused when broken."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from exgra_med.data.medical_formats import read_dicom, read_nifti, scale_to_eight_bits
from exgra_med.errors import DataError, MissingExtraError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that may be decoded; every other decoder is code that hostile bytes never reach."""

MAX_IMAGE_BYTES = 512 * 2**20
"""Larger files are refused before their header is read."""

DICOM_ENDINGS = (".dcm", ".dicom")
NIFTI_ENDINGS = (".nii", ".nii.gz")

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class ImageFolder:
    """Images under one folder, which no name can leave.

    Args:
        max_pixels: width times height above which an image is refused before it is decoded.
    """

    root: Path
    max_pixels: int

    def locate(self, name: str, where: str = "") -> Path:
        """The file of an image, checked to lie in the folder.

        Raises:
            DataError: an absolute path, `..`, a URL, a link that leaves the folder, or no file.
        """
        label = image_label(name, where)
        if not name or "\0" in name:
            prefix = f"{where}: " if where else ""
            raise DataError(f"{prefix}the image name {name!r} is empty or not a name.")
        if _SCHEME.match(name):
            raise DataError(
                f"{label} is a URL or a drive.",
                "Only files under the image folder are read; download it first.",
            )
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(
                f"{label} leaves the image folder.",
                "Names are relative to the image folder, without '..'.",
            )
        try:
            path = (self.root / file_name(name)).resolve()
            if path.is_symlink():
                raise RuntimeError("links in a circle; `resolve` itself says so up to 3.12")
            if not path.is_relative_to(self.root.resolve()):
                raise DataError(f"{label} is a link that leaves the image folder.")
            if not path.is_file():
                state = "is not a file" if path.exists() else "is missing"
                raise DataError(f"{label} {state}.", f"It was looked for in {str(self.root)!r}.")
            size = path.stat().st_size
        # A name that is too long, no permission; links in a circle are the RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            raise DataError(f"{label} cannot be opened ({reason}).") from error
        if size > MAX_IMAGE_BYTES:
            raise DataError(f"{label} is larger than {MAX_IMAGE_BYTES} bytes.")
        return path

    def open(self, name: str, where: str = "") -> Image.Image:
        """Decode an image in full, as RGB.

        Raises:
            DataError: the name leaves the folder, or the file is missing, too large, of another
                format, or broken.
        """
        path = self.locate(name, where)
        lower = path.name.lower()
        if lower.endswith(DICOM_ENDINGS):
            return read_dicom(path, self.max_pixels, name, image_label(name, where))
        if lower.endswith(NIFTI_ENDINGS):
            return read_nifti(path, self.max_pixels, name, image_label(name, where))
        return decode_image(path, self.max_pixels, name, where)

    def check_size(self, name: str, where: str = "") -> None:
        """Refuse an image of a prepared folder by its header, as `open` would.

        Raises:
            DataError: as for `open`, but a file that breaks behind its header passes.
        """
        with _opened(self.locate(name, where), self.max_pixels, name, where):
            pass

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The file of an image, unchanged, after it was decoded once in full.

        Of DICOM and NIfTI only the pixels, as PNG: no tag of a patient is copied.

        Raises:
            DataError: as for `open`.
        """
        image = self.open(name, where)
        if stored_name(name) == name:
            return self.locate(name, where).read_bytes()
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    def stored_name(self, name: str) -> str:
        """The image's name in a prepared folder."""
        return stored_name(name)


def decode_image(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str = ""
) -> Image.Image:
    """Decode one file in full, as RGB.

    Raises:
        DataError: too large, of another format, or broken.
    """
    with _opened(file, max_pixels, name, where) as image:
        if image.mode.startswith(("I", "F")):
            return scale_to_eight_bits(np.asarray(image))
        return image.convert("RGB")


@contextmanager
def _opened(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str
) -> Iterator[Image.Image]:
    """An image of which only the header is read, not too large; see `decode_image`."""
    label = image_label(name, where)
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"{label} has {width} x {height} pixels, more than {max_pixels}.",
                    "Raise `data.max_pixels` in the recipe if this image is wanted.",
                )
            yield image
    except (DataError, MissingExtraError):
        raise
    # Decoders raise whatever hostile bytes make them raise: all of it means a broken file.
    except Exception as error:
        raise DataError(
            f"{label} cannot be decoded ({_reason(error)}).",
            f"It must be a complete {', '.join(FORMATS)} file.",
        ) from error


def image_label(name: str, where: str) -> str:
    """How an error names an image, and where known the record that shows it."""
    return f"{where}: the image {name!r}" if where else f"the image {name!r}"


def file_name(name: str) -> str:
    """The file of an image name, without the frame or slice that `#` picks in it."""
    head, mark, _ = name.partition("#")
    picks = head.lower().endswith((*DICOM_ENDINGS, *NIFTI_ENDINGS))
    return head if mark and picks else name


def stored_name(name: str) -> str:
    """The name of an image in a prepared folder: its own, or `.png` behind DICOM and NIfTI."""
    picks = file_name(name).lower().endswith((*DICOM_ENDINGS, *NIFTI_ENDINGS))
    return re.sub(r"[#=,]", "-", name) + ".png" if picks else name


def _reason(error: Exception) -> str:
    # Pillow's own text may hold the full path; only the kind of fault is for the reader.
    if "truncated" in str(error):
        return "the file is cut short"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than the decoder allows"
    return "unknown or broken format"
