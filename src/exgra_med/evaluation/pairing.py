"""Joining predictions to questions by id: nothing is scored that does not belong together.

A missing answer is wrong and counted apart. An answer given twice with different texts cannot be
told right from wrong, so it is wrong and counted apart. Extra answers are counted and left out.
"""

from collections import Counter
from dataclasses import dataclass

from exgra_med.errors import ScoreError
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.questions import Question


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every question with its answer, or with None, and what did not fit."""

    questions: list[Question]
    answers: list[str | None]
    """Text of each question's prediction; None where it is missing or contradictory."""
    counts: dict[str, int]
    """`questions, predictions, missing, extra, duplicate, contradictory, empty`."""
    same_order: bool
    """Whether the predictions that belong to a question come in the order of the questions."""


def pair(predictions: list[Prediction], questions: list[Question]) -> Pairing:
    """Join by id.

    Answers that carry the published id of a record (`meta["published_id"]`) are joined by that.
    Files of the original can repeat an id (PathVQA names a question by its image); then both files
    must have the same ids in the same order, and are joined by position.

    Raises:
        ScoreError: no question, no common id, or repeated question ids in another order.
    """
    if not questions:
        raise ScoreError("The reference has no questions.")
    question_ids = [question.id for question in questions]
    prediction_ids = [prediction.id for prediction in predictions]
    if len(set(question_ids)) < len(question_ids):
        return _by_position(predictions, questions, question_ids, prediction_ids)
    if known_by := _published_ids(questions, prediction_ids):
        question_ids = known_by
    texts: dict[str, set[str]] = {}
    for prediction in predictions:
        texts.setdefault(prediction.id, set()).add(prediction.text)
    known = set(question_ids)
    common = known & texts.keys()
    if not common:
        raise ScoreError(
            f"No prediction has the id of a question: {prediction_ids[:3]} against "
            f"{[question.id for question in questions[:3]]}.",
            "Score against the reference that was answered.",
        )
    contradictory = {name for name in common if len(texts[name]) > 1}
    answers = [
        None if name not in texts or name in contradictory else next(iter(texts[name]))
        for name in question_ids
    ]
    first_seen = list(dict.fromkeys(name for name in prediction_ids if name in known))
    repeats = Counter(prediction_ids)
    return Pairing(
        questions=questions,
        answers=answers,
        counts={
            "questions": len(questions),
            "predictions": len(predictions),
            "missing": len(known - texts.keys()),
            "extra": sum(name not in known for name in texts),
            "duplicate": sum(count > 1 for name, count in repeats.items() if name in known),
            "contradictory": len(contradictory),
            "empty": sum(answer is not None and not answer.strip() for answer in answers),
        },
        same_order=first_seen == [name for name in question_ids if name in texts],
    )


def _published_ids(questions: list[Question], prediction_ids: list[str]) -> list[str] | None:
    """Ids under which the data set was published, where those, and only those, fit the answers."""
    if {question.id for question in questions} & set(prediction_ids):
        return None
    published = [str(question.meta.get("published_id", "")) for question in questions]
    unique = len(set(published)) == len(published) and "" not in published
    return published if unique and set(published) & set(prediction_ids) else None


def _by_position(
    predictions: list[Prediction],
    questions: list[Question],
    question_ids: list[str],
    prediction_ids: list[str],
) -> Pairing:
    if question_ids != prediction_ids:
        raise ScoreError(
            "Ids repeat in the reference, and the predictions do not have the same ids in the same "
            "order, so nothing says which answer belongs to which question.",
            "Prepare the data with unique ids, or answer this reference again.",
        )
    return Pairing(
        questions=questions,
        answers=[prediction.text for prediction in predictions],
        counts={
            "questions": len(questions),
            "predictions": len(predictions),
            "missing": 0,
            "extra": 0,
            "duplicate": len(question_ids) - len(set(question_ids)),
            "contradictory": 0,
            "empty": sum(not prediction.text.strip() for prediction in predictions),
        },
        same_order=True,
    )
