"""Losses and matching accuracy on records that are not learnt from, without dropout.

The matching accuracy is without noise; the alignment loss has the noise of one fixed seed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from exgra_med.training.batch import Batch, StageDataset, to_device
from exgra_med.training.objective import Objective
from exgra_med.training.order import plan_epoch

_ORDER_SEED = 0
_NOISE_SEED = 0


@contextmanager
def _own_graphs(objective: Objective) -> Iterator[None]:
    """Graphs of this process alone: all have the same records, and a node's twin is no partner."""
    alignment = objective.alignment
    if alignment is None:
        yield
        return
    scope, alignment.scope = alignment.scope, "local"
    gathers, objective.gathers = objective.gathers, False
    try:
        yield
    finally:
        alignment.scope, objective.gathers = scope, gathers


class HeldOut:
    """A fixed set of held-out batches, the same at every measurement of every run.

    Args:
        dataset: held-out records; none where the data has no such split.
        batch_size: records of a batch, and nodes of its graphs.
        num_batches: batches of one measurement.
    """

    def __init__(self, dataset: StageDataset | None, batch_size: int, num_batches: int) -> None:
        self.dataset, self.batch_size, self.num_batches = dataset, batch_size, num_batches

    @torch.no_grad()
    def measure(self, objective: Objective, device: torch.device) -> dict[str, float]:
        """Measure.

        Returns:
            `language_loss` per supervised token, `num_records`, and with alignment
            `alignment_loss`, `matching_accuracy` (share of nodes matched to their own partner,
            averaged over the directed problems), `chance` (that of a random matching); empty where
            there is no held-out data.
        """
        if self.dataset is None:
            return {}
        was_training = objective.training
        objective.eval()
        sums: dict[str, float] = {}
        num_records = num_nodes = num_graphs = 0
        for batch in self._batches(self.dataset):
            with _own_graphs(objective):
                losses = objective(to_device(batch, device), [_NOISE_SEED])
            num_records += len(batch["ids"])
            for name in ("language_loss_sum", "num_supervised"):
                sums[name] = sums.get(name, 0.0) + float(losses[name])
            if "alignment_loss" in losses:
                nodes = int(losses["num_nodes"])
                num_nodes, num_graphs = num_nodes + nodes, num_graphs + 1
                for name in ("alignment_loss", "matching_accuracy"):
                    sums[name] = sums.get(name, 0.0) + nodes * float(losses[name])
        objective.train(was_training)
        figures = {
            "language_loss": sums["language_loss_sum"] / sums["num_supervised"],
            "num_records": num_records,
        }
        if num_nodes:
            figures["alignment_loss"] = sums["alignment_loss"] / num_nodes
            figures["matching_accuracy"] = sums["matching_accuracy"] / num_nodes
            figures["chance"] = num_graphs / num_nodes
        return figures

    def _batches(self, dataset: StageDataset) -> Iterator[Batch]:
        groups = [record.images[0] if record.images else record.id for record in dataset.records]
        # Two nodes with the same image cannot be told apart, so no graph gets more than there are.
        part_size = min(self.batch_size, len(set(groups)))
        steps = plan_epoch(len(dataset), part_size, 1, _ORDER_SEED, 0, groups)
        for (part,) in steps[: self.num_batches]:
            yield dataset.collate([dataset[number] for number in part])
