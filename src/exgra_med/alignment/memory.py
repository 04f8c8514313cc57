"""Experiment: graphs that also hold the samples of earlier micro batches.

Gradient accumulation cannot enlarge a graph, since every micro batch has its own. A memory bank
keeps the embeddings of the last micro batches, without their graph, and puts them beside the new
ones: matchings get harder, gradients flow to the new samples alone. Whether it helps training has
not been measured.

Shapes: B samples of a micro batch, R remembered ones, D features.
"""

from collections import deque

import torch


class MemoryBank:
    """The last `batches` micro batches of views.

    Args:
        batches: micro batches to remember; accumulation steps - 1 gives graphs of a whole step.

    Example:
        >>> bank = MemoryBank(3)
        >>> views = [torch.randn(4, 8, requires_grad=True) for _ in range(3)]
        >>> [len(view) for view in bank.extend(views)], [len(view) for view in bank.extend(views)]
        ([4, 4, 4], [8, 8, 8])
    """

    def __init__(self, batches: int) -> None:
        self._kept: deque[list[torch.Tensor]] = deque(maxlen=batches)

    def extend(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """The views [B, D] with all remembered ones behind them, [B + R, D]; remembers `views`."""
        extended = [
            torch.cat([view, *(old[number].to(view) for old in reversed(self._kept))])
            for number, view in enumerate(views)
        ]
        self._kept.append([view.detach() for view in views])
        return extended

    def clear(self) -> None:
        """Forget everything; call it after an optimizer step to hold no stale embedding."""
        self._kept.clear()
