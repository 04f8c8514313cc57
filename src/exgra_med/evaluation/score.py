"""Predictions and reference -> scores in percent, with intervals, denominators and what was odd.

No torch here: scoring stored answers takes milliseconds, and scoring them again is equal.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.record import Record
from exgra_med.errors import ScoreError
from exgra_med.evaluation.balance import closed_balance
from exgra_med.evaluation.breakdown import breakdown
from exgra_med.evaluation.metrics.legacy_yes_no import yes_no_table
from exgra_med.evaluation.metrics.strict import SCORER_VERSION
from exgra_med.evaluation.normalise import NORMALISER_VERSION
from exgra_med.evaluation.pairing import Pairing, pair
from exgra_med.evaluation.predictions import Prediction, read_predictions
from exgra_med.evaluation.questions import (
    Question,
    as_questions,
    read_candidates,
    read_reference,
)
from exgra_med.evaluation.scorers import MEASURES, ItemScores, ScorerName, score_items
from exgra_med.evaluation.statistics import cluster_bootstrap, cluster_codes, interval
from exgra_med.evaluation.statistics_input import check_count

SCORERS: tuple[ScorerName, ...] = ("strict", "legacy", "legacy-pathvqa")
_RECALL = MEASURES.index("recall")
_CLOSED = MEASURES.index("closed_accuracy")


def score_vqa(
    predictions: Sequence[Prediction],
    records: Iterable[Record | Question],
    scorer: ScorerName = "strict",
    *,
    candidates: list[str | int] | None = None,
    train_answers: Iterable[str] | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    groups: bool = True,
    oddities: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Score one file of predictions.

    Args:
        predictions: answers, in any order.
        records: the questions that were asked, with their reference answers.
        scorer: `strict`, or one of the published rules for comparison with published tables.
        candidates: known open answers; open accuracy is absent without them.
        train_answers: answers of the training questions, to tell seen from unseen ones.
        num_bootstrap_samples: resamples of images behind each interval; 0 for none.
        seed: of the resamples.
        groups: whether to add scores per modality, organ and question type.
        oddities: what the readers of the files found; goes into the result.

    Returns:
        JSON-ready: `scorer, num_open, num_closed, metrics, intervals, denominators, pairing, ...`;
        metrics and intervals in percent, None where there is nothing to count.

    Raises:
        ScoreError: predictions and records do not fit, the scorer is unknown, or a negative number
            of resamples.
    """
    scorer = as_scorer(scorer)
    check_count(num_bootstrap_samples, "num_bootstrap_samples")
    oddities = Counter() if oddities is None else Counter(oddities)
    pairing = pair(list(predictions), as_questions(records, oddities))
    items = score_items(pairing, scorer, candidates)
    clusters = cluster_codes([question.cluster for question in pairing.questions])
    left_out = leave_out(items.values, pairing.questions, scorer)
    is_open = np.array([question.answer_type == "OPEN" for question in pairing.questions])
    result: dict[str, Any] = {
        "schema_version": 1,
        "scorer": scorer,
        "scorer_version": SCORER_VERSION if scorer == "strict" else "published",
        "normaliser_version": NORMALISER_VERSION if scorer == "strict" else "published",
        "num_open": int((is_open & ~left_out).sum()),
        "num_closed": int((~is_open & ~left_out).sum()),
        "num_images": int(clusters.max()) + 1,
        **summary(items.values, clusters, num_bootstrap_samples, seed, scorer),
        "pairing": pairing.counts | {"same_order": pairing.same_order},
        "oddities": {name: count for name, count in sorted(oddities.items()) if count},
        "left_out_by_published_rule": int(left_out.sum()),
        "bootstrap": {"samples": num_bootstrap_samples, "seed": seed, "unit": "image"},
    }
    if scorer == "strict":
        result["closed_answers"] = _closed_part(items, pairing)
    else:
        result["yes_no"] = yes_no_table(
            (answer or "", question.answer)
            for question, answer in zip(pairing.questions, pairing.answers, strict=True)
            if question.answer_type == "CLOSED"
        )
    if groups:
        result["groups"] = breakdown(pairing, items.values, clusters, train_answers, seed)
    return result


