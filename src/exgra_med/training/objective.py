"""One root module, one forward: image features once, then both losses. The only place that sees
model and alignment.

Shapes: R rows of L tokens, K image vectors, M nodes, D width of the language model.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.diagnostics import NAMES
from exgra_med.errors import MatchingError, TrainingError
from exgra_med.model.batch import IGNORED, Batch, Rows
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import AuxiliarySettings, StageAlignment

if TYPE_CHECKING:
    from exgra_med.training.auxiliary import AuxiliaryLoss

TOKENS_PER_CHUNK = 1024
DIVERGED = "Lower the learning rate, or look at the last lines of log.jsonl."
Result = TypeVar("Result")


class Objective(nn.Module):
    """Language-model loss and, where a stage has them, the multi-graph alignment loss and one of
    its rivals."""

    model: Any  # transformers types the parts of a model as Module or Tensor
    sharded = False
    """Whether weights are sharded over processes. These gather weights and reduce gradients
    together, so each needs as many calls of the language model as the others, and a gradient, if
    only zero, for every trainable parameter."""

    def __init__(
        self,
        bundle: Bundle,
        settings: StageAlignment | None,
        auxiliary: AuxiliarySettings | None = None,
    ) -> None:
        super().__init__()
        self.bundle, self.model = bundle, bundle.model
        self.alignment: MultiGraphAlignment | None = None
        self.gathers = False
        if settings is not None:
            self.alignment = MultiGraphAlignment(bundle.width, settings)
            self.alignment.requires_grad_(settings.weight > 0)
            self.gathers = settings.weight > 0 and settings.scope == "global"
        self.auxiliary: AuxiliaryLoss | None = None
        if auxiliary is not None:
            from exgra_med.training import auxiliary as rivals

            self.auxiliary = rivals.AuxiliaryLoss(bundle, auxiliary)

    def forward(self, batch: Batch, noise_seed: list[int]) -> dict[str, Tensor]:
        """Compute the losses of one batch, see `Bundle.collate`.

        The seed is that of noise, dropout and search in the alignment of this batch.

        Returns:
            `language_loss_sum` (sum over supervised tokens), `num_supervised`; with a rival of the
            alignment `auxiliary_loss`; and with alignment
            `alignment_loss`, `matching_accuracy`, `num_nodes`. In evaluation mode the accuracy is
            that without noise, and the pooled views of the nodes [M, D] are there, too, as
            `image_view`, `answer_view` and, where the batch has them, `extended_view`.
        """
        missing = num_missing_calls(batch) if self.sharded else 0
        with nullcontext() if self.auxiliary is None else self.auxiliary.watching() as watched:
            images_KD, states = self.bundle.encode(batch, every_call_learns=self.sharded)
        zeros = [self.bundle.empty_call(batch).sum() for _ in range(missing)]
        losses = self._language_loss(states, batch["calls"])
        if self.auxiliary is not None and watched is not None:
            losses["auxiliary_loss"] = self.auxiliary(watched, batch["calls"], states)
        # Where only the connector is trained, a batch without images has no trainable parameter.
        detached = torch.is_grad_enabled() and not losses["language_loss_sum"].requires_grad
        if self.sharded or detached:
            unused = self.unused(batch["num_images"] > 0, batch["num_nodes"] > 0)
            zeros += [each.sum() for each in unused]
            losses["language_loss_sum"] = losses["language_loss_sum"] + 0.0 * sum(zeros)
        # Where graphs are global, processes without a node of their own have to take part.
        if batch["num_nodes"] == 0 and not self.gathers:
            return losses
        if self.alignment is None and self.training:
            return losses
        views = pool_views(batch, images_KD, states)
        if not self.training:
            losses |= {f"{name}_view": view for name, view in zip(NAMES, views, strict=False)}
        if self.alignment is None or len(views) < self.alignment.num_views:
            return losses
        return losses | self._align(self.alignment, views, noise_seed)

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function that uses parts of the model; sharded weights are gathered meanwhile."""
        return function()

    def unused(self, images: bool, nodes: bool) -> list[nn.Parameter]:
        """Trainable parameters without a gradient from a batch without images, or without nodes."""
        found = [] if images else self.bundle.part("connector")
        found += [] if nodes or self.alignment is None else list(self.alignment.parameters())
        return [each for each in found if each.requires_grad]

    def drop_unused_gradients(self, images: int, nodes: int) -> None:
        """Remove the zero gradients of parameters that no batch of a step has used, since AdamW
        would move them by their momentum and weight decay. Images and nodes are counted on all
        processes.
        """
        for each in self.unused(images > 0, nodes > 0):
            each.grad = None

    def _language_loss(self, states: Sequence[Tensor], calls: Sequence[Rows]) -> dict[str, Tensor]:
        """Cross-entropy on supervised positions only, in chunks: logits of all positions would be
        gigabytes at full size and change nothing."""
        goals = [rows["targets"] for rows in calls]
        hidden = torch.cat([h[t != IGNORED] for h, t in zip(states, goals, strict=True)])
        targets = torch.cat([each[each != IGNORED] for each in goals])
        chunks = zip(hidden.split(TOKENS_PER_CHUNK), targets.split(TOKENS_PER_CHUNK), strict=True)
        parts = [
            checkpoint(self._chunk_loss, states, goals, use_reentrant=False)
            for states, goals in chunks
        ]
        return {
            "language_loss_sum": torch.stack(parts).sum(),
            "num_supervised": torch.tensor(len(targets), device=targets.device),
        }

    def _chunk_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        logits = self.bundle.logits(states).float()
        return F.cross_entropy(logits, targets, reduction="sum")

    def _align(
        self, alignment: MultiGraphAlignment, views: list[Tensor], noise_seed: list[int]
    ) -> dict[str, Tensor]:
        image, answer, extended = (*views, None)[:3]
        try:
            output = alignment(image, answer, extended, generator=seed_number(noise_seed))
        except MatchingError as error:
            # The settings were checked long before, so it is the numbers: training has diverged.
            raise TrainingError(
                f"The graphs cannot be matched: {error.message}", DIVERGED
            ) from error
        if output.num_nodes == 0:
            return {}
        accuracy = output.matching_accuracy
        if not self.training:
            accuracy = alignment.matching_accuracy(image, answer, extended)
        return {
            "alignment_loss": output.loss,
            "matching_accuracy": torch.tensor(accuracy, device=image.device),
            "num_nodes": torch.tensor(output.num_nodes, device=image.device),
        }


