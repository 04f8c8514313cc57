"""The one place that opens images: confined to a folder, capped, refused when broken.

Every picture that is prepared, trained on, served, uploaded or drawn comes out of `decode_image`,
so that all see the same pixels. A file's kind is known by its content, never by its ending.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from exgra_med.data.dicom import is_dicom, num_frames, read_dicom, sort_series
from exgra_med.data.nifti import HEADER_BYTES, is_nifti, num_slices, read_nifti
from exgra_med.data.rendering import eight_bits
from exgra_med.data.selection import evenly_spaced, parse_selection, split_name
from exgra_med.errors import DataError, MissingExtraError
from exgra_med.reading import inside

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that may be decoded; every other decoder is code that hostile bytes never reach."""

MAX_IMAGE_BYTES = 512 * 2**20
"""Larger files are refused before their header is read."""

PLAIN_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings under which any viewer shows a picture; a prepared folder has no others."""

_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II", b"MM", b"RIFF")
"""Of `FORMATS`."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what shows the picture upright."""

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
"""The tag of a TIFF that says what 0 means, and its value for white."""

_OTHER_FORMATS = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP archive or an Office document"),
    (4, b"ftyphei", "a HEIC photograph"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "a video"),
    (4, b"jP  ", "a JPEG 2000 picture outside of DICOM"),
    (0, b"\xffO\xffQ", "a JPEG 2000 picture outside of DICOM"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x5c\x01\0\0", "an Analyze header, which does not tell left from right"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"ObjectType", "a MetaImage volume"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"CDF", "a NetCDF or MINC file"),
    (0, b"MATLAB", "a MATLAB file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, and not the file itself"),
    (0, b"II*\0", "a TIFF that is broken or of a kind that is not read"),
    (0, b"MM\0*", "a TIFF that is broken or of a kind that is not read"),
    (0, b"<", "a text of HTML, XML or SVG"),
    (0, b"\x1f\x8b", "a packed file that is no NIfTI"),
)
"""Offset, bytes and name of formats that users mistake for pictures, for errors alone."""

