"""The learning rate, worked by hand, and the same after a resume."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from exgra_med.recipe.schema import StageSettings
from exgra_med.training.optimizer import build_optimizer, build_scheduler

TOTAL = 10


def rates_of(done: int = 0, **changes: object) -> list[float]:
    """Learning rates of the steps from `done` on, out of ten."""
    values = {"trainable": ["connector"], "learning_rate": 1.0, "warmup_ratio": 0.2}
    stage = StageSettings.model_validate(values | changes)
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], stage)
    scheduler = build_scheduler(optimizer, stage, TOTAL, done)
    rates = []
    for _ in range(done, TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_it_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    rates = rates_of()
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert all(late < early for early, late in pairwise(rates[2:]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1.0] * 10),
        ("constant_with_warmup", [0.0, 0.5] + [1.0] * 8),
        ("linear", [0.0, 0.5] + [left / 8 for left in range(8, 0, -1)]),
        ("inverse_sqrt", [0.0, 0.5] + [(2 / step) ** 0.5 for step in range(2, 10)]),
    ],
)
def test_the_other_schedulers(name: str, expected: list[float]) -> None:
    assert rates_of(lr_scheduler=name) == pytest.approx(expected)


def test_no_warm_up_starts_at_the_top() -> None:
    assert rates_of(warmup_ratio=0.0)[0] == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["cosine", "constant", "inverse_sqrt"])
@pytest.mark.parametrize("done", [1, 5, 9])
def test_a_resumed_stage_has_the_same_rates(name: str, done: int) -> None:
    assert rates_of(done, lr_scheduler=name) == rates_of(lr_scheduler=name)[done:]
