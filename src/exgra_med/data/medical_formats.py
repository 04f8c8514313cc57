"""DICOM and NIfTI -> 8-bit RGB images, and nothing else of the file (extra `dicom`).

Of DICOM, rescale, window and MONOCHROME1 are applied. A frame or slice is selected behind the
image's name: `name.dcm#frame=3`, `name.nii.gz#axis=2,slice=40`. No tag is copied, printed or put in
an error. This is **not** de-identification: text burned into the pixels and recognisable features
stay. DICOM files that say, or whose modality makes it likely, that text is burned in are refused.
"""

import logging
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from exgra_med.errors import DataError
from exgra_med.plugins import import_extra

LIKELY_BURNED_IN = ("US", "SC", "OT", "XA", "ES", "XC", "GM")
"""Modalities whose pictures often carry text; they need BurnedInAnnotation = NO."""


def read_dicom(file: Path | IO[bytes], max_pixels: int, name: str, label: str = "") -> Image.Image:
    """Read one frame of a DICOM file as 8-bit RGB.

    Args:
        max_pixels: rows times columns above which it is refused before it is decoded.
        name: of the image, with `#frame=N` where the file has several.
        label: how an error names it.

    Raises:
        MissingExtraError: pydicom is not installed.
        DataError: burned-in text, too large, no such frame, or broken; never holds a tag's value.
    """
    pydicom = import_extra("pydicom", "Reading DICOM files", "dicom")
    prefix = label or f"the image {name!r}"
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            # pydicom's warnings and log lines quote the values of tags.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file)
            burned = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
            modality = str(dataset.get("Modality", "")).strip().upper()
            if burned == "YES" or (burned != "NO" and modality in LIKELY_BURNED_IN):
                raise DataError(
                    f"{prefix} has, or may have, text burned into its pixels.",
                    "Remove the text and set BurnedInAnnotation to NO before you prepare it.",
                )
            if int(dataset.Rows) * int(dataset.Columns) > max_pixels:
                raise DataError(f"{prefix} has more than {max_pixels} pixels.")
            return _render(dataset, name, prefix)
    except DataError:
        raise
    # Whatever a broken file raises may quote a tag, so its text is not passed on.
    except Exception as error:
        raise DataError(
            f"{prefix} is a DICOM file that cannot be decoded ({type(error).__name__}).",
            "It may be cut short, or compressed in a way that needs another pydicom plugin.",
        ) from None
    finally:
        logger.disabled = disabled


def _render(dataset: Any, name: str, prefix: str) -> Image.Image:
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    choice = _selected(name)
    if frames > 1 and "frame" not in choice:
        raise DataError(
            f"{prefix} has {frames} frames.", f"Select one, for example {name}#frame={frames // 2}."
        )
    frame = choice.get("frame", 0)
    if not 0 <= frame < frames:
        raise DataError(f"{prefix}: there is no frame {frame}, there are {frames}.")
    pixels = np.asarray(dataset.pixel_array)
    if frames > 1:
        pixels = pixels[frame]
    photometric = str(dataset.PhotometricInterpretation)
    if pixels.ndim == 3:
        if photometric != "RGB":
            from pydicom.pixels import convert_color_space  # pyrefly: ignore

            pixels = convert_color_space(pixels, photometric, "RGB")
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    values = pixels.astype(np.float64) * slope + float(dataset.get("RescaleIntercept", 0) or 0)
    low, high = _window(dataset)
    return scale_to_eight_bits(values, low, high, invert=photometric == "MONOCHROME1")


def _window(dataset: Any) -> tuple[float | None, float | None]:
    """The first window of the file, PS3.3 C.11.2.1.2; none where it has none."""
    values = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if None in values:
        return None, None
    center, width = (float(v if isinstance(v, (int, float, str)) else v[0]) for v in values)
    if width < 1:
        return None, None
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def read_nifti(path: Path, max_pixels: int, name: str, label: str = "") -> Image.Image:
    """Read a slice as 8-bit RGB, scaled from its least to its greatest value.

    Head volumes can show a face; the reader neither detects nor removes it.

    Args:
        max_pixels: pixels of the slice above which it is refused.
        name: of the image, with `#axis=A,slice=S`.

    Raises:
        MissingExtraError: nibabel is not installed.
        DataError: no slice is selected, there is no such slice, too large, or broken.
    """
    nibabel = import_extra("nibabel", "Reading NIfTI files", "dicom")
    prefix = label or f"the image {name!r}"
    try:
        volume: Any = nibabel.load(path)
        shape = volume.shape
        choice = _selected(name)
        if len(shape) != 3 or set(choice) != {"axis", "slice"}:
            raise DataError(
                f"{prefix} is a volume of shape {shape}.",
                "Select a slice of a 3-D volume, for example #axis=2,slice=40 behind the name.",
            )
        axis, number = choice["axis"], choice["slice"]
        if not (0 <= axis < 3 and 0 <= number < shape[axis]):
            raise DataError(f"{prefix}: there is no such slice in shape {shape}.")
        if np.prod([size for side, size in enumerate(shape) if side != axis]) > max_pixels:
            raise DataError(f"{prefix} has more than {max_pixels} pixels.")
        index: list[int | slice] = [slice(None)] * 3
        index[axis] = number
        values = np.asarray(volume.dataobj[tuple(index)])
    except DataError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise DataError(f"{prefix} is a NIfTI file that cannot be decoded ({kind}).") from None
    # Rows run upwards in NIfTI's voxel order.
    return scale_to_eight_bits(np.rot90(values))


def scale_to_eight_bits(
    values: np.ndarray, low: float | None = None, high: float | None = None, invert: bool = False
) -> Image.Image:
    """Map a window of values linearly to 0..255; what lies outside becomes black or white.

    Args:
        values: (height, width), any number type; values that are not finite count as the lowest.
        low: value that becomes black; the least of the image where absent.
        high: value that becomes white; the greatest of the image where absent.
        invert: the lowest value is white, as in MONOCHROME1.
    """
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    known = numbers[finite] if finite.any() else np.zeros(1)
    low = float(known.min()) if low is None else low
    high = float(known.max()) if high is None else high
    numbers = np.where(finite, numbers, low)
    span = max(high - low, np.finfo(np.float64).tiny)
    scaled = np.clip((numbers - low) / span, 0.0, 1.0)
    if invert:
        scaled = 1.0 - scaled
    return Image.fromarray(np.round(scaled * 255).astype(np.uint8)).convert("RGB")


def _selected(name: str) -> dict[str, int]:
    """The frame or slice that `#` selects in an image name, as numbers by word."""
    _, mark, text = name.partition("#")
    pairs = [part.split("=") for part in text.split(",")] if mark else []
    return {key: int(value) for key, value in pairs}
