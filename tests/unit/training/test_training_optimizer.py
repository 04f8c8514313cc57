"""The learning rate, worked by hand."""

from itertools import pairwise

import pytest

from exgra_med.recipe.schema import StageSettings
from exgra_med.training.optimizer import learning_rate


def stage(**changes: object) -> StageSettings:
    values = {"learn": ["connector"], "learning_rate": 1.0, "warmup_fraction": 0.2}
    return StageSettings.model_validate(values | changes)


def test_it_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    rates = [learning_rate(stage(), step, 10) for step in range(10)]
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert all(late < early for early, late in pairwise(rates[2:]))


def test_a_constant_schedule_stays() -> None:
    rates = [learning_rate(stage(schedule="constant"), step, 10) for step in range(10)]
    assert rates[2:] == [1.0] * 8


def test_no_warm_up_starts_at_the_top() -> None:
    assert learning_rate(stage(warmup_fraction=0.0), 0, 10) == 1.0
