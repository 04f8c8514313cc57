"""Intervals and tests for scores on questions that share images.

Questions about one image are not independent, so resampling draws images, not questions. All
randomness comes from an explicit seed.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from scipy.stats import beta, binomtest

from exgra_med.data.records import linked_images
from exgra_med.errors import ScoreError

# The first functions refuse numbers that would give a wrong answer without a word.


def as_table(values: ArrayLike, name: str = "values") -> NDArray[np.float64]:
    """Numbers as (items, measures).

    Raises:
        ScoreError: not numbers, no item, more than two dimensions, or an infinite number.
    """
    table = _numbers(values, name)
    if table.ndim not in (1, 2) or not table.size:
        raise ScoreError(
            f"{name} has the shape {table.shape}, and (items,) or (items, measures) is needed.",
            "Give at least one item.",
        )
    if np.isinf(table).any():
        raise ScoreError(f"{name} holds an infinite number.", "NaN says that an item is left out.")
    return table.reshape(len(table), -1)


def as_column(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Numbers of one measure as (items,); there may be none.

    Raises:
        ScoreError: not numbers, or several measures.
    """
    table = _numbers(values, name)
    if table.ndim == 1 or (table.ndim == 2 and table.shape[1] == 1):
        return table.reshape(-1)
    raise ScoreError(
        f"{name} has the shape {table.shape}, and one measure is needed.",
        f"Give a column of it, such as {name}[:, 0].",
    )


def as_codes(clusters: ArrayLike, num_items: int) -> NDArray[np.int64]:
    """Codes of the clusters of so many items.

    Raises:
        ScoreError: not whole numbers from 0 without a gap, or not one an item.
    """
    codes = np.asarray(clusters)
    if codes.shape != (num_items,):
        raise ScoreError(f"There are {num_items} items, and clusters has the shape {codes.shape}.")
    whole = np.issubdtype(codes.dtype, np.integer)
    # A gap would be drawn as a cluster without items.
    if not whole or codes.min() < 0 or len(np.unique(codes)) != int(codes.max()) + 1:
        raise ScoreError(
            "clusters are not whole numbers from 0 on without a gap.",
            "Make them from names with `cluster_codes`.",
        )
    return codes.astype(np.int64, copy=False)


def check_share(value: float, name: str) -> None:
    """Refuse a level or power that is no share.

    Raises:
        ScoreError: not between 0 and 1.
    """
    if not _is_number(value) or not 0 < value < 1:
        raise ScoreError(
            f"{name}={value!r} is not between 0 and 1.", "95 per cent is written 0.95."
        )


def check_count(value: Any, name: str, least: int = 0) -> None:
    """Refuse what is no number of things.

    Raises:
        ScoreError: not a whole number, or fewer than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ScoreError(f"{name}={value!r} is not a whole number of {least} or more.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"{name} is not an array of numbers.") from error


Values = NDArray[np.float64]

MIN_CLUSTERS = 5
"""Fewer clusters give no interval."""
MANY_CLUSTERS = 5000
NUM_SAMPLES_OF_MANY = 400
"""With so many clusters the interval hardly moves with the number of resamples."""

# Resamples held in memory at once: rows x clusters, in numbers.
_CHUNK_NUMBERS = 8_000_000


def cluster_codes(clusters: Iterable[str]) -> NDArray[np.int64]:
    """Number the clusters in order of first appearance, so that a seed fixes the resamples.

    Args:
        clusters: names of the images of each item, one a line. Items that share an image, directly
            or through others, are one cluster: their values are not independent.

    >>> from exgra_med.evaluation.statistics import cluster_codes
    >>> cluster_codes(["before.png\\nafter.png", "other.png", "after.png"]).tolist()
    [0, 1, 0]
    """
    # Of names that come again, which is most of them, one is kept and linked.
    different: dict[str, int] = {}
    rows = np.fromiter((different.setdefault(each, len(different)) for each in clusters), np.int64)
    numbers: dict[str, int] = {}
    roots = linked_images(each.split("\n") for each in different)
    return np.array([numbers.setdefault(each, len(numbers)) for each in roots], np.int64)[rows]


def renumbered(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes of some items as `cluster_codes` would number them: from 0, by first appearance."""
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]