def num_missing_calls(batch: Batch) -> int:
    """How many calls of the language model the process with most calls has more than this one. All
    processes gather the layers of each call together."""
    own = len(batch["calls"])
    most = batch["calls"][0]["input_ids"].new_tensor(own)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most) - own


def seed_number(parts: list[int]) -> int:
    """One seed from several numbers; near inputs give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 2)


def pool_views(batch: Batch, images_KD: Tensor | None, states: Sequence[Tensor]) -> list[Tensor]:
    """Image, answer and, where the batch has it, extended answer of every node, [M, D] float32.

    Images are the mean over the vectors of a record; texts the mean over the vectors of their
    segment in `states`.
    """
    num_nodes = batch["num_nodes"]
    flat = torch.cat([each.flatten(0, 1) for each in states])
    # Without images there are no nodes. It requires a gradient all the same: the backward pass of
    # the gather in `alignment.scope` has to run on all processes.
    image = torch.zeros(0, flat.shape[1], device=flat.device)
    image.requires_grad_(torch.is_grad_enabled())
    if images_KD is not None:
        image = mean_by_group(images_KD, batch["node_of_image"], num_nodes)
    segment = torch.cat([rows["segment"].flatten() for rows in batch["calls"]])
    kinds = 1 + batch["has_extended"]
    texts = mean_by_group(flat, segment, kinds * num_nodes)
    return [image, *(texts[kind * num_nodes : (kind + 1) * num_nodes] for kind in range(kinds))]


def mean_by_group(values_ND: Tensor, group_N: Tensor, num_groups: int) -> Tensor:
    """Mean in float32 of the rows of each group, [num_groups, D]; rows of group -1 are left out."""
    kept = group_N >= 0
    values_ND, group_N = values_ND[kept].float(), group_N[kept]
    total = values_ND.new_zeros(num_groups, values_ND.shape[1]).index_add(0, group_N, values_ND)
    return total / torch.bincount(group_N, minlength=num_groups).unsqueeze(1)
