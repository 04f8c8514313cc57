"""DICOM -> 8-bit RGB pictures, and nothing else of the file (extra `dicom`).

The steps are those of PS3.3 and PS3.4 N.2: decode, modality (rescale or table), values of interest
(table or window), MONOCHROME1; or, for colour, palette and RGB. No tag is copied, printed or put in
an error. This is **not** de-identification: text burned into the pixels and recognisable features
stay. Files that say, or whose modality makes it likely, that text is burned in are refused.
"""

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from exgra_med.data.isolated_gdcm import WORKER
from exgra_med.data.rendering import eight_bits, hounsfield_window, picture
from exgra_med.data.selection import Selection, parse_selection
from exgra_med.errors import DataError, ExgraMedError
from exgra_med.plugins import import_extra

LIKELY_BURNED_IN = ("US", "SC", "OT", "XA", "ES", "XC", "GM")
"""Modalities whose pictures often carry text; they need BurnedInAnnotation = NO."""

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Colour spaces that pydicom decodes to RGB; YBR_PARTIAL, HSV, ARGB and CMYK are refused."""

_PACKAGES = dict.fromkeys(
    (f"1.2.840.10008.1.2.4.20{number}" for number in (1, 2, 3)), "pylibjpeg pylibjpeg-openjpeg"
)
"""Transfer syntaxes that python-gdcm does not decode (High-Throughput JPEG 2000), and what does."""
_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")
"""pydicom's decoders in the order in which they are asked. gdcm is last, as it has to be kept in a
process of its own."""
_JPEG_DCT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")

_CODESTREAM = b"\xff\x4f\xff\x51"
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG and JPEG-LS behind which the size stands."""

MAX_INFLATED_BYTES = 512 * 2**20
"""Deflated files that grow beyond this are refused; those of a picture sooner, see `_unpacked`."""
_BYTES_BESIDE_PIXELS = 16 * 2**20
"""Of a deflated file: everything but its pixels."""
_MAX_READS = 500_000
"""Parts of a file that pydicom may read one by one, two or three an element: a file of 2,000 frames
has 300,000. Millions of empty elements would take hundreds of bytes and 20 microseconds each."""

_NOWHERE = logging.NullHandler()

