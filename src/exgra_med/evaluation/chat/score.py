"""Gradings -> relative score, win rate and what the judge's habits are worth, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.errors import ScoreError
from exgra_med.evaluation.chat.judge import ORDERS, Grades, Order
from exgra_med.evaluation.chat.judging import Judgement
from exgra_med.evaluation.chat.length import length_controlled
from exgra_med.evaluation.chat.questions import ChatQuestion
from exgra_med.evaluation.statistics import cluster_bootstrap, cluster_codes, interval

Values = NDArray[np.float64]
MEASURES = ("relative_score", "relative_score_published_order", "win_rate")


def score_judgements(
    questions: Sequence[ChatQuestion],
    answers: Mapping[str, str],
    judgements: Sequence[Judgement],
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the answers of a model.

    The relative score is LLaVA-Med's: the mean over questions of the model's grade divided by the
    reference's, times 100; here over both orders, and `relative_score_published_order` with the
    reference first only, as published. A win counts 1, a tie 1/2, each order half.

    Args:
        questions: what was asked.
        answers: question id -> answer.
        judgements: of `judge_answers`.
        num_bootstrap_samples: resamples of images behind each interval.
        seed: of the resamples.

    Returns:
        JSON-ready, in percent. A question without an answer scores 0 and loses; one that the judge
        did not grade in both orders is left out of the means and counted in `num_unjudged`.

    Raises:
        ScoreError: nothing was graded and nothing was missing.
    """
    grades = {(each.id, each.order): each.grades for each in judgements}
    values = np.full((len(questions), len(MEASURES)), np.nan)
    both: dict[int, tuple[Grades, Grades]] = {}
    num_no_answer = 0
    for row, question in enumerate(questions):
        if not answers.get(question.id, "").strip():
            values[row] = 0.0
            num_no_answer += 1
            continue
        first, second = (grades.get((question.id, order)) for order in ORDERS)
        if first is not None and second is not None:
            both[row] = first, second
            ratios = [each.model / each.reference for each in (first, second)]
            wins = [(_verdict(each) + 1) / 2 for each in (first, second)]
            values[row] = [np.mean(ratios), ratios[0], np.mean(wins)]
    if not both and not num_no_answer:
        raise ScoreError("The judge graded no answer.", "Its replies are in the transcripts.")
    clusters = cluster_codes([question.cluster for question in questions])

    def measure(rows: NDArray[np.int64]) -> dict[str, Any]:
        return _measure(values[rows], clusters[rows], num_bootstrap_samples, seed)

    def grouped(key: Callable[[ChatQuestion], str]) -> dict[str, Any]:
        members: dict[str, list[int]] = {}
        for row, question in enumerate(questions):
            members.setdefault(key(question), []).append(row)
        return {name: measure(np.array(rows)) for name, rows in sorted(members.items())}

    return measure(np.arange(len(questions))) | {
        "num_questions": len(questions),
        "num_images": len(np.unique(clusters)),
        "num_no_answer": num_no_answer,
        "num_unjudged": len(questions) - len(both) - num_no_answer,
        "unjudged": _unjudged(judgements),
        "by_type": grouped(lambda question: question.question_type),
        "by_domain": grouped(lambda question: question.domain),
        "order": _order_effects(list(both.values())),
        "length": _length(
            questions, answers, values, sorted(both), clusters, num_bootstrap_samples, seed
        ),
        "bootstrap": {"samples": num_bootstrap_samples, "seed": seed},
    }


def _measure(
    values: Values, clusters: NDArray[np.int64], num_samples: int, seed: int
) -> dict[str, Any]:
    counted = ~np.isnan(values[:, 0])
    _, codes = np.unique(clusters, return_inverse=True)
    samples = 100 * cluster_bootstrap(values, codes, num_samples, seed)
    num_clusters = len(np.unique(codes[counted]))
    result: dict[str, Any] = {"num": int(counted.sum()), "intervals": {}}
    for column, name in enumerate(MEASURES):
        bounds = interval(samples[:, column], num_clusters)
        result[name] = 100 * float(values[counted, column].mean()) if counted.any() else None
        result["intervals"][name] = list(bounds) if bounds else None
    return result


def _order_effects(both: Sequence[tuple[Grades, Grades]]) -> dict[str, float | None]:
    """How much of the judgements is the order, in percent; `first_place_bonus` in grade points."""
    if not both:
        return dict.fromkeys(("flip_rate", "reversal_rate", "first_place_bonus"), None)
    verdicts = [(_verdict(first), _verdict(second)) for first, second in both]
    flips = [first != second for first, second in verdicts]
    reversals = [first * second < 0 for first, second in verdicts]
    bonus = [
        (first.reference - second.reference + second.model - first.model) / 2
        for first, second in both
    ]
    return {
        "flip_rate": 100 * float(np.mean(flips)),
        "reversal_rate": 100 * float(np.mean(reversals)),
        "first_place_bonus": float(np.mean(bonus)),
    }


def _length(
    questions: Sequence[ChatQuestion],
    answers: Mapping[str, str],
    values: Values,
    rows: list[int],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    model = [len(answers[questions[row].id].strip()) for row in rows]
    reference = [len(questions[row].reference.strip()) for row in rows]
    controlled = length_controlled(
        values[rows, MEASURES.index("win_rate")],
        [a - b for a, b in zip(model, reference, strict=True)],
        clusters[rows],
        num_samples,
        seed,
    )
    return controlled | {
        "mean_characters": float(np.mean(model)) if model else None,
        "mean_reference_characters": float(np.mean(reference)) if reference else None,
    }


def _unjudged(judgements: Sequence[Judgement]) -> dict[Order, int]:
    return {
        order: sum(each.grades is None for each in judgements if each.order == order)
        for order in ORDERS
    }


def _verdict(grades: Grades) -> int:
    return int(np.sign(grades.model - grades.reference))
