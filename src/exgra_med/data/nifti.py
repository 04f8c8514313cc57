"""NIfTI -> 8-bit RGB pictures of slices (extra `dicom`).

A slice is shown as on a light box, whatever way the file is stored: the patient's right on the
picture's left; axial with the front up, coronal and sagittal with the head up, sagittal facing
left. Slices are counted along the canonical axes: from the patient's left, back and feet. Head
volumes can show a face; the reader neither detects nor removes it.
"""

import gzip
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any

import numpy as np
from PIL import Image

from exgra_med.data.rendering import eight_bits, hounsfield_window, picture
from exgra_med.data.selection import PLANES, Selection, parse_selection
from exgra_med.errors import DataError, ExgraMedError
from exgra_med.plugins import import_extra

MAX_VOLUME_BYTES = 4 * 2**30
"""Volumes that take more are refused before they are unpacked: slices may be spread over all."""

FAT_HOUNSFIELD = -100
"""Fat and air lie below so many Hounsfield units: a slice with no such value is in another unit."""

MAX_KEPT_BYTES = 512 * 2**20
"""The packed volume that was read last is kept unpacked up to this size, for its next slice."""

HEADER_BYTES = 352


def is_nifti(stream: IO[bytes]) -> bool:
    """Whether a file is NIfTI, packed or not, by its content; the stream stays at its beginning."""
    try:
        head = _unpacked(stream).read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return False  # A broken archive is not known to be NIfTI, and is refused as what it is.
    finally:
        stream.seek(0)
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    """A stream from its beginning, through gzip where it is packed."""
    stream.seek(0)
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[return-value]


def read_nifti(stream: IO[bytes], max_pixels: int, name: str, label: str) -> Image.Image:
    """Read one slice as 8-bit RGB, scaled from its least to its greatest value.

    Args:
        stream: the file, packed or not.
        max_pixels: pixels of the slice above which it is refused.
        name: of the image, with `#plane=axial,slice=40`, and `volume=N` where there are several.
        label: how an error names it.

    Raises:
        MissingExtraError: nibabel is not installed.
        DataError: no slice is selected, there is no such slice, unknown orientation, too large,
            values that are no grey scale and no RGB, or broken.
    """
    selection = parse_selection(name, label)
    selection.only(label, "a NIfTI file", "plane", "slice", "volume", "window")
    with _errors(label):
        volume = _Volume(_load(stream, label), label, selection)
        return volume.render(selection, max_pixels)


def num_slices(stream: IO[bytes], selection: Selection, label: str) -> int:
    """How many slices a volume has along a plane's axis; axial where no plane is selected.

    Raises:
        MissingExtraError: nibabel is not installed.
        DataError: as for `read_nifti`.
    """
    with _errors(label):
        volume = _Volume(_load(stream, label), label, selection)
        return volume.num_slices(selection.plane or "axial")