_MACROS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)
_SPACINGS = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
)
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UC UI UL UN UR US "
    b"UT OV SV UV".split()
)


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM, by its content: with or without a preamble.

    Args:
        head: the first 132 bytes or more.
    """
    if head[128:132] == b"DICM":
        return True
    # Without a preamble the first element is one of group 2 or 8, with an explicit value
    # representation, or with a length that a first element can have.
    if head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08"):
        return False
    order: Literal["little", "big"] = "little" if head[1] == 0 else "big"
    element, length = int.from_bytes(head[2:4], order), int.from_bytes(head[4:8], order)
    return element <= 0x0070 and (head[4:6] in _VALUE_REPRESENTATIONS or 0 < length <= 64)


def read_dicom(stream: IO[bytes], max_pixels: int, name: str, label: str) -> Image.Image:
    """Read one frame of a DICOM file as 8-bit RGB.

    Args:
        stream: the file, read from its beginning.
        max_pixels: rows times columns above which it is refused before it is decoded.
        name: of the image, with `#frame=N` where the file has several, and `window=NAME`.
        label: how an error names it.

    Raises:
        MissingExtraError: pydicom is not installed.
        DataError: burned-in text, too large, no such frame, no pixels, a colour space or
            compression that cannot be shown, or broken; never holds a tag's value.
    """
    selection = parse_selection(name, label)
    selection.only(label, "a DICOM file", "frame", "window")
    with _errors_without_tags(label):
        dataset = _read(stream, label, max_pixels)
        frames = _check(dataset, label, max_pixels)
        if frames > 1 and selection.frame is None:
            raise DataError(
                f"{label} has {frames} frames.",
                f"Select one, for example {name}{',' if '#' in name else '#'}frame={frames // 2}.",
            )
        frame = selection.frame or 0
        if frame >= frames:
            raise DataError(f"{label}: there is no frame {frame}, there are {frames}.")
        pixels = _decode(dataset, frame, label)
        return _Frame(dataset, frame, label).render(pixels, selection, max_pixels)


def num_frames(stream: IO[bytes], label: str) -> int:
    """How many frames a DICOM file has.

    Raises:
        MissingExtraError: pydicom is not installed.
        DataError: the file is broken.
    """
    with _errors_without_tags(label):
        return _num_frames(_read(stream, label, stop_before_pixels=True))


def sort_series(files: Sequence[Path], label: str) -> list[Path]:
    """The files of one DICOM series, by their position along the slices' normal.

    They are counted as the slices of a NIfTI volume are: from the patient's left, back or feet.

    Args:
        label: how an error names their folder.

    Raises:
        MissingExtraError: pydicom is not installed.
        DataError: a file that is not DICOM, two series or orientations, two images at one
            position, an image without a position, or none at all.
    """
    found = [(path, _place(path, f"{label} holds {path.name!r}, which")) for path in files]
    if not found:
        raise DataError(f"{label} holds no file.")
    _, (series, rows_and_columns, _) = found[0]
    normal = np.cross(*rows_and_columns)
    main = int(np.abs(normal).argmax())
    # DICOM's axes run to the patient's left, back and head (PS3.3 C.7.6.2.1.1).
    if (normal[main] < 0) == (main == 2):
        normal = -normal
    places: dict[float, Path] = {}
    for path, (its_series, its_axes, corner) in found:
        if its_series != series or not np.allclose(its_axes, rows_and_columns, atol=1e-3):
            raise DataError(
                f"{label} holds images of more than one series or orientation.",
                "Put each series into a folder of its own.",
            )
        position = round(float(corner @ normal), 3)
        if position in places:
            raise DataError(
                f"{label} holds {places[position].name!r} and {path.name!r} at one position.",
                "Put each phase, echo or time point into a folder of its own.",
            )
        places[position] = path
    return [places[position] for position in sorted(places)]


def _place(path: Path, label: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Series, directions (2, 3) of rows and columns, and corner (3,) in mm, of an image."""
    with path.open("rb") as stream, _errors_without_tags(label):
        if not is_dicom(stream.read(132)):
            raise DataError(
                f"{label} is not a DICOM file.",
                "Keep only the files of one series in the folder.",
            )
        stream.seek(0)
        dataset = _read(stream, label, stop_before_pixels=True)
        if _num_frames(dataset) > 1:
            raise DataError(
                f"{label} has several frames itself.",
                "Name that file with #frames=N instead of its folder.",
            )
        axes, corner = dataset.get("ImageOrientationPatient"), dataset.get("ImagePositionPatient")
        if not axes or not corner:
            raise DataError(f"{label} has no position in the patient.", "Name the files singly.")
        numbers = np.array([float(each) for each in (*axes, *corner)])
        return str(dataset.get("SeriesInstanceUID", "")), numbers[:6].reshape(2, 3), numbers[6:]


@contextmanager
def _errors_without_tags(label: str) -> Iterator[None]:
    """Run pydicom: its warnings, log lines and errors quote the values of tags."""
    import_extra("pydicom", "Reading DICOM files", "dicom")
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg")]
    passed_on = [logger.propagate for logger in loggers]
    try:
        for logger in loggers:
            # Without any handler Python would print what the modules below these say.
            logger.addHandler(_NOWHERE)
            logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExgraMedError:
        raise
    except Exception as error:
        missing = str(getattr(error, "name", "")) if isinstance(error, AttributeError) else ""
        # Elements begin with a capital letter, other attributes do not.
        reason = f"it has no {missing}" if missing[:1].isupper() else type(error).__name__
        raise DataError(
            f"{label} is a DICOM file that cannot be decoded ({reason}).",
            "It may be cut short; another program may be able to save it anew.",
        ) from None
    finally:
        for logger, before in zip(loggers, passed_on, strict=True):
            logger.propagate = before


def _read(
    stream: IO[bytes], label: str, max_pixels: int | None = None, stop_before_pixels: bool = False
) -> Any:
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    guarded: Any = _Guarded(stream, label)
    try:
        # `force` also reads files without a preamble; that this is DICOM is known by now.
        dataset = dcmread(guarded, force=True, stop_before_pixels=stop_before_pixels)
    except _DeflatedError:
        return _read_deflated(stream, label, max_pixels)
    if "TransferSyntaxUID" not in dataset.file_meta:
        # Without one it cannot be compressed (PS3.10, 7.1), and how it is encoded was seen.
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


