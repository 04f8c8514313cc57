"""Collected cells -> the numbers of a study: curves, paired comparisons, data efficiency."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from exgra_med.evaluation.statistics import (
    MIN_CLUSTERS,
    cluster_bootstrap,
    holm,
    paired_permutation,
    without_spread,
)
from exgra_med.lab.studies.collect import Collected
from exgra_med.lab.studies.plan import Cell, arm_title
from exgra_med.lab.studies.schema import Study

# Means over seeds, with intervals and tests that know of images and of seeds.
#
# A score varies because other images could have been asked, and because another seed trains another
# model. Both are resampled together: images with replacement, the same for all that is compared,
# and seeds with replacement (the "pigeonhole" bootstrap of crossed data, Owen 2007, which errs on
# the wide side). Resampled seeds vary too little by (S - 1) / S, so their deviation is stretched by
# the root of the inverse; and as S is small, bounds are stretched from the normal distribution to
# Student's, with degrees of freedom after Welch and Satterthwaite.
#
# Shapes: S seeds, Q questions, M parts of the metric, B resamples.


Values = NDArray[np.float64]
LEVEL = 0.05
POWER = 0.8
_NUM_FLIPS = 10_000


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, in percent or points."""

    value: float
    each: list[float]
    """Every seed."""
    interval: tuple[float, float] | None
    """95 %; None where there are too few images."""
    standard_error: float
    freedom: float
    """Degrees of freedom of the error."""
    seeds_counted: bool
    """Whether the interval covers seeds; with one seed it covers images only."""


@dataclass(frozen=True)
class Resampling:
    """Which images and seeds each resample has, common to all that is compared."""

    clusters: NDArray[np.int64]
    num_samples: int
    seed: int

    def means(self, values_SQM: Values) -> Values:
        """The metric under resampled images, for every seed: (B, S), in percent."""
        num_seeds, num_questions, num_parts = values_SQM.shape
        flat = values_SQM.transpose(1, 0, 2).reshape(num_questions, num_seeds * num_parts)
        samples = cluster_bootstrap(flat, self.clusters, self.num_samples, self.seed)
        return 100 * samples.reshape(self.num_samples, num_seeds, num_parts).mean(axis=2)

    def draw_seeds(self, samples_BS: Values) -> Values:
        """Means over resampled seeds, (B,), their spread stretched to what it should be."""
        num_seeds = samples_BS.shape[1]
        middle = samples_BS.mean(axis=1)
        if num_seeds == 1:
            return middle
        generator = np.random.default_rng([self.seed, 1])
        drawn = generator.integers(0, num_seeds, (self.num_samples, num_seeds))
        away = np.take_along_axis(samples_BS, drawn, axis=1).mean(axis=1) - middle
        return middle + math.sqrt(num_seeds / (num_seeds - 1)) * away


def metric(values_SQM: Values) -> list[float]:
    """The metric of every seed, in percent: mean over the parts of the mean over questions."""
    return [float(100 * np.nanmean(each, axis=0).mean()) for each in values_SQM]


def mean_over_seeds(values_SQM: Values, resampling: Resampling, lowest: float = 0.0) -> Mean:
    """Mean of a score, or of a difference, over seeds.

    Args:
        values_SQM: per-question values from 0 to 1 (differences: -1 to 1), NaN where a question
            does not count.
        lowest: the lowest value there may be; -1 for a difference.
    """
    each = metric(values_SQM)
    samples_BS = resampling.means(values_SQM)
    by_images = samples_BS.mean(axis=1)
    by_both = resampling.draw_seeds(samples_BS)
    kept = by_both[~np.isnan(by_both)]
    num_images = int(resampling.clusters.max()) + 1
    from_images = float(np.nanvar(by_images)) * num_images / max(1, num_images - 1)
    from_seeds = float(np.var(each, ddof=1)) / len(each) if len(each) > 1 else 0.0
    freedom = _freedom((from_images, num_images - 1), (from_seeds, len(each) - 1))
    value = float(np.mean(each))
    error = math.sqrt(from_images + from_seeds)
    bounds = None
    if num_images >= MIN_CLUSTERS and len(kept) and error == 0:
        low, high = without_spread(value / 100, num_images, 1 - LEVEL, lowest)
        bounds = (100 * low, 100 * high)
    elif num_images >= MIN_CLUSTERS and len(kept):
        tail = LEVEL / 2
        stretch = float(stdtrit(freedom, 1 - tail)) / NormalDist().inv_cdf(1 - tail)
        stretch *= math.sqrt(num_images / (num_images - 1))
        low, high = (
            value + stretch * (edge - value) for edge in np.quantile(kept, [tail, 1 - tail])
        )
        bounds = (float(low), float(high))
    return Mean(value, each, bounds, error, freedom, len(each) > 1)