# Pillow's warnings and log lines would stand between a command's own lines. Not `catch_warnings`
# around each image: it would make the process forget which warnings it has shown.
warnings.filterwarnings("ignore", module=r"PIL\b")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class ImageFolder:
    """Images under one folder, which no name can leave.

    Args:
        max_pixels: width times height above which an image is refused before it is decoded.
        within: the folder that somebody named, where `root` was found in it by its name: then
            `root` may not be a link that leaves it either.
    """

    root: Path
    max_pixels: int
    within: Path | None = field(default=None, kw_only=True)

    def locate(self, name: str, where: str = "") -> Path:
        """The file of an image, checked to lie in the folder.

        Raises:
            DataError: an absolute path, `..`, a URL, a link that leaves the folder, or no file.
        """
        path = self._inside(name, where)
        label = image_label(name, where)
        try:
            if not path.is_file():
                state = "is not a file" if path.exists() else f"is missing{_near(path)}"
                is_empty = self.root.is_dir() and not any(self.root.iterdir())
                hint = f"It was looked for in {str(self.root)!r}{', which is empty' * is_empty}."
                if "#" in name:
                    hint += " Behind '#' stands what to select, for example #frame=3."
                raise DataError(f"{label} {state}.", hint)
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{label} cannot be opened ({error.strerror}).") from error
        if size > MAX_IMAGE_BYTES:
            raise DataError(f"{label} is larger than {MAX_IMAGE_BYTES} bytes.")
        return path

    def _inside(self, name: str, where: str) -> Path:
        """The file or folder of a name, checked to lie in this folder; it need not be there."""
        label = image_label(name, where)
        if _SCHEME.match(name):
            raise DataError(
                f"{label} is a URL or a drive.",
                "Only files under the image folder are read; download it first.",
            )
        if self.within is not None and not self.root.resolve().is_relative_to(
            self.within.resolve()
        ):
            raise DataError(
                f"{label}: {str(self.root)!r} is a link that leaves its folder.",
                "Put the images there themselves, or mount them there.",
            )
        file = file_name(name)
        if not file and name:
            # Nothing in front of `#` is the image folder itself.
            return self.root
        return inside(self.root, file, label, called="the image folder")

    def open(self, name: str, where: str = "") -> Image.Image:
        """Decode an image in full, as RGB; see `decode_image`.

        Raises:
            DataError: the name leaves the folder, or the file is missing, too large, of another
                format, or broken.
        """
        return decode_image(self.locate(name, where), self.max_pixels, name, where)

    def size(self, name: str, where: str = "") -> tuple[int, int]:
        """Width and height of an image by its header; what is too large is refused as by `open`.

        Raises:
            DataError: as for `open`, but a file that breaks behind its header passes.
        """
        with _opened(self.locate(name, where), self.max_pixels, name, where) as opened:
            return opened.size

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The file of an image for a prepared folder, after it was decoded once in full.

        It is the file itself, unchanged, where any viewer shows it as `open` does; else its pixels
        as PNG, and nothing else of the file: no tag of a patient is copied.

        Raises:
            DataError: as for `open`.
        """
        return stored_image(self.locate(name, where), self.max_pixels, name, where)[1]

    def stored_name(self, name: str) -> str:
        """The image's name in a prepared folder: its own, or with `.png` where it is rendered.

        Raises:
            DataError: the file is missing, or its header is broken.
        """
        rendered = rendered_name(name)
        if name == rendered:
            return name
        with self.locate(name).open("rb") as stream:
            if not _may_be_plain(stream, name):
                return rendered
            with _opened(stream, self.max_pixels, name, "") as opened:
                return name if _is_plain(opened) else rendered

    def expand(self, name: str, where: str = "") -> list[str]:
        """The single images that a name stands for: itself, or those that `#` asks for.

        `cine.dcm#frames=8` and `stack.tif#frames=8` are 8 frames, `head.nii.gz#slices=8` 8 slices
        (axial, or of `plane=`), and `series/#slices=8` 8 files of a folder with one DICOM series,
        in the order of their position. They are spaced evenly: `selection.evenly_spaced`.

        Raises:
            DataError: the name leaves the folder or selects what is not there, or the series is
                none.
        """
        if "#" not in name:
            return [name]
        label = image_label(name, where)
        selection = parse_selection(name, label)
        wanted = selection.frames or selection.slices
        if wanted is None:
            return [name]
        if selection.frames and selection.slices:
            raise DataError(f"{label} selects both frames and slices.", "Select one of them.")
        if selection.frame is not None or selection.slice is not None:
            raise DataError(f"{label} selects both one and several images.", "Select one of them.")
        file, _ = split_name(name)
        window = selection.window
        if (folder := self._inside(name, where)).is_dir():
            selection.only(label, "a folder with a DICOM series", "slices", "window")
            # Nothing in front of `#` is the image folder itself.
            inside = f"{file.rstrip('/')}/" if file else ""
            # Listings and thumbnails that systems leave beside pictures are none of the series.
            files = [
                self.locate(f"{inside}{path.name}", where)
                for path in sorted(folder.iterdir())
                if not path.name.startswith(".") and path.name not in ("DICOMDIR", "Thumbs.db")
            ]
            names = [path.name for path in sort_series(files, label)]
            chosen = evenly_spaced(wanted, len(names), label, "slices")
            return [_single(f"{inside}{names[number]}", window=window) for number in chosen]
        with self.locate(name, where).open("rb") as stream:
            if _medical_reader(stream) is read_nifti:
                selection.only(label, "a NIfTI file", "slices", "plane", "volume", "window")
                plane, volume = selection.plane or "axial", selection.volume
                chosen = evenly_spaced(
                    wanted, num_slices(stream, selection, label), label, "slices"
                )
                return [
                    _single(file, plane=plane, slice=number, volume=volume, window=window)
                    for number in chosen
                ]
            selection.only(label, "this file", "frames", "window")
            available = _num_frames(stream, self.max_pixels, name, where)
            chosen = evenly_spaced(wanted, available, label, "frames")
            return [_single(file, frame=number, window=window) for number in chosen]


def _near(path: Path) -> str:
    """A file beside a missing one whose name differs by the ending or by upper and lower case."""
    endings = (path.suffix, *PLAIN_ENDINGS, ".tif", ".dcm", ".nii.gz")
    stems = (path.stem, path.name)
    others = [path.name.lower(), path.name.upper()]
    others += [stem + ending.lower() for stem in stems for ending in endings]
    others += [stem + ending.upper() for stem in stems for ending in endings]
    found = next((other for other in others if path.with_name(other).is_file()), None)
    return f", but {found!r} is there" if found else ""


def _single(file: str, **words: int | str | None) -> str:
    """The name of one image of a file."""
    text = ",".join(f"{word}={value}" for word, value in words.items() if value is not None)
    return f"{file}#{text}" if text else file


def decode_image(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str = ""
) -> Image.Image:
    """Decode one file in full, as RGB of 8 bits: the one way from a file to pixels.

    Common images are shown upright (EXIF), their transparent parts on white, more than 8 bits of
    grey from the least to the greatest value; colour profiles are not applied. DICOM is read by
    `dicom.read_dicom`, NIfTI by `nifti.read_nifti`.

    Args:
        name: of the image, with what `#` selects in it.

    Raises:
        DataError: too large, of another format, broken, or with several pages of which none is
            selected.
        MissingExtraError: DICOM or NIfTI without the extra `dicom`.
    """
    with _stream(file) as stream:
        if reader := _medical_reader(stream):
            return reader(stream, max_pixels, name, image_label(name, where))
        with _opened(stream, max_pixels, name, where) as image:
            return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of Pillow as RGB of 8 bits, upright and on white; see `decode_image`."""
    white_is_zero = _white_is_zero(image)
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        # The one transparent value of a grey picture, as PNG has it, is paper too.
        paper = image.info.get("transparency")
        known = np.ones(values.shape, bool) if paper is None else values != paper
        pixels = eight_bits(values, known=known)
        pixels = np.where(known, 255 - pixels if white_is_zero else pixels, 255)
        image = Image.fromarray(pixels.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def stored_image(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str = ""
) -> tuple[str, bytes]:
    """Name and bytes of an image in a prepared folder, after it was decoded once in full.

    Raises:
        DataError: as for `decode_image`.
    """
    with _stream(file) as stream:
        if _may_be_plain(stream, name):
            with _opened(stream, max_pixels, name, where) as opened:
                image, plain = to_rgb(opened), _is_plain(opened)
        else:
            image, plain = decode_image(stream, max_pixels, name, where), False
        if plain:
            stream.seek(0)
            return name, stream.read()
    # Rebuilt from its pixels, so that no metadata of the file goes along. A third of the numbers
    # says the same of a grey picture, and is read in a third of the time.
    pixels = np.asarray(image)
    is_grey = (pixels == pixels[..., :1]).all()
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if is_grey else pixels).save(content, "PNG")
    return rendered_name(name), content.getvalue()


