"""The parts of a protocol, and how they become one number, by hand."""

from dataclasses import replace

import pytest

from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Prediction, Question, pair
from exgra_med.evaluation.protocols import PROTOCOLS, protocols
from exgra_med.evaluation.protocols.protocol import (
    BY_YES_NO,
    ONLY_ANSWERED,
    ONLY_READ,
    OVER_KINDS,
    Answered,
    Asked,
    Judge,
    Number,
    Reading,
    count,
    missing_for,
    with_intervals,
)

EQUAL = Reading("equal", lambda case: float(case.answer == case.question.answer))


def answered(*rows: tuple[str, str, str | None], verdicts: dict | None = None) -> Answered:
    """From (answer type, reference, answer)."""
    questions = [
        Question(str(row), "?", reference, kind, images=(f"{row}.png",))
        for row, (kind, reference, _) in enumerate(rows)
    ]
    given = [Prediction(str(row), said) for row, (*_, said) in enumerate(rows) if said is not None]
    return Answered.of(pair(given, questions), verdicts=verdicts)


ROWS = (
    ("CLOSED", "yes", "yes"),
    ("CLOSED", "left", "right"),
    ("CLOSED", "no", None),
    ("OPEN", "lung", "lung"),
)


def test_a_closed_number_counts_closed_questions_and_an_unanswered_one_is_wrong() -> None:
    found = count(Number("n", "n", "closed", EQUAL), answered(*ROWS))
    assert (found.value, found.num_questions) == (1 / 3, 3)


def test_a_type_may_come_from_the_answer_instead_of_the_field() -> None:
    found = count(Number("n", "n", "closed", EQUAL, typing=BY_YES_NO), answered(*ROWS))
    assert (found.value, found.num_questions) == (1 / 2, 2)


def test_what_is_dropped_leaves_the_denominator() -> None:
    number = Number("n", "n", "closed", EQUAL, dropping=ONLY_ANSWERED)
    assert count(number, answered(*ROWS)).value == 1 / 2
    half = Reading("left has no value", lambda case: None if case.answer == "right" else 1.0)
    dropped = count(Number("n", "n", "closed", half, dropping=ONLY_READ), answered(*ROWS))
    assert (dropped.value, dropped.num_questions) == (1 / 2, 2)
    assert count(Number("n", "n", "closed", half), answered(*ROWS)).num_questions == 3


def test_the_mean_of_two_scores_is_not_the_mean_over_questions() -> None:
    number = Number("n", "n", "all", EQUAL)
    assert count(number, answered(*ROWS)).value == 2 / 4
    assert count(replace(number, mean=OVER_KINDS), answered(*ROWS)).value == (1 / 3 + 1) / 2


def test_questions_that_are_not_asked_do_not_count() -> None:
    long = Asked("long references", lambda each: len(each.answer) > 3)
    assert count(Number("n", "n", "all", EQUAL, asked=long), answered(*ROWS)).num_questions == 2


def test_a_judge_is_added_to_the_rule_and_its_absence_is_said() -> None:
    judge = Judge(
        "kind", "some-model", "Is it?", lambda case: {}, lambda reply, case: 1.0, "a file"
    )
    number = Number("n", "n", "closed", replace(EQUAL, judge=judge))
    assert "some-model" in missing_for(number, answered(*ROWS))
    with pytest.raises(ScoreError, match="needs a judge"):
        count(number, answered(*ROWS))
    judged = answered(*ROWS, verdicts={"kind": {"0": 1.0, "1": None}})
    assert count(number, judged).value == 2 / 3


def test_every_protocol_is_found_under_its_name_and_its_numbers_have_names_of_their_own() -> None:
    for name, protocol in zip(PROTOCOLS.names(), protocols(), strict=True):
        names = [each.name for each in protocol.numbers]
        assert protocol.name == name
        assert len(set(names)) == len(names) > 0
        assert protocol.datasets and protocol.source.where and protocol.source.version


def test_a_mean_of_two_scores_needs_both() -> None:
    number = Number("n", "n", "all", EQUAL, mean=OVER_KINDS)
    assert count(number, answered(*ROWS[:3])).value is None


def test_intervals_are_over_pictures_and_a_score_above_one_has_one_too() -> None:
    rows = answered(*[("CLOSED", "yes", "yes" if n % 2 else "no") for n in range(40)])
    twice = Reading("twice", lambda case: 2.0 * (case.answer == case.question.answer))
    numbers = [Number("n", "n", "closed", each) for each in (EQUAL, twice)]
    once, both = with_intervals([count(each, rows) for each in numbers], rows, 400)
    assert once.interval is not None and both.interval is not None
    assert 0.3 < once.interval[0] < once.value == 0.5 < once.interval[1] < 0.7
    assert both.interval == pytest.approx([2 * each for each in once.interval])
    empty = count(Number("n", "n", "open", EQUAL), rows)
    assert with_intervals([empty], rows, 400) == [empty]