def rows_by(names: Iterable[str]) -> dict[str, list[int]]:
    """Name -> the rows that have it, in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows


def scored(
    value: float | None, count: int | None = None, bounds: tuple[float, float] | None = None
) -> dict[str, Any]:
    """A score as `results.json` has it."""
    return {"value": value, "interval": list(bounds) if bounds else None, "count": count}


def scored_share(
    value: float | None, count: int | None = None, bounds: tuple[float, float] | None = None
) -> dict[str, Any]:
    """The same of a share from 0 to 1, in percent."""
    if bounds is not None:
        bounds = 100 * bounds[0], 100 * bounds[1]
    return scored(None if value is None else 100 * value, count, bounds)


def cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, num_samples: int = 2000, seed: int = 0
) -> Values:
    """Means under resampling of whole clusters with replacement.

    Args:
        values: (items,) or (items, measures); NaN where an item does not count for a measure.
        clusters: (items,) codes from 0, see `cluster_codes`.
        num_samples: resamples; 0 gives an empty array, of which `interval` is None.
        seed: of the resamples.

    Returns:
        (num_samples, measures) means; NaN where a resample has no item that counts.

    Raises:
        ScoreError: no items, codes that are not those of the items, a negative number of resamples.
    """
    table = as_table(values)
    check_count(num_samples, "num_samples")
    sums, counts = _cluster_sums(table, as_codes(clusters, len(table)))
    num_clusters, measures = sums.shape
    generator = np.random.default_rng(seed)
    both = np.concatenate([sums, counts], axis=1)
    rows = max(1, _CHUNK_NUMBERS // num_clusters)
    parts = [np.empty((0, 2 * measures))]
    for start in range(0, num_samples, rows):
        size = min(rows, num_samples - start)
        drawn = generator.integers(0, num_clusters, (size, num_clusters))
        drawn += np.arange(size)[:, None] * num_clusters
        weights = np.bincount(drawn.ravel(), minlength=size * num_clusters)
        parts.append(weights.reshape(size, num_clusters).astype(np.float64) @ both)
    totals = np.concatenate(parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[:, :measures] / totals[:, measures:]


def scores_of(
    values: Values,
    names: Sequence[str],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
    ratios: Collection[str] = (),
) -> dict[str, Any]:
    """Name -> the mean in percent of a column of (items, names); a row of NaN does not count.

    Values lie between 0 and 1. `ratios` names those that may be larger: where all images have the
    same ratio nothing bounds the others, and there is no interval.
    """
    counted = ~np.isnan(values[:, 0])
    _, codes = np.unique(clusters, return_inverse=True)
    samples = cluster_bootstrap(values, codes, num_samples, seed)
    num_clusters = len(np.unique(codes[counted]))
    scores = {}
    for column, name in enumerate(names):
        value = float(values[counted, column].mean()) if counted.any() else None
        if name in ratios:
            bounds = interval(samples[:, column], num_clusters)
            if bounds is not None and bounds[1] - bounds[0] < _EVEN:
                bounds = None
        else:
            bounds = mean_interval(samples[:, [column]], [value], [num_clusters])
        if value is not None and bounds is not None:
            bounds = 100 * bounds[0], 100 * bounds[1]
        scores[name] = scored(None if value is None else 100 * value, int(counted.sum()), bounds)
    return scores


def mean_interval(
    samples: Values,
    values: Sequence[float | None],
    num_clusters: Sequence[int],
    total_clusters: int | None = None,
) -> tuple[float, float] | None:
    """95 % interval of the plain mean of measures that lie between 0 and 1.

    It is that of the resamples (see `interval`), unless a measure is so near to 0 or 1 that they
    cannot show how far it may be from there: that one gets the exact bounds of `_near_an_end`, and
    bounds of a mean are put together from the distances of its parts' bounds, root of the sum of
    squares (Zou and Donner 2008). It never leaves out what the resamples of the mean reach.

    Args:
        samples: (resamples, measures), of `cluster_bootstrap`.
        values: the measures.
        num_clusters: images that count for each measure.
        total_clusters: images that count for any; the first measure's where absent.
    """
    whole = num_clusters[0] if total_clusters is None else total_clusters
    bounds = interval(samples.mean(axis=1), whole)
    if bounds is None:
        return None
    parts = list(zip(samples.T, values, num_clusters, strict=True))
    exact = [_near_an_end(*part) for part in parts]
    if not any(exact):
        return bounds
    distances = np.zeros(2)
    for (column, value, count), found in zip(parts, exact, strict=True):
        own = found or interval(column, count)
        if own is None or value is None:
            return None
        distances += (value - own[0]) ** 2, (own[1] - value) ** 2
    middle = sum(value for value in values if value is not None) / len(values)
    below, above = np.sqrt(distances) / len(values)
    # The distances know nothing of parts that rise and fall together; the resamples do.
    low, high = min(bounds[0], middle - float(below)), max(bounds[1], middle + float(above))
    return max(0.0, low), min(1.0, high)


FEWEST_HITS = 5
"""With fewer hits or misses of independent questions, resamples say too little about a share."""


def _near_an_end(
    samples: Values, value: float | None, num_clusters: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Bounds of a mean that is 0 or 1, or near to it; None elsewhere, and without an interval.

    Resamples of a few hits hold those hits alone. The exact binomial interval (Clopper and Pearson
    1934) knows better, but takes questions as independent. It is therefore taken of as many
    independent questions as have the variance of the resamples, value (1 - value) / variance (Korn
    and Graubard 1998), and never leaves out what the resamples reach. Without any spread there is
    no variance, and each image counts as one question.
    """
    known = interval(samples, num_clusters, level)
    if known is None or value is None:
        return None
    if np.nanmax(samples) - np.nanmin(samples) < _EVEN:
        return without_spread(value, num_clusters, level)
    variance = float(np.nanvar(samples)) * num_clusters / (num_clusters - 1)
    number = value * (1 - value) / variance
    hits, misses = value * number, (1 - value) * number
    if not 0 < value < 1 or min(hits, misses) >= FEWEST_HITS:
        return None
    tail = (1 - level) / 2
    low, high = beta.ppf(tail, hits, misses + 1), beta.ppf(1 - tail, hits + 1, misses)
    return min(known[0], float(low)), max(known[1], float(high))


