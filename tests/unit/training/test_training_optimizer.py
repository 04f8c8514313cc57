"""The learning rate, worked by hand, and the same after a resume."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.objective import Objective
from exgra_med.training.optimizer import build_optimizer, build_scheduler, parameter_groups
from exgra_med.training.trainable import set_trainable

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


def own_rates(bundle: Bundle, **changes: object) -> tuple[Objective, StageSettings]:
    values = {
        "trainable": ["connector", "language"],
        "learning_rate": 1e-3,
        "learning_rates": {"connector": 5e-2},
        "warmup_ratio": 0.2,
        "weight_decay": 0.1,
        "alignment": {"weight": 1.0},
    }
    stage = StageSettings.model_validate(values | changes)
    set_trainable(bundle, stage.trainable, stage.lora)
    return Objective(bundle, stage.alignment), stage


def optimizer_of(objective: Objective, stage: StageSettings) -> torch.optim.Optimizer:
    learning = [each for each in objective.parameters() if each.requires_grad]
    return build_optimizer(parameter_groups(objective.bundle, learning, stage), stage)


def test_parts_with_rates_of_their_own_equal_two_groups_by_hand(toy: Bundle) -> None:
    """Five steps of made-up gradients, the rates of which rise and fall together."""
    objective, stage = own_rates(toy)
    connector = {id(each) for each in toy.model.model.multi_modal_projector.parameters()}
    learning = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    twins = {name: nn.Parameter(each.detach().clone()) for name, each in learning.items()}
    fast = [twins[name] for name, each in learning.items() if id(each) in connector]
    slow = [twins[name] for name, each in learning.items() if id(each) not in connector]
    by_hand = torch.optim.AdamW(
        [{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 5e-2}], weight_decay=0.1
    )
    optimizer = optimizer_of(objective, stage)
    scheduler = build_scheduler(optimizer, stage, TOTAL, 0)
    for step, factor in enumerate([0.0, 0.5, 1.0, rates_of()[3], rates_of()[4]]):
        assert scheduler.get_last_lr() == pytest.approx([1e-3 * factor, 5e-2 * factor])
        by_hand.param_groups[0]["lr"], by_hand.param_groups[1]["lr"] = scheduler.get_last_lr()
        torch.manual_seed(step)
        for name, each in learning.items():
            each.grad = torch.randn_like(each)
            twins[name].grad = each.grad.clone()
        optimizer.step()
        scheduler.step()
        by_hand.step()
    assert len(fast) == 4
    assert any("alignment" in name for name in learning)
    # By hand it is torch's own way over a CPU, ours is fused: equal but for rounding.
    for name, each in learning.items():
        torch.testing.assert_close(each, twins[name], rtol=1e-6, atol=1e-6)


def test_adapters_are_of_the_language_model_and_graphs_of_no_part(toy: Bundle) -> None:
    pytest.importorskip("peft")
    objective, stage = own_rates(
        toy, learning_rates={"connector": 5e-2, "language": 2e-2}, lora={"rank": 2}
    )
    names = {id(each): name for name, each in objective.named_parameters()}
    groups = {
        group["lr"]: [names[id(each)] for each in group["params"]]
        for group in optimizer_of(objective, stage).param_groups
    }
    assert groups[1e-3]
    assert all(name.startswith("alignment.") for name in groups[1e-3])
    assert groups[2e-2]
    assert all(".lora_" in name for name in groups[2e-2])
    assert len(groups[5e-2]) == 4


def test_the_first_rate_is_the_stages_own_even_where_no_part_has_it(toy: Bundle) -> None:
    objective, stage = own_rates(toy, trainable=["connector"], alignment=None)
    groups = optimizer_of(objective, stage).param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(1e-3, 0), (5e-2, 4)]


def test_a_rate_of_a_part_that_is_not_trained_is_refused(toy: Bundle) -> None:
    with pytest.raises(ValueError, match="a rate of `vision`, which is not in `trainable`"):
        own_rates(toy, learning_rates={"vision": 1e-3})
