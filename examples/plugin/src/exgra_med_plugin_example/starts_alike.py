"""The measure `starts_alike`: whether answer and reference begin with the same word."""

from exgra_med.evaluation.measures import Case, Measure
from exgra_med.evaluation.reading import words


def starts_alike(case: Case) -> float:
    """1.0 where the first words are equal, else 0.0."""
    return float(words(case.answer)[:1] == words(case.question.answer)[:1])


MEASURE = Measure("starts_alike", "same first word", "all", strict=starts_alike)
