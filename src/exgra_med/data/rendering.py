"""Measured numbers -> the 8-bit RGB picture that is shown: windows, grey scale, square pixels."""

import numpy as np
from PIL import Image

from exgra_med.errors import DataError

CT_WINDOWS: dict[str, tuple[tuple[float, float], ...]] = {
    "lung": ((-1350, 150),),
    "bone": ((-500, 1300),),
    "soft-tissue": ((-150, 250),),
    "brain": ((0, 80),),
    "medgemma": ((-1024, 1024), (-135, 215), (0, 80)),
}
"""Name -> (black, white) in Hounsfield units; three of them become red, green and blue.

Level and width of the first four are those of Radiopaedia, "Windowing (CT)": lung -600/1500, bone
400/1800, soft tissues 50/400, brain 40/80. `medgemma` is what MedGemma 1.5 was trained on: a wide,
a soft-tissue and a brain window (Google-Health/medgemma,
`notebooks/high_dimensional_ct_hugging_face.ipynb`, "Define windowing for CT images").
"""

SQUARE = 1.01
"""Pixels whose sides differ by less than this factor count as square."""


def eight_bits(
    values: np.ndarray,
    low: float | None = None,
    high: float | None = None,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Map values linearly to 0..255; what lies outside becomes black or white.

    Args:
        values: (height, width), real numbers; NaN becomes black.
        low: value that becomes black; the least that is finite and known where absent.
        high: value that becomes white; the greatest that is finite and known where absent.
        known: (height, width) of bool; what is not known has no part in the scale.

    Returns:
        (height, width) of uint8.
    """
    numbers = values.astype(np.float64)
    if low is None or high is None:
        counted = np.isfinite(numbers) if known is None else np.isfinite(numbers) & known
        scale = numbers[counted] if counted.any() else np.zeros(1)
        low = float(scale.min()) if low is None else low
        high = float(scale.max()) if high is None else high
    numbers = np.where(np.isnan(numbers), low, numbers)
    span = max(high - low, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        return np.round(np.clip((numbers - low) / span, 0.0, 1.0) * 255).astype(np.uint8)


def hounsfield_window(values: np.ndarray, window: str) -> np.ndarray:
    """Show Hounsfield units through one of `CT_WINDOWS`.

    Args:
        values: (height, width), in Hounsfield units.

    Returns:
        uint8, (height, width), or (height, width, 3) where the window is of three.

    """
    channels = [eight_bits(values, low, high) for low, high in CT_WINDOWS[window]]
    return channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)


def picture(
    pixels: np.ndarray, label: str, max_pixels: int, spacing: tuple[float, float] = (1.0, 1.0)
) -> Image.Image:
    """An RGB picture with square pixels: the longer side of a pixel is filled in, bilinearly.

    Args:
        pixels: uint8, (height, width) or (height, width, 3).
        spacing: height and width of a pixel, in any one unit.

    Raises:
        DataError: with square pixels it has more than `max_pixels`.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    short, long = sorted(spacing)
    if long < short * SQUARE:
        return image
    height, width = (
        max(1, round(size * side / short))
        for size, side in zip(pixels.shape[:2], spacing, strict=True)
    )
    if width * height > max_pixels:
        raise DataError(
            f"{label} has, with square pixels, {width} x {height}: more than {max_pixels}."
        )
    return image.resize((width, height), Image.Resampling.BILINEAR)
