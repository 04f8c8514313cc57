"""What the matrix products of a step take by themselves: the least time a machine needs for it."""

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {
    torch.ops.aten.mm.default: slice(0, 2),
    torch.ops.aten.bmm.default: slice(0, 2),
    torch.ops.aten.addmm.default: slice(1, 3),
    torch.ops.aten.baddbmm.default: slice(1, 3),
}
"""Each with the place of its two factors among the arguments."""


class Products(TorchDispatchMode):
    """Counts the matrix products of what runs inside, by shape, layout and precision."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchDispatchMode`."""
        if func in PRODUCTS:
            factors = args[PRODUCTS[func]]
            self.counts[tuple((*each.shape, each.stride(), each.dtype) for each in factors)] += 1
        return func(*args, **(kwargs or {}))

    def seconds(self, repetitions: int = 3) -> float:
        """Processor seconds of all of them, one after another, with nothing between them."""
        total = 0.0
        for factors, count in self.counts.items():
            made = [_factor(each) for each in factors]
            times = []
            for _ in range(repetitions):
                began = time.process_time()
                torch.matmul(*made)
                times.append(time.process_time() - began)
            total += count * min(times)
        return total

    def flops(self) -> float:
        """A multiplication and an addition are two."""
        total = 0.0
        for (first, second), count in self.counts.items():
            *batch, rows, inner, _, _ = first
            total += 2.0 * count * (batch[0] if batch else 1) * rows * inner * second[-3]
        return total


def _factor(told: tuple[Any, ...]) -> torch.Tensor:
    *shape, stride, dtype = told
    made = torch.empty_strided(shape, stride, dtype=dtype)
    return made.normal_()
