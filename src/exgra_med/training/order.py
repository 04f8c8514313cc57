"""Which records are in which step: a pure function of the seed, so resuming needs no stored state.

A step is one contiguous piece of the epoch's permutation. It is cut into
`gradient_accumulation_steps * num_processes` micro-batches, so the records of a step do not depend
on how these are spread over processes.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice

import numpy as np

from exgra_med.data.records import Record

STEPS_SORTED = 32
"""Steps among whose records those of similar length are brought together."""

MicroBatch = list[int]
Step = list[MicroBatch]


def plan_epoch(
    num_records: int,
    batch_size: int,
    num_micro_batches: int,
    seed: int,
    epoch: int,
    group_of: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    records_of_group: int = 1,
) -> list[Step]:
    """Plan one epoch.

    Args:
        batch_size: records of a micro-batch.
        num_micro_batches: of a step, over all processes.
        epoch: from 0.
        group_of: a group name per record (its image). Where given, the records of a micro-batch
            are of different groups as far as the numbers allow: two equal images in one graph are
            two nodes that no matching can tell apart.
        lengths: length of each record. Where given, records of similar length meet in a step:
            each `STEPS_SORTED` steps of the permutation are sorted, and the whole steps shuffled.
        records_of_group: records of one group that follow one another, as far as there are so many.

    Returns:
        Steps, each a list of `num_micro_batches` lists of record numbers. Every record occurs once;
        only where the last step has fewer records than micro-batches are some repeated.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(num_records).tolist()
    step_size = batch_size * num_micro_batches
    if lengths is not None:
        # Within a window, equal lengths keep their order.
        size = STEPS_SORTED * step_size
        windows = [order[start : start + size] for start in range(0, num_records, size)]
        order = [number for each in windows for number in sorted(each, key=lengths.__getitem__)]
    if group_of is not None:
        order = _spread_groups(order, batch_size, group_of, records_of_group)
    if lengths is not None:
        # In random order, so that training does not go from short to long; what is left over of
        # whole steps stays the last one.
        num_whole = num_records // step_size
        whole = np.reshape(order[: num_whole * step_size], (num_whole, step_size))
        left = order[num_whole * step_size :]
        order = whole[generator.permutation(num_whole)].ravel().tolist() + left
    steps = []
    for start in range(0, num_records, step_size):
        piece = order[start : start + step_size]
        # Every process needs a micro-batch, or it would not take part in the step.
        if len(piece) < num_micro_batches:
            piece = [piece[position % len(piece)] for position in range(num_micro_batches)]
        steps.append([each.tolist() for each in np.array_split(piece, num_micro_batches)])
    return steps


def image_groups(records: Sequence[Record]) -> list[str]:
    """The group of each record: its images, or itself where it has none."""
    return [record.image_group for record in records]


def num_steps(
    num_records: int,
    batch_size: int,
    num_micro_batches: int,
    epochs: float,
    max_steps: int | None = None,
) -> int:
    """Optimizer steps in `epochs` epochs, at least one and at most `max_steps`."""
    steps_per_epoch = -(-num_records // (batch_size * num_micro_batches))
    total = max(1, round(epochs * steps_per_epoch))
    return min(total, max_steps or total)


def micro_batches(
    plan: Callable[[int], list[Step]], steps: range, own: range
) -> Iterator[MicroBatch]:
    """The micro-batches of a process, as record numbers.

    Args:
        plan: the steps of an epoch, see `plan_epoch`.
        steps: the steps that are still to do, counted over all epochs.
        own: the process's micro-batches by their number within a step.
    """
    planned = chain.from_iterable(map(plan, count()))
    for number, step in enumerate(islice(planned, steps.stop)):
        if number in steps:
            yield from (step[each] for each in own)


def _spread_groups(
    order: list[int], batch_size: int, group_of: Sequence[str], records_of_group: int
) -> list[int]:
    """Move records back until each micro-batch has distinct groups, while any are left.

    Up to `records_of_group` records of a group move as one, to where the first of them stood.
    """
    bundles: list[list[int]] = []
    growing: dict[str, list[int]] = {}
    for number in order:
        own = growing.get(group_of[number])
        if own is None or len(own) == records_of_group:
            own = growing[group_of[number]] = []
            bundles.append(own)
        own.append(number)
    spread = _spread(
        list(range(len(bundles))),
        max(1, batch_size // records_of_group),
        [group_of[own[0]] for own in bundles],
    )
    return [number for each in spread for number in bundles[each]]


def _spread(order: list[int], batch_size: int, group_of: Sequence[str]) -> list[int]:
    spread: list[int] = []
    waiting = order
    while waiting:
        taken: set[str] = set()
        chosen: list[int] = []
        later: list[int] = []
        for number in waiting:
            if len(chosen) < batch_size and group_of[number] not in taken:
                taken.add(group_of[number])
                chosen.append(number)
            else:
                later.append(number)
        missing = batch_size - len(chosen)
        spread += chosen + later[:missing]
        waiting = later[missing:]
    return spread
