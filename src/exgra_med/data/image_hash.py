"""Exact and perceptual hashes of images, to find one picture under two names."""

import numpy as np
from PIL import Image

NEAR_BITS = 6
"""Perceptual hashes that differ in at most so many of 64 bits count as the same picture."""

_SIDE = 32
_KEPT = 8


def _cosines() -> np.ndarray:
    rows, columns = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(np.pi * (2 * columns + 1) * rows / (2 * _SIDE))


_BASIS = _cosines()


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly equal under scaling, compression and slight changes of contrast.

    The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey version against their median
    (the "pHash" of Zauner 2010).

    Args:
        image: of any size and mode.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    frequencies = (_BASIS @ pixels @ _BASIS.T)[:_KEPT, :_KEPT].ravel()
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(left: list[int], right: list[int], bits: int = NEAR_BITS) -> list[tuple[int, int]]:
    """(row of left, row of right) of hashes that differ in at most `bits` bits, in order."""
    if not left or not right:
        return []
    wanted = np.array(right, dtype=np.uint64)
    pairs = []
    for row, value in enumerate(left):
        distance = np.bitwise_count(wanted ^ np.uint64(value))
        pairs += [(row, int(column)) for column in np.flatnonzero(distance <= bits)]
    return pairs