def leave_out(
    values: NDArray[np.float64], questions: Sequence[Question], scorer: ScorerName
) -> NDArray[np.bool_]:
    """Take out of a table the questions that the published scripts skip; says which they are."""
    rows = np.array([scorer != "strict" and each.type_had_blanks for each in questions])
    values[rows] = np.nan
    return rows


def as_scorer(name: str) -> ScorerName:
    """The scorer of that name.

    Raises:
        ScoreError: there is none.
    """
    for scorer in SCORERS:
        if scorer == name:
            return scorer
    raise ScoreError(f"Unknown scorer {name!r}.", f"Known are {', '.join(SCORERS)}.")


def score_files(
    predictions: str | Path,
    reference: str | Path,
    scorer: str = "strict",
    candidates: str | Path | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a file of predictions against a file of records or of the original; see `score_vqa`.

    Args:
        predictions: JSON Lines, ours or the original's.
        reference: records, or a JSON file of the original.
        scorer: name of the scorer.
        candidates: the original's `candidate.json`, a JSON list, or training records.
        num_bootstrap_samples: resamples of images behind each interval; 0 for none.
        seed: of the resamples.

    Raises:
        DataError: a file is missing or is none of these.
        ScoreError: see `score_vqa`.
    """
    answers = read_predictions(Path(predictions))
    asked = read_reference(Path(reference))
    oddities = asked.oddities
    oddities["prediction_not_text"] += answers.num_not_text
    oddities["torn_last_line"] += answers.torn_last_line
    return score_vqa(
        answers.predictions,
        asked.questions,
        as_scorer(scorer),
        candidates=None if candidates is None else read_candidates(Path(candidates)),
        num_bootstrap_samples=num_bootstrap_samples,
        seed=seed,
        oddities=oddities,
    )


def summary(
    values: NDArray[np.float64],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
    scorer: ScorerName = "strict",
) -> dict[str, Any]:
    """`metrics`, `intervals` and `denominators` of a table of per-question values.

    `average` is the field's headline, the plain mean of open recall and closed accuracy.
    """
    counts = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, axis=0) / np.where(counts, counts, np.nan)
    metrics: dict[str, float | None] = {
        name: None if np.isnan(mean) else float(100 * mean)
        for name, mean in zip(MEASURES, means, strict=True)
    }
    metrics["average"] = _mean(metrics["recall"], metrics["closed_accuracy"])
    if scorer != "strict" and not counts[_CLOSED]:
        # The published table prints 0 where no closed question was counted.
        metrics["closed_accuracy"] = 0.0
    intervals: dict[str, list[float] | None] = dict.fromkeys(metrics)
    if num_samples:
        samples = 100 * cluster_bootstrap(values, clusters, num_samples, seed)
        average = (samples[:, _RECALL] + samples[:, _CLOSED]) / 2
        for name, column in zip([*MEASURES, "average"], [*samples.T, average], strict=True):
            used = (
                values[:, [_RECALL, _CLOSED]]
                if name == "average"
                else (values[:, [MEASURES.index(name)]])
            )
            counted = np.unique(clusters[~np.isnan(used).all(axis=1)])
            bounds = interval(column, len(counted))
            intervals[name] = list(bounds) if bounds else None
    return {
        "metrics": metrics,
        "intervals": intervals,
        "denominators": {name: int(n) for name, n in zip(MEASURES, counts, strict=True)},
    }


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _closed_part(items: ItemScores, pairing: Pairing) -> dict[str, Any]:
    num_closed = sum(question.answer_type == "CLOSED" for question in pairing.questions)
    verdicts = Counter(str(reading.verdict) for reading in items.readings.values())
    missing = num_closed - len(items.readings)
    return {
        "verdicts": dict(sorted(verdicts.items())) | {"missing": missing},
        **closed_balance(items.readings.values(), missing),
    }
