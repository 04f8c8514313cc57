"""Intervals and tests for scores on questions that share images.

Questions about one image are not independent, so resampling draws images, not questions. All
randomness comes from an explicit seed.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MIN_CLUSTERS = 5
"""Fewer clusters give no interval."""

# Resamples held in memory at once: rows x clusters, in numbers.
_CHUNK_NUMBERS = 8_000_000


def cluster_codes(clusters: Sequence[str]) -> NDArray[np.int64]:
    """Number the clusters in order of first appearance, so that a seed fixes the resamples."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)


def cluster_bootstrap(
    values: Values, clusters: NDArray[np.int64], num_samples: int = 2000, seed: int = 0
) -> Values:
    """Means under resampling of whole clusters with replacement.

    Args:
        values: (items, measures); NaN where an item does not count for a measure.
        clusters: (items,) codes from 0, see `cluster_codes`.
        num_samples: resamples.
        seed: of the resamples.

    Returns:
        (num_samples, measures) means; NaN where a resample has no item that counts.
    """
    values = values.reshape(len(values), -1)
    sums, counts = _cluster_sums(values, clusters)
    num_clusters = len(sums)
    if not num_clusters:
        return np.full((num_samples, values.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    both = np.concatenate([sums, counts], axis=1)
    rows = max(1, _CHUNK_NUMBERS // num_clusters)
    parts = []
    for start in range(0, num_samples, rows):
        size = min(rows, num_samples - start)
        drawn = generator.integers(0, num_clusters, (size, num_clusters))
        drawn += np.arange(size)[:, None] * num_clusters
        weights = np.bincount(drawn.ravel(), minlength=size * num_clusters)
        parts.append(weights.reshape(size, num_clusters).astype(np.float64) @ both)
    totals = np.concatenate(parts)
    measures = values.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[:, :measures] / totals[:, measures:]


def _cluster_sums(values: Values, clusters: NDArray[np.int64]) -> tuple[Values, Values]:
    num_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    counted = ~np.isnan(values)
    sums = np.zeros((num_clusters, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, clusters, np.where(counted, values, 0.0))
    np.add.at(counts, clusters, counted.astype(np.float64))
    return sums, counts


def interval(samples: Values, num_clusters: int, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of bootstrap means, widened for few clusters.

    Plain percentile intervals are too narrow by about sqrt((n-1)/n) and by z against t; the
    percentiles are moved outward by that much (Hesterberg 2015, "expanded percentile").

    Returns:
        Lower and upper bound, or None where too few clusters or no samples count: resampling fewer
        than five images says nothing about other images.
    """
    kept = samples[~np.isnan(samples)]
    if num_clusters < MIN_CLUSTERS or not len(kept):
        return None
    freedom = num_clusters - 1
    outward = math.sqrt(num_clusters / freedom) * student_quantile(0.5 + level / 2, freedom)
    tail = NormalDist().cdf(-outward)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t by the Cornish-Fisher expansion; error < 0.01 from 4 degrees on."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def wilson(hits: int, total: int, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval of one proportion of independent items; None without items."""
    if not total:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = hits / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p-value from the two counts of discordant pairs.

    Under the null hypothesis each discordant pair falls to either side like a fair coin.
    """
    total = only_first + only_second
    if not total:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        for k in range(min(only_first, only_second) + 1)
    ]
    tail = math.fsum(math.exp(log - total * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def paired_permutation(
    differences: Values,
    clusters: NDArray[np.int64],
    num_samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the mean difference, flipping the sign of whole clusters.

    Args:
        differences: (items,) first run minus second run; NaN where an item does not count.
        clusters: (items,) codes.
        num_samples: random flips; all of them where 2^clusters is no more.
        seed: of the flips.
    """
    sums, _ = _cluster_sums(differences.reshape(-1, 1), clusters)
    sums = sums[sums[:, 0] != 0, 0]
    if not len(sums):
        return 1.0
    observed = abs(sums.sum())
    # Equal totals must count as "at least as extreme" whatever the order of summation.
    threshold = observed - 1e-9 * max(1.0, np.abs(sums).sum())
    if 2 ** len(sums) <= num_samples:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= threshold))
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_NUMBERS // len(sums))
    extreme = 0
    for start in range(0, num_samples, rows):
        size = min(rows, num_samples - start)
        signs = generator.integers(0, 2, (size, len(sums)), dtype=np.int8) * 2.0 - 1.0
        extreme += int(np.sum(np.abs(signs @ sums) >= threshold))
    return (extreme + 1) / (num_samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def smallest_difference(standard_error: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided test of this size finds with this power."""
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * standard_error
