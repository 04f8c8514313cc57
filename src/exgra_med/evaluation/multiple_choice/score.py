"""Chosen options -> accuracy per data set, modality and question type; nothing leaves the count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.errors import ScoreError
from exgra_med.evaluation.multiple_choice.matching import choose_by_similarity, choose_strictly
from exgra_med.evaluation.multiple_choice.questions import Choice, rotated, rotated_id
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.statistics import cluster_bootstrap, cluster_codes, interval

_GROUPS = ("dataset", "modality", "question_type")
Chooser = Callable[[str, Sequence[str]], int | None]
CHOOSERS: dict[str, Chooser] = {"strict": choose_strictly, "original": choose_by_similarity}


def score_choices(
    predictions: Sequence[Prediction],
    choices: Sequence[Choice],
    rule: str = "strict",
    *,
    num_rotations: int = 1,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of generated answers.

    Args:
        predictions: answers; ids as in `rotated_id`.
        choices: the questions.
        rule: `strict` (words or letter) or `original` (difflib).
        num_rotations: option orders that were asked; with several, `accuracy` is the mean over
            orders and `all_orders_right` counts questions that are right in every order.
        num_bootstrap_samples: resamples of images behind each interval.
        seed: of the resamples.

    Returns:
        JSON-ready, in percent; an answer that is missing or names no option is wrong, and counted
        in `unreadable`.

    Raises:
        ScoreError: no question, an unknown rule, or no answer that belongs to a question.
    """
    if not choices:
        raise ScoreError("There are no multiple-choice questions.")
    if rule not in CHOOSERS:
        raise ScoreError(f"Unknown rule {rule!r}.", f"Known are {', '.join(CHOOSERS)}.")
    texts = {each.id: each.text for each in predictions}
    orders = np.full((len(choices), num_rotations), -1, dtype=np.int64)
    num_missing = 0
    for row, choice in enumerate(choices):
        # A question with fewer options than rotations meets an order again; the copy is no news.
        for rotation in range(min(num_rotations, len(choice.options))):
            text = texts.get(rotated_id(choice.id, rotation))
            num_missing += text is None
            shown = rotated(choice.options, rotation)
            place = None if text is None else CHOOSERS[rule](text, shown)
            if place is not None:
                orders[row, rotation] = (place + rotation) % len(choice.options)
    if num_missing == sum(min(num_rotations, len(choice.options)) for choice in choices):
        raise ScoreError("No prediction has the id of a question.", "Answer these questions first.")
    asked = np.array(
        [[r < len(choice.options) for r in range(num_rotations)] for choice in choices]
    )
    right = np.array([_same_option(choice) for choice in choices], dtype=object)
    hits = np.array(
        [[place in right[row] for place in places] for row, places in enumerate(orders.tolist())]
    )
    values = np.where(asked, hits, np.nan).astype(np.float64)
    result = _accuracy(np.nanmean(values, axis=1), choices, num_bootstrap_samples, seed)
    result |= {
        "protocol": "generation",
        "rule": rule,
        "num_rotations": num_rotations,
        "missing": num_missing,
        "unreadable": 100 * float(((orders < 0) & asked).sum() / asked.sum()),
    }
    if num_rotations > 1:
        result["all_orders_right"] = 100 * float(np.nanmin(values, axis=1).mean())
    return result


def score_likelihoods(
    option_scores: Mapping[str, Sequence[float]],
    choices: Sequence[Choice],
    prior: Mapping[str, Sequence[float]] | None = None,
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of taking the option with the highest mean log-likelihood a token.

    Args:
        option_scores: question id -> score of each option.
        choices: the questions; one without scores is wrong.
        prior: the same scores without image and question, subtracted where given, so that an option
            that is likely anywhere gains nothing.
        num_bootstrap_samples: resamples of images behind each interval.
        seed: of the resamples.
    """
    hits = np.zeros(len(choices))
    missing = 0
    for row, choice in enumerate(choices):
        scores = option_scores.get(choice.id)
        if scores is None or len(scores) != len(choice.options):
            missing += 1
            continue
        adjusted = np.array(scores, dtype=np.float64)
        if prior is not None:
            adjusted -= np.array(prior[choice.id], dtype=np.float64)
        hits[row] = int(adjusted.argmax()) in _same_option(choice)
    result = _accuracy(hits, choices, num_bootstrap_samples, seed)
    return result | {
        "protocol": "likelihood",
        "prior_subtracted": prior is not None,
        "missing": missing,
    }


def guessing(choices: Sequence[Choice]) -> float:
    """Expected accuracy in percent of picking an option blindly."""
    shares = [len(_same_option(choice)) / len(choice.options) for choice in choices]
    return 100 * sum(shares) / len(shares)


def _same_option(choice: Choice) -> set[int]:
    """Places of the right option; a data set can list it twice."""
    text = choice.options[choice.right].strip().lower()
    return {i for i, option in enumerate(choice.options) if option.strip().lower() == text}


def _accuracy(
    hits: NDArray[np.float64], choices: Sequence[Choice], num_samples: int, seed: int
) -> dict[str, Any]:
    clusters = cluster_codes([choice.cluster for choice in choices])
    groups: dict[str, dict[str, Any]] = {}
    for field in _GROUPS:
        members: dict[str, list[int]] = {}
        for row, choice in enumerate(choices):
            members.setdefault(str(choice.meta.get(field) or "unknown"), []).append(row)
        groups[field] = {
            name: _one(hits[rows], clusters[rows], num_samples, seed)
            for name, rows in sorted(members.items())
        }
    macro = float(np.mean([group["accuracy"] for group in groups["dataset"].values()]))
    by_answer: dict[str, list[int]] = {}
    for row, choice in enumerate(choices):
        by_answer.setdefault(choice.options[choice.right].strip().lower(), []).append(row)
    balanced = float(np.mean([hits[rows].mean() for rows in by_answer.values()]))
    return {
        "schema_version": 1,
        "num_questions": len(choices),
        **_one(hits, clusters, num_samples, seed),
        "macro_accuracy": macro,
        "balanced_accuracy": 100 * balanced,
        "guessing": guessing(choices),
        "groups": groups,
    }


def _one(
    hits: NDArray[np.float64], clusters: NDArray[np.int64], num_samples: int, seed: int
) -> dict[str, Any]:
    _, codes = np.unique(clusters, return_inverse=True)
    bounds = None
    if num_samples:
        samples = 100 * cluster_bootstrap(hits, codes, num_samples, seed)
        bounds = interval(samples[:, 0], int(codes.max()) + 1)
    return {
        "accuracy": 100 * float(hits.mean()),
        "interval": list(bounds) if bounds else None,
        "num": len(hits),
    }
