"""The same scores per modality, organ and question type, and for answers seen in training."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.normalise import words
from exgra_med.evaluation.pairing import Pairing
from exgra_med.evaluation.questions import Question
from exgra_med.evaluation.scorers import MEASURES
from exgra_med.evaluation.statistics import cluster_bootstrap, interval

# Our name of a grouping -> the fields of a record's `meta` that can hold it.
_FIELDS = {
    "modality": ("modality", "modality_type"),
    "organ": ("organ", "image_organ", "location"),
    "question_type": ("question_type", "content_type"),
    "language": ("language", "q_lang"),
}
_MAX_GROUPS = 40
_NUM_SAMPLES = 1000
# With thousands of images the interval hardly moves with the number of resamples.
_NUM_SAMPLES_OF_MANY = 400
_MANY_CLUSTERS = 5000
_COLUMNS = [MEASURES.index(name) for name in ("recall", "closed_accuracy")]


def breakdown(
    pairing: Pairing,
    values: NDArray[np.float64],
    clusters: NDArray[np.int64],
    train_answers: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Open recall and closed accuracy of every group that a record's `meta` tells.

    Args:
        pairing: the questions.
        values: (questions, measures) from the scorer.
        clusters: (questions,) image codes.
        train_answers: answers of the training questions; adds the grouping `answer_in_training`.
        seed: of the resamples.

    Returns:
        Grouping -> group -> `num_open, num_closed, recall, closed_accuracy` in percent and their
        intervals. Groupings with one group, or too many to read, are left out.
    """
    groupings: dict[str, Callable[[Question], str | None]] = {
        name: partial(group_of, grouping=name) for name in _FIELDS
    }
    if train_answers is not None:
        seen = {words(answer) for answer in train_answers}
        groupings["answer_in_training"] = lambda question: (
            "seen" if words(question.answer) in seen else "unseen"
        )
    result: dict[str, dict[str, Any]] = {}
    for name, find in groupings.items():
        members: dict[str, list[int]] = {}
        for row, question in enumerate(pairing.questions):
            members.setdefault(find(question) or "unknown", []).append(row)
        if 1 < len(members) <= _MAX_GROUPS:
            result[name] = {
                group: _group(values[rows][:, _COLUMNS], clusters[rows], seed)
                for group, rows in sorted(members.items())
            }
    return result


def group_of(question: Question, grouping: str) -> str | None:
    """The group of a question, as its `meta` tells; None where it does not.

    Args:
        question: with the fields of its record.
        grouping: `modality`, `organ`, `question_type` or `language`.
    """
    for field in _FIELDS[grouping]:
        value = question.meta.get(field)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _group(values: NDArray[np.float64], clusters: NDArray[np.int64], seed: int) -> dict[str, Any]:
    _, codes = np.unique(clusters, return_inverse=True)
    counted = ~np.isnan(values)
    many = len(values) and codes.max() >= _MANY_CLUSTERS
    num_samples = _NUM_SAMPLES_OF_MANY if many else _NUM_SAMPLES
    samples = 100 * cluster_bootstrap(values, codes, num_samples, seed)
    row: dict[str, Any] = {
        "num_open": int(counted[:, 0].sum()),
        "num_closed": int(counted[:, 1].sum()),
        "num_images": int(codes.max()) + 1,
    }
    for column, name in enumerate(("recall", "closed_accuracy")):
        rows = counted[:, column]
        row[name] = float(100 * values[rows, column].mean()) if rows.any() else None
        bounds = interval(samples[:, column], len(np.unique(codes[rows])))
        row[f"{name}_interval"] = list(bounds) if bounds else None
    return row
