"""Calls of bounded size and steps of similar length change what is computed at once, not what."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.data.records import Prepared
from exgra_med.model.batch import Batch, Layout, StageDataset, num_tokens
from exgra_med.model.bundle import Bundle
from exgra_med.model.sizes import model_config
from exgra_med.recipe.schema import (
    Architecture,
    ModelSettings,
    StageAlignment,
    StageSettings,
    TextSettings,
)
from exgra_med.training.memory import Shape, activation_bytes, shape_of
from exgra_med.training.objective import Objective
from exgra_med.training.order import STEPS_SORTED, micro_batches, num_steps, plan_epoch
from exgra_med.training.trainable import set_trainable


def make_batch(toy: Bundle, sample: Prepared, layout: Layout) -> Batch:
    """Seven records: one without an image, one with two."""
    records = sample.records("train")[:70:10]
    records[1] = records[1].model_copy(update={"image": None})
    two = [records[2].images[0], records[5].images[0]]
    records[4] = records[4].model_copy(update={"image": two})
    images = sample.image_folder(10**8)
    data = StageDataset(records, images, toy, TextSettings(), True, layout)
    batch = data.collate([data[number] for number in range(len(records))])
    batch["pixel_values"] = batch["pixel_values"].double()
    return batch


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("max_tokens", [1, 300, 700])
def test_several_calls_equal_one_in_losses_and_gradients(
    toy: Bundle, sample: Prepared, packed: bool, max_tokens: int
) -> None:
    toy.model.double()
    set_trainable(toy, ["connector", "language"])
    objective = Objective(toy, StageAlignment()).train()
    found = []
    for budget in (None, max_tokens):
        layout = Layout(packed, tokens_per_row=128, max_tokens_per_call=budget)
        batch = make_batch(toy, sample, layout)
        losses = objective(batch, [0])
        objective.zero_grad()
        (losses["language_loss_sum"] + losses["alignment_loss"]).backward()
        gradients = {n: p.grad.clone() for n, p in objective.named_parameters() if p.requires_grad}
        found.append((losses, gradients, batch))
    (one, first, whole), (other, second, split) = found
    sizes = [rows["input_ids"].shape for rows in split["calls"]]
    assert len(sizes) > len(whole["calls"])
    assert all(count * length <= max_tokens or count == 1 for count, length in sizes)
    assert num_tokens(split) == num_tokens(whole)
    for name in ("language_loss_sum", "alignment_loss", "matching_accuracy", "num_nodes"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=0)
    assert int(other["num_nodes"]) == 6
    for name in first:
        scale = float(first[name].abs().max())
        # Measured: 7e-15.
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-9 * scale)


def shape() -> Shape:
    return shape_of(model_config(ModelSettings(architecture=Architecture())))


def test_a_budget_bounds_what_is_recomputed_at_once() -> None:
    values = {"trainable": ["language"], "learning_rate": 1e-3, "activation_checkpointing": True}
    whole, split = (
        activation_bytes(
            shape(), StageSettings.model_validate(values | {"max_tokens_per_call": each}), 2e4, 16
        )
        for each in (None, 4096)
    )
    layer = 4 * (5 * 4096 + 2 * 4096 + 4 * 11008 + 2048) + 16 * 4096
    assert whole - split == pytest.approx((2e4 - 4096) * layer)


@given(
    st.integers(1, 200), st.integers(1, 6), st.integers(1, 3), st.integers(0, 3), st.integers(1, 40)
)
def test_every_record_still_occurs_once(
    num_records: int, part_size: int, num_parts: int, epoch: int, num_groups: int
) -> None:
    lengths = [(7 * number) % 31 for number in range(num_records)]
    groups = [str(number % num_groups) for number in range(num_records)]
    plans = [
        plan_epoch(num_records, part_size, num_parts, 3, epoch, groups, lengths) for _ in range(2)
    ]
    assert plans[0] == plans[1]
    assert len(plans[0]) == num_steps(num_records, part_size, num_parts, 1.0)
    counts = Counter(number for step in plans[0] for part in step for number in part)
    assert set(counts) == set(range(num_records))
    assert all(len(part) == part_size for step in plans[0][:-1] for part in step)


LENGTHS = np.random.default_rng(0).lognormal(5, 0.6, 640).astype(int).tolist()


def spread(plan: list[list[list[int]]]) -> float:
    """Mean over the steps of the longest record over the mean one: what padding costs."""
    steps = [[LENGTHS[n] for part in step for n in part] for step in plan]
    return float(np.mean([max(step) / np.mean(step) for step in steps]))


def test_steps_are_of_similar_length_in_an_order_that_is_not() -> None:
    groups = [str(number % 200) for number in range(640)]
    plain, grouped, later = (
        plan_epoch(640, 8, 2, 0, epoch, groups, lengths)
        for epoch, lengths in ((0, None), (0, LENGTHS), (1, LENGTHS))
    )
    assert spread(plain) > 2
    assert spread(grouped) < 1.3
    for step in grouped:
        for part in step:
            assert len({groups[number] for number in part}) == 8
    means = [np.mean([LENGTHS[n] for part in step for n in part]) for step in grouped]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5
    assert grouped != later
    together = [{frozenset(part) for step in plan for part in step} for plan in (grouped, later)]
    assert len(together[0] & together[1]) < 4
    assert len(grouped) > STEPS_SORTED


def test_a_process_goes_on_where_it_was() -> None:
    def taken(first: int, process: range) -> list[list[int]]:
        plan = partial(plan_epoch, 640, 8, 4, 5, lengths=LENGTHS)
        return list(micro_batches(plan, range(first, 50), process))

    whole = taken(0, range(4))
    assert len(whole) == 200
    assert taken(30, range(4)) == whole[120:]
    one, other = taken(0, range(0, 4, 2)), taken(0, range(1, 4, 2))
    assert [each for pair in zip(one, other, strict=True) for each in pair] == whole