def p_values(difference: Mean, values_SQM: Values, resampling: Resampling) -> dict[str, float]:
    """p-values of a paired difference.

    Returns:
        `p_images`: the two methods swapped image by image (permutation), for these very models;
        `p`: of the difference over its error from images and seeds (Student), so for other seeds
        too, and never less than `p_images`, which assumes no distribution. With one seed there is
        no error of seeds to be had, and `p` is `p_images`.
    """
    num_parts = values_SQM.shape[2]
    middle_QM = values_SQM.mean(axis=0)
    counts = (~np.isnan(middle_QM)).sum(axis=0)
    contributions = np.nansum(middle_QM / (counts * num_parts), axis=1)
    images = paired_permutation(contributions, resampling.clusters, _NUM_FLIPS, resampling.seed)
    if not difference.seeds_counted or difference.standard_error == 0:
        return {"p": images, "p_images": images}
    size = abs(difference.value) / difference.standard_error
    both = 2 * float(stdtr(difference.freedom, -size))
    return {"p": max(both, images), "p_images": images}


def detectable(difference: Mean) -> float:
    """The smallest true difference, in points, that a study like this one finds four times in
    five, before any correction for several tests."""
    quantiles = [float(stdtrit(difference.freedom, p)) for p in (1 - LEVEL / 2, POWER)]
    return sum(quantiles) * difference.standard_error


def _freedom(images: tuple[float, int], seeds: tuple[float, int]) -> float:
    """Degrees of freedom of a sum of two variances, each with its own."""
    total = images[0] + seeds[0]
    if total == 0:
        return float(images[1])
    weights = sum(variance**2 / freedom for variance, freedom in (images, seeds) if freedom > 0)
    return total**2 / weights if weights else float(images[1])


def reached_fraction(
    curve: Sequence[tuple[float, Values]], goal: Values
) -> tuple[float | None, list[float | None], float]:
    """The smallest fraction at which a curve reaches a goal, with its interval.

    Args:
        curve: fraction and resampled means (B,), by rising fraction; the last entry of each array
            is the observed one.
        goal: resampled means of the goal, likewise.

    Returns:
        The observed fraction or None where it is not reached; bounds of the 95 % interval over
        resamples, None for "not reached"; and the share of resamples that reach it.
    """
    reached = np.full(len(goal), np.inf)
    for fraction, samples in reversed(curve):
        reached = np.where(samples >= goal, fraction, reached)
    own, resampled = reached[-1], np.sort(reached[:-1])
    last = len(resampled) - 1
    edges = [resampled[math.floor(LEVEL / 2 * last)], resampled[math.ceil((1 - LEVEL / 2) * last)]]
    bounds = [float(edge) if np.isfinite(edge) else None for edge in edges]
    share = float(np.isfinite(resampled).mean())
    return (float(own) if np.isfinite(own) else None), bounds, share


def compare_arms(study: Study, collected: Collected) -> dict[str, Any]:
    """Everything that a study concludes from, ready for JSON: `arms` (curves), `comparisons` (every
    arm against the baseline at each fraction, and overall with fraction None, p-values adjusted
    by Holm over all of them), `efficiency`, and `rise`: what the baseline gains from its least data
    to its most, None with one fraction.
    """
    if not collected.values:
        return {"arms": {}, "comparisons": [], "efficiency": None, "rise": None}
    grid = _grid(study, collected)
    arms = list(grid.cells)
    comparisons = [
        each for arm in arms if arm != study.baseline for each in grid.against(arm, study.baseline)
    ]
    adjust(comparisons)
    return {
        "arms": arm_curves(study, collected),
        "comparisons": comparisons,
        "efficiency": grid.efficiency(arms, study.baseline),
        "rise": grid.rise(study.baseline),
    }


def arm_curves(study: Study, collected: Collected) -> dict[str, Any]:
    """Arm -> `title` and `points`: the mean over seeds at each fraction. Nothing is compared."""
    grid = _grid(study, collected)
    return {arm: {"title": arm_title(study, arm), "points": grid.curve(arm)} for arm in grid.cells}


def _grid(study: Study, collected: Collected) -> "_Grid":
    settings = study.evaluation
    resampling = Resampling(collected.clusters, settings.num_bootstrap_samples, settings.seed)
    return _Grid(collected.values, resampling)


def adjust(comparisons: Sequence[dict[str, Any]]) -> None:
    """Give comparisons `p_holm`, their p-values adjusted by Holm over all of them."""
    for each, adjusted in zip(comparisons, holm([one["p"] for one in comparisons]), strict=True):
        each["p_holm"] = adjusted


TOLD_APART = (
    f"Two methods are told apart where p, adjusted by Holm, is below {LEVEL} and the 95 % interval "
    "leaves 0 out."
)


def told_apart(row: Mapping[str, Any]) -> bool:
    """Whether the two methods of a comparison are told apart, by the rule `TOLD_APART`."""
    bounds = row["interval"]
    holds_0 = bounds is not None and bounds[0] <= 0 <= bounds[1]
    return row["p_holm"] < LEVEL and not holds_0 and not row.get("same_scores")