def _may_be_plain(stream: IO[bytes], name: str) -> bool:
    """Whether name and kind of a file are such that any viewer can show it."""
    selects = split_name(name)[1]
    return name.lower().endswith(PLAIN_ENDINGS) and not selects and not _medical_reader(stream)


def _is_plain(image: Image.Image) -> bool:
    """Whether any viewer shows a picture as `to_rgb` does."""
    return (
        image.format != "TIFF"
        and image.mode in ("1", "L", "P", "RGB")
        and not image.has_transparency_data
        and _orientation(image) not in _TURNS
    )


@contextmanager
def _stream(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(file, Path):
        with file.open("rb") as stream:
            yield stream
    else:
        file.seek(0)
        yield file


def _medical_reader(stream: IO[bytes]) -> Callable[..., Image.Image] | None:
    """What reads a file that is DICOM or NIfTI, packed or not, by its content; None for others.

    The stream is at its beginning afterwards.
    """
    head = stream.read(HEADER_BYTES)
    stream.seek(0)
    # A file may be TIFF and DICOM at once (PS3.10, 7.1): then DICOM says more.
    if head.startswith(_BEGINNINGS) and head[128:132] != b"DICM":
        return None
    if is_dicom(head):
        return read_dicom
    return read_nifti if is_nifti(stream) else None


def _num_frames(stream: IO[bytes], max_pixels: int, name: str, where: str) -> int:
    if _medical_reader(stream):
        return num_frames(stream, image_label(name, where))
    # At its first page, as a file of several cannot be opened without choosing one.
    with _opened(stream, max_pixels, f"{file_name(name)}#frame=0", where) as image:
        return _pages(image)


@contextmanager
def _opened(
    file: Path | IO[bytes], max_pixels: int, name: str, where: str
) -> Iterator[Image.Image]:
    """An image at the page that its name selects, not too large, of which only the header is read;
    see `decode_image`."""
    label = image_label(name, where)
    try:
        with Image.open(file, formats=FORMATS) as image:
            _turn_to_page(image, name, label)
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
            f"{label} cannot be decoded ({_reason(error, file)}).",
            f"It must be a complete {', '.join(FORMATS)}, DICOM or NIfTI file.",
        ) from error


