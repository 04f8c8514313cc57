"""The order of records is a function of the seed, whatever the passes and processes."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.training.order import num_steps, plan_epoch


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
