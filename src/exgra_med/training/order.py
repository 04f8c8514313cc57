"""Which records meet in which step: a pure function of the seed, so resuming needs no stored state.

A global step is one contiguous piece of the epoch's permutation. It is cut into
`accumulation_steps * num_processes` parts, so the records of a step do not depend on how the step
is spread over passes and devices.
"""

from collections.abc import Sequence

import numpy as np

Part = list[int]
Step = list[Part]


def plan_epoch(
    num_records: int,
    part_size: int,
    num_parts: int,
    seed: int,
    epoch: int,
    group_of: Sequence[str] | None = None,
) -> list[Step]:
    """Plan one epoch.

    Args:
        num_records: records of the stage.
        part_size: records in one forward pass on one device.
        num_parts: `accumulation_steps * num_processes`.
        seed: seed of the stage.
        epoch: number of the epoch, from 0.
        group_of: a group name per record (its image). Where given, the records of one part are
            of different groups as far as the numbers allow: two equal images in one graph are two
            nodes that no matching can tell apart.

    Returns:
        Steps, each a list of `num_parts` parts, each a list of record numbers. Every record occurs
        once; only where the last step has fewer records than parts are some repeated.
    """
    generator = np.random.default_rng([seed, epoch])
    order = [int(number) for number in generator.permutation(num_records)]
    if group_of is not None:
        order = _spread_groups(order, part_size, group_of)
    step_size = part_size * num_parts
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
