"""Deep pixel values -> an 8-bit RGB image, by one linear window."""

import numpy as np
from PIL import Image


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


def picked(name: str) -> dict[str, int]:
    """What stands behind `#` in an image name, for example `x.dcm#frame=3`.

    Raises:
        ValueError: not a list of `word=number`.
    """
    _, mark, text = name.partition("#")
    pairs = [part.split("=") for part in text.split(",")] if mark else []
    return {key: int(value) for key, value in pairs}
