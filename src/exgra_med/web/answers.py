"""The answers of a run, judged, to look through by how they ended and what they are about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exgra_med.data.images import ImageFolder
from exgra_med.errors import RunError
from exgra_med.evaluation.breakdown import group_of
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predictions import read_predictions
from exgra_med.evaluation.questions import Question, question_of
from exgra_med.evaluation.report.examples import Example, judge, make_card
from exgra_med.evaluation.results import headline_dataset, read_results
from exgra_med.evaluation.run_folder import (
    answered_datasets,
    answered_questions,
    predictions_path,
    read_recipe,
)

ANY = "any"
UNKNOWN = "unknown"
MARKS = (ANY, "not right", "wrong", "partly right", "right")
FIELDS = ("modality", "organ", "question_type")
ANSWERS_PER_PAGE = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One question with its answer, and how that was judged (strict)."""

    question: Question
    answer: str | None
    judged: tuple[float, str, str]
    """Score, mark, reason."""

    @property
    def mark(self) -> str:
        """`right`, `partly right` or `wrong`."""
        return self.judged[1]

    def value(self, field: str) -> str:
        """What the data say of it: a field of `FIELDS`, or `type` (open or closed)."""
        if field == "type":
            return self.question.answer_type.lower()
        return group_of(self.question, field) or UNKNOWN


@dataclass(frozen=True)
class Answers:
    """All answers of a run to one data set."""

    dataset: str
    rows: list[Row]
    images: ImageFolder

    def choices(self, field: str) -> list[str]:
        """Values of a field that occur, after `any`."""
        return [ANY, *sorted({row.value(field) for row in self.rows})]

    def select(self, mark: str = ANY, **fields: str) -> list[Row]:
        """The rows that fit, in the order of the data set.

        Args:
            mark: one of `MARKS`.
            fields: field -> value, or `any`.
        """
        wanted = {name: value for name, value in fields.items() if value != ANY}
        return [
            row
            for row in self.rows
            if mark in (ANY, row.mark) or (mark == "not right" and row.mark != "right")
            if all(row.value(name) == value for name, value in wanted.items())
        ]

    def cards(self, rows: Sequence[Row], page: int) -> list[Example]:
        """Cards with pictures of one page of rows, counted from 0."""
        chosen = rows[page * ANSWERS_PER_PAGE : (page + 1) * ANSWERS_PER_PAGE]
        return [make_card(row.question, row.answer, row.judged, self.images) for row in chosen]


def read_answers(run: Path, data_folder: str | None = None) -> Answers:
    """The answers of a run, joined to their questions.

    Raises:
        RunError: the folder is no run, or has no answers.
        DataError, ScoreError: the questions are not at hand, or are others.
    """
    read_recipe(run)
    answered = answered_datasets(run)
    headline = headline_dataset(read_results(run)) or ""
    dataset = headline if headline in answered else next(iter(answered), "")
    if not dataset:
        raise RunError("This run has no stored answers.", "Make them with `exgra-med evaluate`.")
    asked = answered_questions(run, dataset, data_folder)
    pairing = pair(
        read_predictions(predictions_path(run, dataset)).predictions,
        [question_of(record) for record in asked.records],
    )
    rows = [
        Row(question, answer, judge(question, answer))
        for question, answer in zip(pairing.questions, pairing.answers, strict=True)
    ]
    return Answers(dataset, rows, asked.prepared.image_folder(asked.max_pixels))
