"""The order of records is a function of the seed, whatever the passes and processes."""

import time
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.training.order import MicroBatches, _spread, micro_batches, num_steps, plan_epoch


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(0, 5))
def test_every_record_occurs_once_but_for_a_short_last_step(
    num_records: int, part_size: int, num_parts: int, epoch: int
) -> None:
    steps = plan_epoch(num_records, part_size, num_parts, seed=3, epoch=epoch)
    assert len(steps) == num_steps(num_records, part_size, num_parts, 1.0)
    counts = Counter(number for step in steps for part in step for number in part)
    assert set(counts) == set(range(num_records))
    repeated = sum(counts.values()) - num_records
    assert repeated == max(0, num_parts - (num_records % (part_size * num_parts) or num_parts))
    assert all(1 <= len(part) <= part_size for step in steps for part in step)


@given(st.integers(8, 60), st.integers(0, 3))
def test_a_step_holds_the_same_records_however_it_is_spread(num_records: int, seed: int) -> None:
    whole = plan_epoch(num_records, 8, 1, seed, 0)
    spread = plan_epoch(num_records, 2, 4, seed, 0)
    for one, four in zip(whole, spread, strict=True):
        assert set(one[0]) == {number for part in four for number in part}


def test_epochs_and_seeds_differ() -> None:
    orders = {str(plan_epoch(20, 4, 1, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_records_of_one_image_meet_in_one_graph_only_when_they_must() -> None:
    groups = [f"image{number % 5}" for number in range(20)]
    for step in plan_epoch(20, 4, 1, seed=0, epoch=0, group_of=groups):
        assert len({groups[number] for number in step[0]}) == 4
    all_equal = plan_epoch(6, 4, 1, seed=0, epoch=0, group_of=["same"] * 6)
    assert sorted(number for (part,) in all_equal for number in part) == list(range(6))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_records_of_a_group_follow_one_another_and_groups_differ(size: int) -> None:
    groups = [str(number % 10) for number in range(60)]  # ten groups of six
    steps = plan_epoch(60, 12, 1, seed=0, epoch=0, group_of=groups, records_of_group=size)
    order = [number for step in steps for part in step for number in part]
    assert sorted(order) == list(range(60))
    for step in steps[:3]:
        (part,) = step
        runs = [groups[number] for number in part]
        starts = [n for n in range(len(runs)) if n == 0 or runs[n] != runs[n - 1]]
        if size > 1:
            assert max(b - a for a, b in pairwise(starts)) == size
    other = plan_epoch(60, 12, 1, seed=0, epoch=1, group_of=groups, records_of_group=size)
    assert other != steps


def test_a_group_of_one_is_the_plan_of_before() -> None:
    groups = [str(number % 7) for number in range(40)]
    plain = plan_epoch(40, 8, 1, seed=2, epoch=1, group_of=groups)
    assert plan_epoch(40, 8, 1, seed=2, epoch=1, group_of=groups, records_of_group=1) == plain


def spread_by_rescanning(groups: list[int], batch_size: int) -> list[int]:
    """The rule in its plain words: look through all that is left for every micro-batch."""
    spread: list[int] = []
    waiting = list(range(len(groups)))
    while waiting:
        chosen: list[int] = []
        later: list[int] = []
        for place in waiting:
            known = {groups[each] for each in chosen}
            is_free = len(chosen) < batch_size and groups[place] not in known
            (chosen if is_free else later).append(place)
        missing = batch_size - len(chosen)
        spread += chosen + later[:missing]
        waiting = later[missing:]
    return spread


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 9))
def test_the_fast_order_is_that_of_looking_through_all_that_is_left(
    groups: list[int], batch_size: int
) -> None:
    fast = list(_spread(len(groups), batch_size, groups.__getitem__))
    assert fast == spread_by_rescanning(groups, batch_size)


def test_a_large_epoch_is_planned_in_time_that_grows_with_it_alone() -> None:
    groups = [number * 7919 % 2000 for number in range(200_000)]
    start = time.process_time()
    plan = plan_epoch(len(groups), 8, 4, seed=0, epoch=0, group_of=groups)
    # A look through all that is left for every micro-batch takes over a minute.
    assert time.process_time() - start < 5
    assert plan.order.itemsize * len(plan.order) == 8 * 200_000
    assert all(len({groups[each] for each in part}) == 8 for part in plan[0])


@pytest.mark.parametrize("first", [0, 3, 10, 17, 25])
def test_a_run_that_goes_on_plans_no_epoch_that_is_behind_it(first: int) -> None:
    asked: list[int] = []

    def plan(epoch: int) -> object:
        asked.append(epoch)
        return plan_epoch(40, 2, 2, seed=1, epoch=epoch)

    every = [step for epoch in range(3) for step in plan_epoch(40, 2, 2, seed=1, epoch=epoch)]
    asked.clear()
    found = list(micro_batches(plan, range(first, 25), range(2)))  # type: ignore
    assert found == [part for step in every[first:25] for part in step]
    assert set(asked) == {0, *range(first // 10, 3)}
    batches = MicroBatches(partial(plan_epoch, 40, 2, 2, 1), range(first, 25), range(2))
    assert list(batches) == list(batches) == found and len(batches) == len(found)