class _DeflatedError(Exception):
    """The rest of the file is deflated."""


class _Guarded:
    """A file as pydicom reads it: element by element, so many and no more."""

    def __init__(self, stream: IO[bytes], label: str) -> None:
        self._stream, self._label, self._left = stream, label, _MAX_READS
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            _DeflatedError: pydicom wants all that is left. That is what it unpacks in one piece,
                whatever its size, and whatever else in the file says how it is packed.
            DataError: there are too many parts.
        """
        if size is None or size < 0:
            raise _DeflatedError
        self._left -= 1
        if self._left < 0:
            raise DataError(f"{self._label} has too many elements.")
        return self._stream.read(size)


def _read_deflated(stream: IO[bytes], label: str, max_pixels: int | None) -> Any:
    """The elements of a deflated file, of which the stream stands behind its file meta group."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    # Four bytes a pixel are a picture of 16 bits in colour, or a float.
    of_picture = 4 * (max_pixels or MAX_INFLATED_BYTES) + _BYTES_BESIDE_PIXELS
    most_bytes = min(MAX_INFLATED_BYTES, of_picture)
    inflate, content = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    while packed := inflate.unconsumed_tail or stream.read(2**20):
        content.write(inflate.decompress(packed, 2**20))
        if content.tell() > most_bytes:
            raise DataError(f"{label} has, unpacked, more than {most_bytes} bytes.")
        if inflate.eof:
            break
    content.seek(0)
    guarded: Any = _Guarded(content, label)
    dataset: Any = read_dataset(guarded, is_implicit_VR=False, is_little_endian=True)
    dataset.set_original_encoding(False, True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


def _num_frames(dataset: Any) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _check(dataset: Any, label: str, max_pixels: int) -> int:
    """Refuse what cannot be shown, by what the file says of itself; returns its frames."""
    if not any(dataset.get(keyword) for keyword in PIXELS):
        raise DataError(f"{label} is {_kind(dataset)}, which holds no pixels.")
    burned = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    modality = str(dataset.get("Modality", "")).strip().upper()
    if burned == "YES" or (burned != "NO" and modality in LIKELY_BURNED_IN):
        raise DataError(
            f"{label} has, or may have, text burned into its pixels.",
            "Remove the text and set BurnedInAnnotation to NO before you prepare it.",
        )
    if int(dataset.Rows) * int(dataset.Columns) > max_pixels:
        raise DataError(f"{label} has more than {max_pixels} pixels.")
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    samples = 3 if photometric in COLOUR else 1
    if photometric not in (*GREY, *COLOUR, "PALETTE COLOR"):
        known = (
            photometric if photometric.startswith(("YBR_PARTIAL", "HSV", "ARGB", "CMYK")) else ""
        )
        raise DataError(
            f"{label} has pixels in {known or 'an unknown colour space'}, which is not read.",
            "Let another program save it as RGB.",
        )
    if int(dataset.get("SamplesPerPixel", 1)) != samples:
        raise DataError(f"{label}: its samples per pixel do not fit {photometric}.")
    if str(dataset.get("PixelPresentation", "MONOCHROME")).strip() in ("COLOR", "MIXED"):
        raise DataError(
            f"{label} has a supplemental palette, which is not applied.",
            "Let another program save it as RGB.",
        )
    if "PresentationLUTSequence" in dataset:
        raise DataError(f"{label} has a presentation lookup table, which is not applied.")
    return _num_frames(dataset)


def _kind(dataset: Any) -> str:
    """What an object without pixels is, by the standard's name of its class."""
    from pydicom.uid import UID

    stored = dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID", "")
    known = UID(stored).name
    # Of a class that the standard does not know, the name would be the number itself.
    return f"of the DICOM class {known!r}" if known != stored else "a DICOM object"


def _decode(dataset: Any, frame: int, label: str) -> np.ndarray:
    """One frame, and no other one; colour as RGB.

    Returns:
        (rows, columns) or (rows, columns, 3), as stored.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        known = syntax.name if syntax.name != syntax else "a private transfer syntax"
        raise DataError(
            f"{label} is compressed as {known}, which is not decoded.",
            "Let another program save it uncompressed; of a video, save the pictures.",
        ) from None
    # `raw=False`: YBR becomes RGB, once, here and nowhere else.
    if not syntax.is_encapsulated:
        return np.asarray(pixel_array(dataset, index=frame, raw=False))
    packages = _PACKAGES.get(str(syntax), "python-gdcm")
    hint = f"pip install {packages}, or 'exgra-med[dicom]', which brings decoders for nearly all."
    if syntax in _JPEG_DCT and int(dataset.BitsStored) > 8:
        hint = "Of 12 bits only pylibjpeg-libjpeg decodes it (licence: GPL); or save it losslessly."
    if not decoder.is_available:
        raise DataError(f"{label} is compressed as {syntax.name}: no decoder is installed.", hint)
    encoded = get_frame(dataset.PixelData, frame, number_of_frames=_num_frames(dataset))
    if syntax != RLELossless:
        _refuse_other_size(encoded, dataset, label)
    for plugin in (each for each in _PLUGINS if each in decoder.available_plugins):
        if plugin == "gdcm":
            pixels = WORKER.decode(dataset, encoded)
            if pixels is not None:
                return pixels
            continue
        try:
            return np.asarray(pixel_array(dataset, index=frame, raw=False, decoding_plugin=plugin))
        except RuntimeError:
            continue  # Another one may know this kind; what it says may quote the file.
    raise DataError(
        f"{label} is compressed as {syntax.name} and cannot be decoded: it is broken, or of a "
        "kind that the installed decoders do not know.",
        hint,
    )


def _refuse_other_size(encoded: bytes, dataset: Any, label: str) -> None:
    """Refuse compressed pixels whose own header says another size than the file.

    Decoders believe that header: a few bytes could make them take all memory there is.
    """
    if encoded[:2] == b"\xff\xd8":
        # JPEG and JPEG-LS: segments up to the frame header (ITU-T T.81, B.1.1.3 and B.2.2).
        at = 2
        while encoded[at + 1] not in _FRAME_HEADERS:
            # Any number of 0xFF may fill the space before a marker.
            filled = encoded[at + 1] == 0xFF
            at += 1 if filled else 2 + int.from_bytes(encoded[at + 2 : at + 4])
        rows, columns = struct.unpack_from(">HH", encoded, at + 5)
    else:
        # JPEG 2000, alone or in the boxes of a JP2 file: the SIZ segment (ITU-T T.800, A.5.1).
        at = 0 if encoded[:4] == _CODESTREAM else _codestream_of(encoded)
        if encoded[at : at + 4] != _CODESTREAM or len(encoded) < at + 42:
            raise DataError(f"{label} holds compressed pixels that are broken.")
        (components,) = struct.unpack_from(">H", encoded, at + 40)
        if components > 4:
            raise DataError(f"{label} holds compressed pixels of {components} channels.")
        right, bottom, left, top = struct.unpack_from(">4I", encoded, at + 8)
        rows, columns = bottom - top, right - left
    if (rows, columns) != (int(dataset.Rows), int(dataset.Columns)):
        raise DataError(f"{label} holds compressed pixels of another size than it says.")


def _codestream_of(encoded: bytes) -> int:
    """Where the pixels of a JP2 file begin: behind the head of its first box for them (I.4).

    What looks like their header inside another box is none: the decoder does not look there.
    """
    at = 0
    while at + 16 <= len(encoded):
        length, head = int.from_bytes(encoded[at : at + 4]), 8
        if length == 1:
            length, head = int.from_bytes(encoded[at + 8 : at + 16]), 16
        if encoded[at + 4 : at + 8] == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    return 0


@dataclass(frozen=True)
class _Frame:
    """How one frame is to be shown: its functional groups go before the file's own elements."""

    dataset: Any
    number: int
    label: str

    def render(self, pixels: np.ndarray, selection: Selection, max_pixels: int) -> Image.Image:
        """The picture of the decoded frame.

        Args:
            pixels: (rows, columns) or (rows, columns, 3), as stored.
        """
        if selection.window and not self._is_hounsfield():
            raise DataError(
                f"{self.label} is not a CT with values in Hounsfield units, so it has no window "
                f"{selection.window!r}.",
                "Leave `window` out.",
            )
        if pixels.ndim == 3:
            shown = self._colour(pixels)
        elif self.dataset.PhotometricInterpretation == "PALETTE COLOR":
            shown = self._palette(pixels)
        else:
            shown = self._grey(pixels, selection.window)
        return picture(shown, self.label, max_pixels, self._spacing())

    def _holder(self, keyword: str) -> Any:
        """The dataset whose element is in force for this frame, or None (PS3.3 C.7.6.16)."""
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = self.dataset.get("SharedFunctionalGroupsSequence") or []
        for group in (*per_frame[self.number : self.number + 1], *shared[:1]):
            for macro in _MACROS:
                for item in group.get(macro) or []:
                    if item.get(keyword) is not None:
                        return item
        return self.dataset if self.dataset.get(keyword) is not None else None

    def _value(self, keyword: str) -> Any:
        holder = self._holder(keyword)
        return None if holder is None else holder.get(keyword)

    def _grey(self, pixels: np.ndarray, window: str | None) -> np.ndarray:
        known = self._known(pixels)
        values = self._modality(pixels)
        if window:
            shown = hounsfield_window(np.where(known, values, np.nan), window)
        else:
            shown = self._values_of_interest(values, known)
            shape = str(self._value("PresentationLUTShape") or "").strip().upper()
            # One inversion: MONOCHROME1 comes with INVERSE in conformant files (PS3.3 C.8.11.1).
            if self.dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":
                shown = 255 - shown
        shown[~known] = 0
        return shown

    def _known(self, pixels: np.ndarray) -> np.ndarray:
        """Which pixels are no padding (PS3.3 C.7.5.1.1.2), by their stored values."""
        first = self.dataset.get("PixelPaddingValue")
        if first is None:
            return np.ones(pixels.shape, bool)
        last = self.dataset.get("PixelPaddingRangeLimit")
        low, high = sorted((int(first), int(first if last is None else last)))
        padding = (pixels >= low) & (pixels <= high)
        # A picture of nothing but padding is a picture whose padding value is wrong.
        return ~padding if not padding.all() else np.ones(pixels.shape, bool)

    def _modality(self, pixels: np.ndarray) -> np.ndarray:
        """Stored values -> the modality's values, such as Hounsfield units (PS3.3 C.11.1)."""
        table = self._value("ModalityLUTSequence")
        if table:
            return self._table(table[0].LUTDescriptor, table[0].LUTData).look_up(pixels)
        slope, intercept = self._value("RescaleSlope"), self._value("RescaleIntercept")
        if slope is not None and float(slope) == 0:
            raise DataError(f"{self.label} has a rescale slope of 0, which leaves no picture.")
        values = pixels.astype(np.float64) * float(1 if slope is None else slope)
        return values + float(intercept or 0)

    def _values_of_interest(self, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The first table, else the first window, else the whole range, as 8 bits (C.11.2)."""
        sequence = self._value("VOILUTSequence")
        if sequence:
            table = self._table(sequence[0].LUTDescriptor, sequence[0].LUTData)
            return eight_bits(table.look_up(values), 0, table.white)
        holder = self._holder("WindowWidth")
        if holder is not None and holder.get("WindowCenter") is not None:
            center, width = _first(holder.WindowCenter), _first(holder.WindowWidth)
            function = str(holder.get("VOILUTFunction") or "LINEAR").strip().upper()
            if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
                raise DataError(f"{self.label} has a window of a function that is not known.")
            # Files say 0 where they mean none; a width has no other meaning so narrow.
            if width >= 1 or (width > 0 and function != "LINEAR"):
                if function == "SIGMOID":
                    from scipy.special import expit

                    return eight_bits(expit(4 * (values - center) / width), 0, 1)
                if function == "LINEAR":
                    center, width = center - 0.5, width - 1
                return eight_bits(values, center - width / 2, center + width / 2)
        if self._is_shown_as_stored():
            return eight_bits(values, 0, 2 ** int(self.dataset.BitsStored) - 1)
        return eight_bits(values, known=known)

    def _is_shown_as_stored(self) -> bool:
        """Whether values are a picture's own: 8 bits or fewer, and no other unit."""
        return (
            "PixelData" in self.dataset
            and int(self.dataset.BitsStored) <= 8
            and int(self.dataset.PixelRepresentation) == 0
            and float(self._value("RescaleSlope") or 1) == 1
            and float(self._value("RescaleIntercept") or 0) == 0
            and not self._value("ModalityLUTSequence")
        )

    def _palette(self, pixels: np.ndarray) -> np.ndarray:
        """Indices -> RGB through the file's palette (PS3.3 C.7.6.3.1.5)."""
        from pydicom.pixels import apply_color_lut

        dataset = self.dataset
        descriptor = dataset.RedPaletteColorLookupTableDescriptor
        names = ("Red", "Green", "Blue")
        if "RedPaletteColorLookupTableData" in dataset:
            data = [dataset.get(f"{name}PaletteColorLookupTableData") for name in names]
        else:
            # A segmented palette is written out by asking for each of its entries.
            first, count = int(descriptor[1]), int(descriptor[0]) & 0xFFFF or 0x10000
            if int(descriptor[2]) == 8 and count > 256:
                raise DataError(f"{self.label} has a segmented palette that is not read.")
            entries = np.arange(first, first + count, dtype=np.int32)
            data = list(apply_color_lut(entries, dataset)[:, :3].T)
        tables = [self._table(descriptor, each) for each in data]
        # Of 16 bits the upper 8 are shown, but for files that fill the lower 8 alone.
        shift = 8 if max(table.white for table in tables) > 255 else 0
        channels = [table.look_up(pixels) >> shift for table in tables]
        return np.stack(channels, axis=-1).astype(np.uint8)

    def _colour(self, pixels: np.ndarray) -> np.ndarray:
        if int(self.dataset.PixelRepresentation) != 0:
            raise DataError(f"{self.label} has signed colours, which are not read.")
        return eight_bits(pixels, 0, 2 ** int(self.dataset.BitsStored) - 1)

    def _table(self, descriptor: Any, data: Any) -> "_Table":
        """A lookup table, whose entries are bytes, words, or words of two entries each."""
        count = int(descriptor[0]) & 0xFFFF or 0x10000
        order = "<"
        if not isinstance(data, bytes):
            data = (np.atleast_1d(data).astype(np.int64) & 0xFFFF).astype("<u2").tobytes()
        elif not self.dataset.original_encoding[1]:
            order = ">"
        wide = len(data) >= 2 * count
        entries = np.frombuffer(data, f"{order}u2" if wide else np.uint8)[:count]
        if len(entries) < count or (not wide and int(descriptor[2]) > 8):
            raise DataError(f"{self.label} has a lookup table that is cut short.")
        return _Table(int(descriptor[1]), entries.astype(np.int64))

    def _is_hounsfield(self) -> bool:
        unit = str(self._value("RescaleType") or "HU").strip().upper()
        rescaled = self._value("RescaleIntercept") is not None or self._value("ModalityLUTSequence")
        modality = str(self.dataset.get("Modality", "")).strip().upper()
        return modality == "CT" and unit == "HU" and bool(rescaled)

    def _spacing(self) -> tuple[float, float]:
        """Height and width of a pixel, from the first element that says them."""
        for keyword in _SPACINGS:
            value = self._value(keyword)
            if np.size(value) == 2:
                height, width = (float(each) for each in value)
                if 0 < height < math.inf and 0 < width < math.inf:
                    return height, width
        return 1.0, 1.0


@dataclass(frozen=True)
class _Table:
    """A lookup table: the value that its first entry is for, and the entries."""

    first: int
    entries: np.ndarray

    @property
    def white(self) -> int:
        """The greatest value of the bits that the entries need.

        Descriptors often say 16 bits of a table that fills 12, so the greatest entry decides.
        """
        return max(255, 2 ** int(self.entries.max()).bit_length() - 1)

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entries for some values; those below the first and above the last get these."""
        first = self.first
        if first > 0x7FFF and values.min() < 0:
            first -= 0x10000  # A signed number that was written as an unsigned one.
        index = np.clip(np.round(values.astype(np.float64)) - first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


def _first(value: Any) -> float:
    """The first of one or several numbers of an element."""
    return float(value if isinstance(value, (int, float, str)) else value[0])
