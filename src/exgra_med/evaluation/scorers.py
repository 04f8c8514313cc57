"""The three VQA scorers as tables of per-question values; means and intervals come later.

A row is a question, a column a measure from 0 to 1; NaN means "does not count here": open measures
of a closed question, and the answers that the published PathVQA script drops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.metrics import legacy, legacy_pathvqa, strict
from exgra_med.evaluation.metrics.bleu import sentence_bleu
from exgra_med.evaluation.metrics.strict import ClosedScore
from exgra_med.evaluation.normalise import words
from exgra_med.evaluation.pairing import Pairing
from exgra_med.evaluation.questions import Question

ScorerName = Literal["strict", "legacy", "legacy-pathvqa"]

MEASURES = (
    "exact_match", "f1", "precision", "recall", "bleu", "bleu_1", "bleu_2", "bleu_3",
    "open_accuracy", "closed_accuracy",
)  # fmt: skip
OPEN_MEASURES = MEASURES[:-1]
_OPEN_COLUMNS = len(OPEN_MEASURES)
_NO_BLEU = [np.nan] * 4


@dataclass(frozen=True, slots=True)
class ItemScores:
    """Values of every question under one scorer."""

    values: NDArray[np.float64]
    """(questions, measures), each from 0 to 1 or NaN."""
    readings: dict[int, ClosedScore]
    """How each closed answer was read, by row; empty for the legacy scorers."""


OpenRow = Callable[[str, Question], list[float]]


def score_items(
    pairing: Pairing,
    scorer: ScorerName,
    candidates: list[str | int] | None = None,
    with_bleu: bool = True,
) -> ItemScores:
    """Score every question; a missing answer scores 0 whatever the scorer.

    Args:
        pairing: questions and answers.
        scorer: which rules.
        candidates: known open answers for open accuracy, which is NaN without them.
        with_bleu: whether BLEU is wanted, which takes longest; NaN else.
    """
    if scorer == "strict":
        return _strict(pairing, candidates, with_bleu)
    known = legacy.Candidates(candidates) if candidates else None
    closed_hit = legacy.closed_hit if scorer == "legacy" else legacy_pathvqa.closed_hit
    values = _empty(pairing)
    for row, (question, answer) in enumerate(zip(pairing.questions, pairing.answers, strict=True)):
        if question.answer_type == "CLOSED":
            hit = 0 if answer is None else closed_hit(answer, question.answer)
            values[row, -1] = np.nan if hit is None else hit
        elif answer is None:
            values[row, :_OPEN_COLUMNS] = _missing(known is not None)
        else:
            values[row, :_OPEN_COLUMNS] = [
                *legacy.overlap(answer, question.answer),
                *(legacy.bleu(answer, question.answer).values() if with_bleu else _NO_BLEU),
                known.hit(answer, question.answer) if known else np.nan,
            ]
    return ItemScores(values, {})


def _strict(pairing: Pairing, candidates: list[str | int] | None, with_bleu: bool) -> ItemScores:
    known = _StrictCandidates(candidates) if candidates else None
    values = _empty(pairing)
    readings: dict[int, ClosedScore] = {}
    for row, (question, answer) in enumerate(zip(pairing.questions, pairing.answers, strict=True)):
        if question.answer_type == "CLOSED":
            if answer is not None:
                readings[row] = strict.closed(
                    answer, question.answer, question.text, question.options
                )
            values[row, -1] = readings[row].hit if row in readings else 0
        elif answer is None:
            values[row, :_OPEN_COLUMNS] = _missing(known is not None)
        else:
            values[row, :_OPEN_COLUMNS] = [
                *strict.open_overlap(answer, question.answer),
                *(_strict_bleu(answer, question.answer) if with_bleu else _NO_BLEU),
                known.hit(answer, question.answer) if known else np.nan,
            ]
    return ItemScores(values, readings)


def _empty(pairing: Pairing) -> NDArray[np.float64]:
    return np.full((len(pairing.questions), len(MEASURES)), np.nan)


def _missing(with_candidates: bool) -> list[float]:
    return [0.0] * (_OPEN_COLUMNS - 1) + [0.0 if with_candidates else np.nan]


def _strict_bleu(prediction: str, reference: str) -> list[float]:
    scores = sentence_bleu(list(words(reference)), list(words(prediction)))
    # Without smoothing an absent n-gram leaves about 1e-231; a sound score says zero.
    return [value if value > 1e-70 else 0.0 for value in scores.values()]


class _StrictCandidates:
    """Maps an answer onto the known answer with the highest F1; a tie between answers is no hit."""

    def __init__(self, answers: list[str | int]) -> None:
        unique = {words(str(answer)) for answer in answers} - {()}
        self._known = sorted(unique)
        self._sizes = np.array([len(set(candidate)) for candidate in self._known])
        having: dict[str, list[int]] = {}
        for index, candidate in enumerate(self._known):
            for word in set(candidate):
                having.setdefault(word, []).append(index)
        self._having = {word: np.array(rows) for word, rows in having.items()}
        self._closest: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def hit(self, prediction: str, reference: str) -> float:
        found = words(prediction)
        if found not in self._closest:
            self._closest[found] = self._find(found)
        return float(self._closest[found] == words(reference))

    def _find(self, found: tuple[str, ...]) -> tuple[str, ...] | None:
        lists = [self._having[word] for word in set(found) if word in self._having]
        if not lists:
            return None
        hits = np.bincount(np.concatenate(lists), minlength=len(self._known))
        scores = 2 * hits / (len(set(found)) + self._sizes)
        best = int(scores.argmax())
        return self._known[best] if (scores == scores[best]).sum() == 1 else None