class _Grid:
    """Values by arm, fraction and seed."""

    def __init__(self, values: dict[Cell, Values], resampling: Resampling) -> None:
        self.resampling = resampling
        self.cells: dict[str, dict[float, dict[int, Values]]] = {}
        for cell, own in values.items():
            self.cells.setdefault(cell.arm, {}).setdefault(cell.fraction, {})[cell.seed] = own

    def fractions(self, arm: str) -> list[float]:
        return sorted(self.cells.get(arm, {}))

    def stacked(self, arm: str, fraction: float, seeds: Sequence[int]) -> Values:
        return np.stack([self.cells[arm][fraction][seed] for seed in seeds])

    def curve(self, arm: str) -> list[dict[str, Any]]:
        points = []
        for fraction in self.fractions(arm):
            seeds = sorted(self.cells[arm][fraction])
            mean = mean_over_seeds(self.stacked(arm, fraction, seeds), self.resampling)
            points.append({"fraction": fraction, "seeds": seeds} | asdict(mean))
        return points

    def against(self, arm: str, baseline: str) -> list[dict[str, Any]]:
        """Arm minus baseline at every common fraction, then over all of these together."""
        common = [f for f in self.fractions(arm) if f in self.fractions(baseline)]
        seeds = {f: sorted(set(self.cells[arm][f]) & set(self.cells[baseline][f])) for f in common}
        common = [f for f in common if seeds[f]]
        rows = [self._row(arm, baseline, [f], seeds[f]) for f in common]
        everywhere = sorted(set.intersection(*(set(seeds[f]) for f in common))) if common else []
        if len(common) > 1 and everywhere:
            rows.append(self._row(arm, baseline, common, everywhere))
        return rows

    def _row(
        self, arm: str, baseline: str, fractions: Sequence[float], seeds: Sequence[int]
    ) -> dict[str, Any]:
        each = [self.stacked(arm, f, seeds) - self.stacked(baseline, f, seeds) for f in fractions]
        differences = np.mean(each, axis=0)
        mean = mean_over_seeds(differences, self.resampling, -1.0)
        return {
            "arm": arm,
            "baseline": baseline,
            "fraction": fractions[0] if len(fractions) == 1 else None,
            "fractions": fractions,
            "seeds": seeds,
            **asdict(mean),
            **p_values(mean, differences, self.resampling),
            "detectable": detectable(mean),
            # No spread is not certainty: there is nothing that could have varied.
            "same_scores": not np.nan_to_num(each).any(),
        }

    def rise(self, arm: str) -> dict[str, Any] | None:
        """An arm with its most data minus the same arm with its least, in pairs of equal seed and
        question: without a gain here nothing can be said of data that a method saves."""
        fractions = self.fractions(arm)
        if len(fractions) < 2:
            return None
        least, most = fractions[0], fractions[-1]
        seeds = sorted(set(self.cells[arm][least]) & set(self.cells[arm][most]))
        if not seeds:
            return None
        differences = self.stacked(arm, most, seeds) - self.stacked(arm, least, seeds)
        mean = mean_over_seeds(differences, self.resampling, -1.0)
        return {
            "arm": arm,
            "fractions": [least, most],
            "seeds": seeds,
            **asdict(mean),
            **p_values(mean, differences, self.resampling),
            "detectable": detectable(mean),
        }

    def efficiency(self, arms: Sequence[str], baseline: str) -> dict[str, Any] | None:
        """For every arm the smallest fraction at which it reaches the baseline with most data."""
        if len(self.fractions(baseline)) < 2:
            return None
        largest = self.fractions(baseline)[-1]
        found: dict[str, Any] = {}
        for arm in arms:
            fractions = self.fractions(arm)
            each = (self.cells[arm][f] for f in fractions)
            seeds = sorted(set(self.cells[baseline][largest]).intersection(*each))
            if not seeds or len(fractions) < 2:
                continue
            curve = [(f, self._samples(arm, f, seeds)) for f in fractions]
            goal = self._samples(baseline, largest, seeds)
            fraction, bounds, share = reached_fraction(curve, goal)
            reaching = np.empty(0) if fraction is None else dict(curve)[fraction]
            found[arm] = {
                "fraction": fraction,
                "interval": bounds,
                "share_of_resamples": share,
                "seeds": seeds,
                # Reached by having the goal's very scores in every resample, not by beating it.
                "same_scores": np.array_equal(reaching, goal, equal_nan=True),
            }
        return {"baseline": baseline, "goal_fraction": largest, "arms": found}

    def _samples(self, arm: str, fraction: float, seeds: Sequence[int]) -> Values:
        """Resampled means, the observed one last."""
        stacked = self.stacked(arm, fraction, seeds)
        samples = self.resampling.draw_seeds(self.resampling.means(stacked))
        return np.append(samples, float(np.mean(metric(stacked))))
