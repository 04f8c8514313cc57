"""The win rate at equal length: what is left when a judge's liking for long answers is taken out.

As AlpacaEval 2 does (Dubois et al. 2024, "Length-Controlled AlpacaEval"), the win probability is
modelled as `sigmoid(a + b * tanh(d / s))` with `d` the difference in characters and `s` its
standard deviation over the questions; the controlled rate is `sigmoid(a)`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.statistics import interval

Values = NDArray[np.float64]
_RIDGE = 0.05
"""Keeps the fit finite where one side always wins; a hundredth of a dozen questions."""
_NUM_STEPS = 30


def length_controlled(
    wins: Values,
    differences: Sequence[float],
    clusters: NDArray[np.int64],
    num_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The length-controlled win rate with an interval.

    Args:
        wins: (questions,) 1 for a win, 0 for a loss, between for ties.
        differences: (questions,) characters of the answer minus those of the reference.
        clusters: (questions,) image codes.
        num_samples: resamples of images.
        seed: of the resamples.

    Returns:
        `win_rate` and `interval` in percent; `length_effect`, the `b` above; `extrapolated`: every
        answer is shorter, or every one longer, than its reference, so equal length was never seen.
    """
    if not len(wins):
        return {"win_rate": None, "interval": None, "length_effect": None, "extrapolated": False}
    gaps = np.asarray(differences, dtype=np.float64)
    spread = gaps.std()
    scaled = np.tanh(gaps / spread) if spread else np.zeros_like(gaps)
    fitted = _fit(scaled, wins, np.ones((1, len(wins))))[0]
    _, codes = np.unique(clusters, return_inverse=True)
    num_clusters = int(codes.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, num_clusters, (num_samples, num_clusters))
    counts = np.stack([np.bincount(row, minlength=num_clusters) for row in drawn])
    rates = 100 * _sigmoid(_fit(scaled, wins, counts[:, codes].astype(np.float64))[:, 0])
    bounds = interval(rates, num_clusters)
    return {
        "win_rate": float(100 * _sigmoid(fitted[0])),
        "interval": list(bounds) if bounds else None,
        "length_effect": float(fitted[1]),
        "extrapolated": bool((gaps > 0).all() or (gaps < 0).all()),
    }


def _fit(x: Values, y: Values, weights: Values) -> Values:
    """Ridge logistic regression by Newton steps, one fit a row of weights; (fits, 2) numbers."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_NUM_STEPS):
        p = _sigmoid(a[:, None] + b[:, None] * x)
        error = weights * (y - p)
        curve = weights * p * (1 - p)
        slope_a, slope_b = error.sum(1) - _RIDGE * a, error @ x - _RIDGE * b
        aa, ab, bb = curve.sum(1) + _RIDGE, curve @ x, curve @ (x * x) + _RIDGE
        determinant = aa * bb - ab * ab
        # A full Newton step can overshoot where all answers are on one side.
        a = a + np.clip((bb * slope_a - ab * slope_b) / determinant, -2, 2)
        b = b + np.clip((aa * slope_b - ab * slope_a) / determinant, -2, 2)
    return np.stack([a, b], axis=1)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))