def _pages(image: Image.Image) -> int:
    # The further pictures of an MPO are previews and depths of the photograph, which is the first.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _turn_to_page(image: Image.Image, name: str, label: str) -> None:
    pages = _pages(image)
    if pages == 1 and "#" not in name:
        return
    selection = parse_selection(name, label)
    selection.only(label, "this file", "frame")
    if selection.frame is None and pages > 1:
        raise DataError(
            f"{label} has {pages} pages or pictures.",
            f"Select one, counted from 0, for example {name}#frame=0.",
        )
    if (selection.frame or 0) >= pages:
        raise DataError(f"{label}: there is no frame {selection.frame}, there are {pages}.")
    if pages > 1:
        image.seek(selection.frame or 0)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where the file says none, or says it in broken EXIF."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # What it raises depends on where it breaks. Such EXIF says nothing; viewers agree on that.
    except Exception:
        return 1


def _white_is_zero(image: Image.Image) -> bool:
    # Pillow turns 1, 2, 4 and 8 bits around itself, deeper ones not.
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def image_label(name: str, where: str) -> str:
    """How an error names an image, and where known the record that shows it."""
    return f"{where}: the image {name!r}" if where else f"the image {name!r}"


def file_name(name: str) -> str:
    """The file of an image name, without what `#` selects in it."""
    return split_name(name)[0] if "#" in name else name


def rendered_name(name: str) -> str:
    """The name of a rendered image in a prepared folder: `cine.dcm-frame-3.png`."""
    if name.lower().endswith(".png") and not split_name(name)[1]:
        return name
    return re.sub(r"[#=,]", "-", name) + ".png"


def _reason(error: Exception, file: Path | IO[bytes]) -> str:
    # Pillow's own text may hold the full path; only the kind of fault is for the reader.
    if "truncated" in str(error):
        return "the file is cut short"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than the decoder allows"
    if isinstance(error, UnidentifiedImageError):
        with _stream(file) as stream:
            head = stream.read(HEADER_BYTES)
        if not head:
            return "the file is empty"
        for offset, beginning, kind in _OTHER_FORMATS:
            if head[offset:].lstrip(b"\xef\xbb\xbf \r\n").startswith(beginning):
                return f"it is {kind}"
    return "unknown or broken format"
