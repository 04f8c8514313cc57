"""Two sets of answers to the same questions: how far apart, question by question."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.scorers import MEASURES
from exgra_med.evaluation.statistics import cluster_bootstrap, interval

HEADLINES = {"open_recall": "recall", "closed_accuracy": "closed_accuracy"}
_COLUMNS = [MEASURES.index(name) for name in HEADLINES.values()]


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    clusters: NDArray[np.int64],
    num_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """First minus second, in percentage points, under resampling of images common to both.

    Args:
        first: (questions, measures) values of one set of answers.
        second: the same questions, the other answers.
        clusters: (questions,) image codes.
        num_samples: resamples of the paired bootstrap.
        seed: of the resamples.

    Returns:
        `average, open_recall, closed_accuracy` and their `intervals`; None where nothing counts.
    """
    differences = (first - second)[:, _COLUMNS]
    counts = (~np.isnan(differences)).sum(axis=0)
    samples = 100 * cluster_bootstrap(differences, clusters, num_samples, seed)
    result: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for column, name in enumerate(HEADLINES):
        counted = ~np.isnan(differences[:, column])
        mean = 100 * float(differences[counted, column].mean()) if counts[column] else None
        result[name] = mean
        intervals[name] = _bounds(samples[:, column], clusters[counted])
    both = counts.all()
    result["average"] = float(sum(result[name] for name in HEADLINES) / 2) if both else None
    intervals["average"] = _bounds(samples.mean(axis=1), clusters) if both else None
    return result | {"intervals": intervals}


def _bounds(samples: NDArray[np.float64], clusters: NDArray[np.int64]) -> list[float] | None:
    bounds = interval(samples, len(np.unique(clusters)))
    return list(bounds) if bounds else None
