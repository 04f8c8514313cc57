"""Which records are in which step: a pure function of the seed, so resuming needs no stored state.

A step is one contiguous piece of the epoch's permutation. It is cut into
`gradient_accumulation_steps * num_processes` micro-batches, so the records of a step do not depend
on how these are spread over processes.
"""

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.on_demand import OnDemand
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
    group_of: Sequence[Hashable] | None = None,
    lengths: Sequence[int] | None = None,
    records_of_group: int = 1,
) -> "Plan":
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
    order = _whole_numbers(generator.permutation(num_records))
    step_size = batch_size * num_micro_batches
    if lengths is not None:
        # Within a window, equal lengths keep their order.
        size = STEPS_SORTED * step_size
        windows = (order[start : start + size] for start in range(0, num_records, size))
        sorted_windows = (sorted(each, key=lengths.__getitem__) for each in windows)
        order = array("q", chain.from_iterable(sorted_windows))
    if group_of is not None:
        order = _spread_groups(order, batch_size, group_of, records_of_group)
    if lengths is not None:
        # In random order, so that training does not go from short to long; what is left over of
        # whole steps stays the last one.
        num_whole = num_records // step_size
        whole = np.reshape(order[: num_whole * step_size], (num_whole, step_size))
        left = order[num_whole * step_size :]
        order = _whole_numbers(whole[generator.permutation(num_whole)].ravel()) + left
    return Plan(order, step_size, num_micro_batches)


@dataclass(frozen=True)
class Plan(OnDemand[Step]):
    """The steps of an epoch, each made when it is asked for: 8 bytes a record in memory."""

    order: "array[int]"
    """The records, as they are read."""
    step_size: int
    num_micro_batches: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.step_size)

    def _at(self, row: int) -> Step:
        start = row * self.step_size
        piece = self.order[start : start + self.step_size].tolist()
        count = self.num_micro_batches
        # Every process needs a micro-batch, or it would not take part in the step.
        if len(piece) < count:
            piece = [piece[position % len(piece)] for position in range(count)]
        return [each.tolist() for each in np.array_split(piece, count)]


def _whole_numbers(values: NDArray[np.int64]) -> "array[int]":
    return array("q", values.astype(np.int64, copy=False).tobytes())


def image_groups(records: Iterable[Record]) -> "array[int]":
    """The group of each record, as a number: its images, or itself where it has none."""
    numbers: dict[str, int] = {}
    groups = array("i")
    for record in records:
        # What nobody shares needs no name.
        name = record.image_group if record.images else ""
        groups.append(numbers.setdefault(name or f"\0{len(groups)}", len(numbers)))
    return groups


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
    plan: Callable[[int], Sequence[Step]], steps: range, own: range
) -> Iterator[MicroBatch]:
    """The micro-batches of a process, as record numbers.

    Args:
        plan: the steps of an epoch, as many in each; see `plan_epoch`.
        steps: the steps that are still to do, counted over all epochs.
        own: the process's micro-batches by their number within a step.
    """
    first = plan(0)
    size = len(first)
    for epoch in range(steps.start // size, -(-steps.stop // size)):
        planned = plan(epoch) if epoch else first
        begin = epoch * size
        for number in range(max(0, steps.start - begin), min(size, steps.stop - begin)):
            step = planned[number]
            yield from (step[each] for each in own)


@dataclass(frozen=True)
class MicroBatches(Iterable[MicroBatch]):
    """Those of `micro_batches`, made anew by whoever goes through them."""

    plan: Callable[[int], Sequence[Step]]
    steps: range
    own: range

    def __iter__(self) -> Iterator[MicroBatch]:
        return micro_batches(self.plan, self.steps, self.own)

    def __len__(self) -> int:
        return len(self.steps) * len(self.own)


def _spread_groups(
    order: "array[int]", batch_size: int, group_of: Sequence[Hashable], records_of_group: int
) -> "array[int]":
    """Move records back until each micro-batch has distinct groups, while any are left.

    Up to `records_of_group` records of a group move as one, to where the first of them stood.
    """
    if records_of_group == 1:
        places = _spread(len(order), batch_size, lambda place: group_of[order[place]])
        return array("q", map(order.__getitem__, places))
    bundles: list[list[int]] = []
    growing: dict[Hashable, list[int]] = {}
    for number in order:
        own = growing.get(group_of[number])
        if own is None or len(own) == records_of_group:
            own = growing[group_of[number]] = []
            bundles.append(own)
        own.append(number)
    places = _spread(
        len(bundles),
        max(1, batch_size // records_of_group),
        lambda place: group_of[bundles[place][0]],
    )
    return array("q", [number for place in places for number in bundles[place]])


def _spread(num_places: int, batch_size: int, group_of: Callable[[int], Hashable]) -> Iterator[int]:
    """The places in a new order: as many as a micro-batch has are the first ones left of different
    groups, or any where there are not so many groups.

    Of each group only the first place that is left stands in a heap, which makes the time
    proportional to the places; each knows the next one of its group.
    """
    following = array("q", [-1]) * num_places
    newest: dict[Hashable, int] = {}
    # In rising order, so it is a heap already.
    waiting: list[int] = []
    for place in range(num_places):
        group = group_of(place)
        if group in newest:
            following[newest[group]] = place
        else:
            waiting.append(place)
        newest[group] = place
    del newest
    while waiting:
        chosen = [heappop(waiting) for _ in range(min(batch_size, len(waiting)))]
        yield from chosen
        for place in chosen:
            if following[place] >= 0:
                heappush(waiting, following[place])
        for _ in range(batch_size - len(chosen)):
            if not waiting:
                break
            place = heappop(waiting)
            yield place
            if following[place] >= 0:
                heappush(waiting, following[place])
