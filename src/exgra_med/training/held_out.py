"""Losses and matching accuracy on records that are not learnt from, without dropout.

The matching accuracy is without noise; the alignment loss has the noise of one fixed seed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exgra_med.training.batch import Batch, StageDataset, to_device
from exgra_med.training.objective import Objective
from exgra_med.training.order import plan_epoch
from exgra_med.training.views import ViewFigures, image_answer_accuracy

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
        measure_views: also measure how the views lie to each other.
    """

    def __init__(
        self,
        dataset: StageDataset | None,
        batch_size: int,
        num_batches: int,
        measure_views: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.num_batches = dataset, batch_size, num_batches
        self.measure_views = measure_views

    @torch.no_grad()
    def measure(self, objective: Objective, device: torch.device) -> dict[str, Any]:
        """Measure.

        Returns:
            `language_loss` per supervised token, `num_records`, and with alignment
            `alignment_loss`, `matching_accuracy` (share of nodes matched to their own partner,
            averaged over the directed problems), `chance` (that of a random matching); with graphs
            `image_answer_accuracy`, that of the bare embeddings, and where asked for `views`, see
            `ViewFigures`; empty where there is no held-out data.
        """
        if self.dataset is None:
            return {}
        was_training = objective.training
        objective.eval()
        sums: dict[str, float] = {}
        num_records = num_nodes = num_graphs = num_viewed = num_batches = 0
        views = ViewFigures() if self.measure_views else None
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
            if "image_view" in losses:
                image, answer = losses["image_view"], losses["answer_view"]
                own = len(image) * image_answer_accuracy(image, answer)
                sums["image_answer"] = sums.get("image_answer", 0.0) + own
                num_viewed, num_batches = num_viewed + len(image), num_batches + 1
                if views is not None:
                    views.add(image, answer, losses.get("extended_view"))
        objective.train(was_training)
        figures: dict[str, Any] = {
            "language_loss": sums["language_loss_sum"] / sums["num_supervised"],
            "num_records": num_records,
        }
        if num_nodes:
            figures["alignment_loss"] = sums["alignment_loss"] / num_nodes
            figures["matching_accuracy"] = sums["matching_accuracy"] / num_nodes
            figures["chance"] = num_graphs / num_nodes
        if num_viewed:
            figures["image_answer_accuracy"] = sums["image_answer"] / num_viewed
            figures.setdefault("chance", num_batches / num_viewed)
            if views is not None:
                figures["views"] = views.figures()
        return figures

    def _batches(self, dataset: StageDataset) -> Iterator[Batch]:
        groups = [record.images[0] if record.images else record.id for record in dataset.records]
        # Two nodes with the same image cannot be told apart, so no graph gets more than there are.
        part_size = min(self.batch_size, len(set(groups)))
        steps = plan_epoch(len(dataset), part_size, 1, _ORDER_SEED, 0, groups)
        for (part,) in steps[: self.num_batches]:
            yield dataset.collate([dataset[number] for number in part])