class _Volume:
    """One 3-D volume of a file, whose axes are named by the patient's."""

    def __init__(self, image: Any, label: str, selection: Selection) -> None:
        from nibabel.orientations import io_orientation

        self.label = label
        header = image.header
        if not (int(header["qform_code"]) or int(header["sform_code"])):
            raise DataError(
                f"{label} does not say how it lies in the patient (qform and sform code are 0).",
                "Set its orientation with a tool that knows it, for example nibabel's `set_sform`.",
            )
        self.image, self.shape = image, image.shape[:3]
        self.volume = self._volume_index(selection.volume)
        if math.prod(self.shape) * header.get_data_dtype().itemsize > MAX_VOLUME_BYTES:
            raise DataError(f"{label} takes more than {MAX_VOLUME_BYTES} bytes.")
        affine = image.affine
        self.orientation = np.full((3, 2), np.nan)
        if np.isfinite(affine).all():
            self.orientation = io_orientation(affine)
        if not np.isfinite(self.orientation).all():
            raise DataError(f"{label} does not say how it lies in the patient: its axes coincide.")

    def _volume_index(self, number: int | None) -> tuple[int, ...]:
        """The index of the selected volume along the axes behind the first three."""
        shape = self.image.shape
        if len(shape) < 3:
            raise DataError(f"{self.label} has {len(shape)} axes, not three.")
        volumes = math.prod(shape[3:])
        if volumes == 1 and number in (None, 0):
            return (0,) * (len(shape) - 3)
        if number is None:
            raise DataError(
                f"{self.label} holds {volumes} volumes (shape {shape}).",
                "Select one, for example volume=0 behind '#'.",
            )
        if len(shape) == 3 or volumes != shape[3] or number >= volumes:
            raise DataError(f"{self.label}: there is no volume {number} in shape {shape}.")
        return (number, *(0,) * (len(shape) - 4))

    def stored_axis(self, plane: str) -> int:
        """The axis of the file that a plane is counted along."""
        return int(np.flatnonzero(self.orientation[:, 0] == PLANES.index(plane))[0])

    def num_slices(self, plane: str) -> int:
        """The slices along a plane's axis."""
        return self.shape[self.stored_axis(plane)]

    def render(self, selection: Selection, max_pixels: int) -> Image.Image:
        """The picture of the selected slice, or of the only one that there is."""
        plane, number = selection.plane, selection.slice
        flat = [each for each in PLANES if self.num_slices(each) == 1]
        if number is None and len(flat) == 1 and plane in (None, *flat):
            plane, number = flat[0], 0
        counts = ", ".join(f"{each} {self.num_slices(each)}" for each in PLANES)
        if plane is None or number is None:
            raise DataError(
                f"{self.label} is a volume with slices: {counts}.",
                "Select one, for example #plane=axial,slice="
                f"{self.num_slices('axial') // 2} behind the name.",
            )
        if number >= self.num_slices(plane):
            raise DataError(f"{self.label}: there is no such slice; there are {counts}.")
        pixels, spacing = self._slice(plane, number, max_pixels)
        if pixels.dtype.fields:
            shown = self._colour(pixels)
            if selection.window:
                raise DataError(f"{self.label} has colours, so it has no window.")
        elif selection.window:
            # The file does not say its unit, but air and fat do.
            if not (pixels < FAT_HOUNSFIELD).any():
                raise DataError(
                    f"{self.label}: no value is below {FAT_HOUNSFIELD}, so these are not "
                    "Hounsfield units.",
                    "Leave `window` out, or choose a slice that shows air.",
                )
            shown = hounsfield_window(pixels, selection.window)
        else:
            shown = eight_bits(pixels)
        return picture(shown, self.label, max_pixels, spacing)

    def _slice(
        self, plane: str, number: int, max_pixels: int
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """Values of a slice as on a light box, and height and width of its pixels in mm."""
        import nibabel

        stored, axis = self.stored_axis(plane), PLANES.index(plane)
        if self.orientation[stored, 1] < 0:
            number = self.num_slices(plane) - 1 - number
        index = [slice(None)] * 3
        index[stored] = slice(number, number + 1)
        if math.prod(self.shape) // self.shape[stored] > max_pixels:
            raise DataError(f"{self.label} has more than {max_pixels} pixels.")
        thin = nibabel.as_closest_canonical(self.image.slicer[(*index, *self.volume)])
        values = np.asanyarray(thin.dataobj).take(0, axis=axis)
        if np.iscomplexobj(values):
            raise DataError(f"{self.label} has complex values, which are no grey scale.")
        # Axes run to the patient's right, front and head: all three end at the picture's left or
        # top, and the later one goes down.
        width, height = np.delete(nibabel.affines.voxel_sizes(thin.affine), axis)
        return np.flip(values, (0, 1)).T, (float(height), float(width))

    def _colour(self, pixels: np.ndarray) -> np.ndarray:
        if (pixels.dtype.names or ())[:3] != ("R", "G", "B"):
            raise DataError(f"{self.label} has values that are neither a grey scale nor RGB.")
        return np.stack([pixels[channel] for channel in "RGB"], axis=-1)


def _load(stream: IO[bytes], label: str) -> Any:
    import nibabel

    content = _unpacked(stream)
    head = content.read(HEADER_BYTES)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise DataError(
            f"{label} is the header of a NIfTI file whose values lie in another file.",
            "Save the two as one .nii or .nii.gz.",
        )
    content.seek(0)
    kind = nibabel.Nifti2Image if head[4:8] == b"n+2\0" else nibabel.Nifti1Image
    header = kind.header_class.from_fileobj(content)
    size = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    size += max(0, int(header["vox_offset"]))
    path = getattr(stream, "name", None)
    if isinstance(content, gzip.GzipFile) and path is not None and size <= MAX_KEPT_BYTES:
        kept = _unpacked_file(path, os.fstat(stream.fileno()).st_mtime_ns, size)
        return kind.from_stream(io.BytesIO(kept))
    content.seek(0)
    return kind.from_stream(content)  # type: ignore[arg-type]  # any file will do


@lru_cache(maxsize=1)
def _unpacked_file(path: str, modified_ns: int, size: int) -> bytes:
    """The first `size` bytes of a packed file; what it was last changed at only tells it apart."""
    with gzip.open(path) as content:
        return content.read(size)


@contextmanager
def _errors(label: str) -> Iterator[None]:
    """Run nibabel without its warnings and log lines; what it raises becomes one sentence."""
    nibabel = import_extra("nibabel", "Reading NIfTI files", "dicom")
    logger = nibabel.imageglobals.logger
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExgraMedError:
        raise
    except Exception as error:
        # Header texts may hold names, so what nibabel says is not passed on.
        kind = type(error).__name__
        raise DataError(
            f"{label} is a NIfTI file that cannot be decoded ({kind}).", "It may be cut short."
        ) from None
    finally:
        logger.disabled = disabled