def _cluster_sums(values: Values, clusters: NDArray[np.int64]) -> tuple[Values, Values]:
    num_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    counted = ~np.isnan(values)
    sums = np.zeros((num_clusters, values.shape[1]))
    counts = np.zeros_like(sums)
    # One column after the other: copies of all of them would be the most that scoring holds.
    for column, (value, counts_here) in enumerate(zip(values.T, counted.T, strict=True)):
        sums[:, column] = np.bincount(clusters, np.where(counts_here, value, 0.0), num_clusters)
        counts[:, column] = np.bincount(clusters, counts_here, num_clusters)
    return sums, counts


def interval(
    samples: ArrayLike, num_clusters: int | ArrayLike, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of bootstrap means, widened for few clusters.

    Plain percentile intervals are too narrow by about sqrt((n-1)/n) and by z against t; the
    percentiles are moved outward by that much (Hesterberg 2015, "expanded percentile").

    Args:
        samples: (num_samples,) means of one measure, a column of `cluster_bootstrap`.
        num_clusters: clusters with an item that counts for the measure, or the codes of those
            items, which are counted here.
        level: share of intervals that hold the true mean.

    Returns:
        Lower and upper bound, or None where too few clusters or no samples count: resampling fewer
        than five images says nothing about other images.

    Raises:
        ScoreError: several measures at once, a level that is no share, a negative number.
    """
    column = as_column(samples, "samples")
    check_share(level, "level")
    count: Any = num_clusters if np.ndim(num_clusters) == 0 else len(np.unique(num_clusters))
    check_count(count, "num_clusters")
    kept = column[~np.isnan(column)]
    if count < MIN_CLUSTERS or not len(kept):
        return None
    freedom = count - 1
    outward = math.sqrt(count / freedom) * float(stdtrit(freedom, 0.5 + level / 2))
    tail = NormalDist().cdf(-outward)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def wilson(hits: int, total: int, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval of one proportion of independent items; None without items.

    Args:
        hits: items that count.
        total: all items.
        level: share of intervals that hold the true proportion.

    Raises:
        ScoreError: a negative count, more hits than items, a level that is no share.
    """
    check_count(hits, "hits")
    check_count(total, "total")
    if hits > total:
        raise ScoreError(f"hits={hits} is more than total={total}.")
    check_share(level, "level")
    if not total:
        return None
    bounds = binomtest(hits, total).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p-value from the two counts of discordant pairs.

    Under the null hypothesis each discordant pair falls to either side like a fair coin.

    Raises:
        ScoreError: a negative count.
    """
    check_count(only_first, "only_first")
    check_count(only_second, "only_second")
    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def paired_permutation(
    differences: ArrayLike, clusters: ArrayLike, num_samples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of the mean difference, flipping the sign of whole clusters.

    Args:
        differences: (items,) first run minus second run; NaN where an item does not count.
        clusters: (items,) codes.
        num_samples: random flips; all of them where 2^clusters is no more.
        seed: of the flips.

    Raises:
        ScoreError: no items, several measures at once, codes that are not those of the items, no
            flips.
    """
    column = as_table(as_column(differences, "differences"), "differences")
    check_count(num_samples, "num_samples", least=1)
    sums, _ = _cluster_sums(column, as_codes(clusters, len(column)))
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


def without_spread(
    value: float, num_clusters: int, level: float = 0.95, lowest: float = 0.0, highest: float = 1.0
) -> tuple[float, float]:
    """Bounds of a mean where all clusters have the same value, so that resampling shows no spread.

    Of n clusters none had another value. The exact binomial interval (Clopper and Pearson 1934)
    of "0 of n" says how many others there may be: up to U = 1 - (alpha / 2)^(1 / n). Those may lie
    anywhere between `lowest` and `highest`. For a proportion of 0 this is 0 to U.

    Raises:
        ScoreError: no cluster, or a level that is no share.

    >>> from exgra_med.evaluation.statistics import without_spread
    >>> [round(each, 3) for each in without_spread(0.0, 8)]
    [0.0, 0.369]
    """
    check_count(num_clusters, "num_clusters", least=1)
    check_share(level, "level")
    others = float(binomtest(0, num_clusters).proportion_ci(level, method="exact").high)
    return value - others * (value - lowest), value + others * (highest - value)


_EVEN = 1e-9
"""Differences below this are rounding."""


@dataclass(frozen=True, eq=False)
class PairedTest:
    """A paired difference, its test, and the interval of all differences that the test leaves.

    One rule for both: `interval(level)` holds 0 exactly where `p` is at least 1 - level.
    """

    value: float
    """The difference."""
    p: float
    """Two-sided p-value of no difference."""
    num_clusters: int
    """Clusters with an item that counts."""
    error: float
    """Standard error of the difference."""
    lows: Values
    """For each flip of signs, sorted: the smallest difference that it does not speak against."""
    highs: Values
    """The largest, likewise."""

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Bounds between -1 and 1; None below five clusters, as for `interval`.

        Raises:
            ScoreError: a level that is no share.
        """
        check_share(level, "level")
        if self.num_clusters < MIN_CLUSTERS:
            return None
        if self._is_even:
            return without_spread(self.value, self.num_clusters, level, -1.0, 1.0)
        wanted = max(1, math.ceil((1 - level) * len(self.lows) - _EVEN))
        return max(-1.0, float(self.lows[wanted - 1])), min(1.0, float(self.highs[-wanted]))

    @property
    def _is_even(self) -> bool:
        """Whether all clusters have the same difference."""
        return not self.error


def paired_tests(
    contributions: ArrayLike,
    weights: ArrayLike,
    clusters: ArrayLike,
    num_samples: int = 10_000,
    seed: int = 0,
) -> list[PairedTest]:
    """Sign-flip tests of weighted mean differences, flipping whole clusters.

    A difference delta is put to the test by taking it off every item. A flip is at least as
    extreme as what was seen exactly where delta lies between the weighted mean of the flipped
    clusters and that of the others (Hartigan 1969), so that one set of flips gives the p-value and
    the bounds at every level. Where all clusters have the same difference, flips cannot tell how
    sure it is, and `without_spread` gives both.

    Args:
        contributions: (items, measures) what each item adds to a difference, weight times its own.
        weights: (items, measures) of the items; each column sums to 1, 0 where one does not count.
        clusters: (items,) codes, see `cluster_codes`.
        num_samples: random flips; all of them where 2^clusters is no more.
        seed: of the flips.

    Raises:
        ScoreError: no items, codes that are not those of the items, no flips.
    """
    parts, shares = as_table(contributions), as_table(weights, "weights")
    check_count(num_samples, "num_samples", least=1)
    codes = as_codes(clusters, len(parts))
    sums = _cluster_sums(np.concatenate([parts, shares], axis=1), codes)[0]
    num_clusters, num = len(sums), parts.shape[1]
    flipped = np.concatenate(list(_flips(sums, num_samples, seed)))
    seen = sums[:, :num].sum(axis=0)
    tests = []
    for column in range(num):
        given, share = sums[:, column], sums[:, num + column]
        counted = share > 0
        count, value = int(counted.sum()), float(seen[column])
        away = given - value * share
        if not count or np.abs(away).max() < _EVEN / num_clusters:
            # 2 (1 + |value|)^-n is the level at which the bounds of `without_spread` reach 0.
            p = min(1.0, 2 * (1 + abs(value)) ** -count) if abs(value) > _EVEN else 1.0
            tests.append(PairedTest(value, p, count, 0.0, np.empty(0), np.empty(0)))
            continue
        error = math.sqrt(float((away**2).sum()) * count / max(1, count - 1))
        bounds = _typical_values(value, flipped[:, column], flipped[:, num + column])
        p = float(np.mean((bounds[0] <= _EVEN) & (bounds[1] >= -_EVEN)))
        lows, highs = (np.sort(np.where(np.abs(each) < _EVEN, 0.0, each)) for each in bounds)
        tests.append(PairedTest(value, p, count, error, lows, highs))
    return tests


def _flips(sums: Values, num_samples: int, seed: int) -> Iterator[Values]:
    """Totals under flipped signs of the clusters: all flips, or random ones and the unflipped."""
    num_clusters = len(sums)
    if 2**num_clusters <= num_samples:
        patterns = np.arange(2**num_clusters)[:, None] >> np.arange(num_clusters) & 1
        yield (2 * patterns - 1) @ sums
        return
    yield sums.sum(axis=0)[None]
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_NUMBERS // num_clusters)
    for start in range(0, num_samples, rows):
        shape = (min(rows, num_samples - start), num_clusters)
        yield (generator.integers(0, 2, shape, dtype=np.int8) * 2.0 - 1.0) @ sums


def _typical_values(value: float, totals: Values, shares: Values) -> tuple[Values, Values]:
    """For each flip the weighted means of the two halves, the smaller and the larger one; a flip
    that leaves a half without weight speaks against no difference at all."""
    halves = []
    for sign in (1.0, -1.0):
        weight = 1.0 + sign * shares
        with np.errstate(invalid="ignore", divide="ignore"):
            halves.append(np.where(weight > _EVEN, (value + sign * totals) / weight, np.nan))
    whole = np.isnan(halves[0]) | np.isnan(halves[1])
    low = np.where(whole, -np.inf, np.fmin(*halves))
    return low, np.where(whole, np.inf, np.fmax(*halves))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the order given.

    Raises:
        ScoreError: one is not between 0 and 1.
    """
    for value in p_values:
        if not _is_number(value) or not 0 <= value <= 1:
            raise ScoreError(f"{value!r} is no p-value: those lie between 0 and 1.")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def smallest_difference(standard_error: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided test of this size finds with this power.

    Args:
        standard_error: of the difference.
        level: one minus the size of the test.
        power: chance to find it.

    Raises:
        ScoreError: a negative error, or a level or power that is no share.
    """
    if not _is_number(standard_error) or not 0 <= standard_error < math.inf:
        raise ScoreError(f"standard_error={standard_error!r} is not a number of 0 or more.")
    check_share(level, "level")
    check_share(power, "power")
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * standard_error
