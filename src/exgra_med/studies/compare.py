"""Collected cells -> the numbers of a study: curves, paired comparisons, data efficiency."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from exgra_med.evaluation.statistics import holm
from exgra_med.studies.collect import Collected
from exgra_med.studies.plan import Cell, arm_title
from exgra_med.studies.schema import Study
from exgra_med.studies.statistics import (
    Resampling,
    Values,
    detectable,
    mean_over_seeds,
    p_values,
    reached_fraction,
)


def compare_arms(study: Study, collected: Collected) -> dict[str, Any]:
    """Everything that a study concludes from.

    Args:
        study: the study.
        collected: its finished cells.

    Returns:
        JSON-ready: `arms` (curves), `comparisons` (every arm against the baseline at each fraction,
        and overall with fraction None, p-values adjusted by Holm over all of them), `efficiency`.
    """
    if not collected.scores:
        return {"arms": {}, "comparisons": [], "efficiency": None}
    settings = study.evaluation
    grid = _Grid(
        collected.values,
        Resampling(collected.clusters, settings.num_bootstrap_samples, settings.seed),
    )
    arms = list(dict.fromkeys(cell.arm for cell in collected.values))
    comparisons = [
        each for arm in arms if arm != study.baseline for each in grid.against(arm, study.baseline)
    ]
    for each, adjusted in zip(comparisons, holm([one["p"] for one in comparisons]), strict=True):
        each["p_holm"] = adjusted
    return {
        "arms": {arm: {"title": arm_title(study, arm), "points": grid.curve(arm)} for arm in arms},
        "comparisons": comparisons,
        "efficiency": grid.efficiency(arms, study.baseline),
    }


class _Grid:
    """Values by arm, fraction and seed."""

    def __init__(self, values: dict[Cell, Values], resampling: Resampling) -> None:
        self.resampling = resampling
        self.cells: dict[str, dict[float, dict[int, Values]]] = {}
        for cell, own in values.items():
            fractions = self.cells.setdefault(cell.arm, {})
            fractions.setdefault(cell.fraction, {})[cell.seed] = own

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
        rows = [self._row(arm, baseline, [f], seeds[f], f) for f in common]
        everywhere = sorted(set.intersection(*(set(seeds[f]) for f in common))) if common else []
        if len(common) > 1 and everywhere:
            rows.append(self._row(arm, baseline, common, everywhere, None))
        return rows

    def _row(
        self,
        arm: str,
        baseline: str,
        fractions: Sequence[float],
        seeds: Sequence[int],
        fraction: float | None,
    ) -> dict[str, Any]:
        each = [self.stacked(arm, f, seeds) - self.stacked(baseline, f, seeds) for f in fractions]
        differences = np.mean(each, axis=0)
        mean = mean_over_seeds(differences, self.resampling)
        return {
            "arm": arm,
            "baseline": baseline,
            "fraction": fraction,
            "fractions": list(fractions),
            "seeds": list(seeds),
            **asdict(mean),
            **p_values(mean, differences, self.resampling),
            "detectable": detectable(mean),
            # No spread is not certainty: there is nothing that could have varied.
            "same_scores": not np.nan_to_num(each).any(),
        }

    def efficiency(self, arms: Sequence[str], baseline: str) -> dict[str, Any] | None:
        """For every arm the smallest fraction at which it reaches the baseline with most data."""
        if len(self.fractions(baseline)) < 2:
            return None
        largest = self.fractions(baseline)[-1]
        found: dict[str, Any] = {}
        for arm in arms:
            by_fraction = {f: set(self.cells[arm][f]) for f in self.fractions(arm)}
            seeds = sorted(
                set.intersection(set(self.cells[baseline][largest]), *by_fraction.values())
            )
            if not seeds or len(by_fraction) < 2:
                continue
            curve = [(f, self._samples(arm, f, seeds)) for f in by_fraction]
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
        observed = np.mean([100 * np.nanmean(each, axis=0).mean() for each in stacked])
        return np.append(samples, observed)
