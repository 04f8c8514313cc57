"""How far two raters agree: shares, Cohen's kappa, and an interval over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from exgra_med.errors import ScoreError
from exgra_med.evaluation.statistics import cluster_bootstrap, cluster_codes, interval, scored


def agreement(
    first: Sequence[str],
    second: Sequence[str],
    images: Sequence[str],
    num_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """What two raters said of the same items.

    kappa = (p_o - p_e) / (1 - p_e), where p_o is the share of items on which they agree and p_e the
    share that chance gives raters who use the categories as often as these two did.

    Args:
        first: the category that the first rater gave to each item.
        second: that of the second one.
        images: of the items; items of one image are resampled together.
        num_samples: resamples for the interval.
        seed: of the resamples.

    Returns:
        `items`; `agreed`, how many have one category; `kappa` with a 95 % interval, its value none
        where both use one and the same category alone; `table`, first -> second -> count.

    Raises:
        ScoreError: lists of different lengths, or nothing in them.
    """
    if not first or not len(first) == len(second) == len(images):
        raise ScoreError(
            f"The raters have {len(first)} and {len(second)} items of {len(images)} images.",
            "Give both raters' categories for the same items, at least one.",
        )
    names = sorted({*first, *second})
    size = len(names)
    cells = [
        names.index(one) * size + names.index(two)
        for one, two in zip(first, second, strict=True)
    ]  # fmt: skip
    shares = np.eye(size * size)[cells]
    codes = cluster_codes(images)
    value = _kappas(shares.mean(axis=0, keepdims=True), size)[0]
    samples = _kappas(cluster_bootstrap(shares, codes, num_samples, seed), size)
    bounds = None if np.isnan(value) else interval(samples, codes)
    counts = shares.sum(axis=0).astype(int).reshape(size, size)
    return {
        "items": len(first),
        "agreed": int(np.trace(counts)),
        "kappa": scored(None if np.isnan(value) else float(value), len(first), bounds),
        "table": {
            one: {two: int(counts[i, j]) for j, two in enumerate(names)}
            for i, one in enumerate(names)
        },
    }


def _kappas(shares: np.ndarray, size: int) -> np.ndarray:
    """Kappa of each row of (samples, size * size) shares of a table; NaN where nothing varies."""
    tables = shares.reshape(-1, size, size)
    observed = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance > 1 - 1e-12, np.nan, (observed - chance) / (1 - chance))
