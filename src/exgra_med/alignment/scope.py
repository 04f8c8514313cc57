"""Graphs over the samples of all ranks instead of those of one.

Each rank embeds its own samples and gathers those of the others; every rank then builds the same
graphs and, with equal seeds, solves the same problems to the same matchings. The gradient of the
gather is the sum over ranks, of which each keeps its own rows, so that averaging over ranks (as
DDP and FSDP do) gives the gradient of one process with the whole batch.

Shapes: B samples of this rank (may differ between ranks), W ranks, D features.
"""

from typing import Any

import torch
import torch.distributed as dist

from exgra_med.alignment.settings import Scope


def gather_views(views: list[torch.Tensor], scope: Scope) -> list[torch.Tensor]:
    """Views of this rank, or of all ranks one after the other: a list of [sum of B, D].

    Args:
        views: [B, D] each, all with the same B and dtype.
        scope: `local` or `global`; without a process group both are the same.
    """
    if scope == "local" or not _in_group():
        return views
    together = _Gather.apply(torch.cat(views, dim=1))
    return list(together.chunk(len(views), dim=1))


def shared_seed(seed: int, scope: Scope, device: torch.device) -> int:
    """The seed of the first rank, on all ranks, where graphs are global."""
    if scope == "local" or not _in_group():
        return seed
    value = torch.tensor([seed], dtype=torch.long, device=device)
    dist.broadcast(value, src=0)
    return int(value)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """All ranks' rows; backward sums over ranks and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        count = torch.tensor([rows.shape[0]], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        ctx.counts = [int(number) for number in counts]
        padded = rows.new_zeros(max(ctx.counts), rows.shape[1])
        padded[: rows.shape[0]] = rows
        found = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:n] for part, n in zip(found, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()]
