"""Which records meet in which step: a pure function of the seed, so resuming needs no stored state.

A step is one contiguous piece of the epoch's permutation. It is cut into
`gradient_accumulation_steps * num_processes` micro-batches, so the records of a step do not depend
on how these are spread over processes.
"""

from collections.abc import Iterator, Sequence

import numpy as np

STEPS_SORTED = 32
"""Steps among whose records those of similar length are brought together."""

Part = list[int]
Step = list[Part]


def plan_epoch(
    num_records: int,
    part_size: int,
    num_parts: int,
    seed: int,
    epoch: int,
    group_of: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
) -> list[Step]:
    """Plan one epoch.

    Args:
        num_records: records of the stage.
        part_size: records in one forward pass on one device.
        num_parts: `gradient_accumulation_steps * num_processes`.
        seed: seed of the stage.
        epoch: number of the epoch, from 0.
        group_of: a group name per record (its image). Where given, the records of one part are
            of different groups as far as the numbers allow: two equal images in one graph are two
            nodes that no matching can tell apart.
        lengths: length of each record. Where given, records of similar length meet in a step:
            each `STEPS_SORTED` steps of the permutation are sorted, and the whole steps shuffled.

    Returns:
        Steps, each a list of `num_parts` parts, each a list of record numbers. Every record occurs
        once; only where the last step has fewer records than parts are some repeated.
    """
    generator = np.random.default_rng([seed, epoch])
    order = [int(number) for number in generator.permutation(num_records)]
    step_size = part_size * num_parts
    if lengths is not None:
        order = _sort_windows(order, STEPS_SORTED * step_size, lengths)
    if group_of is not None:
        order = _spread_groups(order, part_size, group_of)
    if lengths is not None:
        order = _shuffle_steps(order, step_size, generator)
    steps = []
    for start in range(0, num_records, step_size):
        chunk = order[start : start + step_size]
        if len(chunk) < num_parts:
            chunk = [chunk[position % len(chunk)] for position in range(num_parts)]
        steps.append(
            [[int(number) for number in part] for part in np.array_split(chunk, num_parts)]
        )
    return steps


def num_steps(num_records: int, part_size: int, num_parts: int, epochs: float) -> int:
    """Optimizer steps in `epochs` passes, at least one."""
    steps_per_epoch = -(-num_records // (part_size * num_parts))
    return max(1, round(epochs * steps_per_epoch))


def _sort_windows(order: Part, size: int, lengths: Sequence[int]) -> Part:
    """Sort each window of the permutation by length; equal lengths keep their order."""
    windows = (order[start : start + size] for start in range(0, len(order), size))
    return [number for each in windows for number in sorted(each, key=lambda n: lengths[n])]


def _shuffle_steps(order: Part, step_size: int, generator: np.random.Generator) -> Part:
    """Whole steps in random order, so that training does not go from short to long; what is left
    over stays the last step."""
    num_whole = len(order) // step_size
    shuffled = [
        number
        for step in generator.permutation(num_whole)
        for number in order[step * step_size : (step + 1) * step_size]
    ]
    return shuffled + order[num_whole * step_size :]


def _spread_groups(order: Part, part_size: int, group_of: Sequence[str]) -> Part:
    """Move records back until each piece of `part_size` has distinct groups, while any are left."""
    spread: Part = []
    waiting = order
    while waiting:
        taken: set[str] = set()
        piece: Part = []
        later: Part = []
        for number in waiting:
            if len(piece) < part_size and group_of[number] not in taken:
                taken.add(group_of[number])
                piece.append(number)
            else:
                later.append(number)
        fill = part_size - len(piece)
        spread += piece + later[:fill]
        waiting = later[fill:]
    return spread


def passes(
    num_records: int,
    part_size: int,
    num_parts: int,
    seed: int,
    steps: range,
    process: range,
    group_of: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
) -> Iterator[Part]:
    """Record numbers of every forward pass of a process.

    Args:
        num_records, part_size, num_parts, seed, group_of, lengths: see `plan_epoch`.
        steps: the steps that are still to do, counted over all epochs.
        process: numbers of this process's parts within a step.
    """
    step = epoch = 0
    while step < steps.stop:
        plan = plan_epoch(num_records, part_size, num_parts, seed, epoch, group_of, lengths)
        for parts in plan:
            if step in steps:
                yield from (parts[number] for number in process)
            step += 1
        epoch += 1
