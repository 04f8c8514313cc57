"""One root module, one forward: image features once, then both losses. The only place that sees
model and alignment.

Shapes: B records, T tokens, N images, P image tokens, D width of the language model.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.model.vlm import ExgraForConditionalGeneration
from exgra_med.recipe.schema import AlignmentSettings
from exgra_med.training.batch import IGNORED, Batch

TOKENS_PER_CHUNK = 1024


class Objective(nn.Module):
    """Language-model loss and, where a stage has it, the multi-graph alignment loss.

    Args:
        model: the native LLaVA model.
        settings: alignment of the stage; none for plain language modelling.
    """

    model: Any  # transformers types the parts of a model as Module or Tensor

    def __init__(
        self, model: ExgraForConditionalGeneration, settings: AlignmentSettings | None
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.alignment: MultiGraphAlignment | None = None
        if settings is not None:
            self.alignment = build_alignment(model.config.text_config.hidden_size, settings)
            self.alignment.requires_grad_(settings.weight > 0)

    def forward(self, batch: Batch, noise_seed: list[int]) -> dict[str, Tensor]:
        """Compute the losses of one batch.

        Args:
            batch: see `training.batch.collate`.
            noise_seed: seed of noise, dropout and search in the alignment of this batch.

        Returns:
            `language_loss_sum` (sum over supervised tokens), `num_supervised`; and with alignment
            `alignment_loss`, `matching_accuracy`, `num_nodes`. In evaluation mode the accuracy is
            that without noise.
        """
        features_NPD = None
        embeddings_BTD = self.model.get_input_embeddings()(batch["input_ids"])
        if batch["pixel_values"] is not None:
            features_NPD = self.model.image_features(batch["pixel_values"])
            embeddings_BTD = self.model.insert_images(batch["input_ids"], features_NPD)
        hidden_BTD = self._decode(embeddings_BTD, batch["attention_mask"])
        losses = self._language_loss(hidden_BTD, batch["labels"])
        if self.alignment is None or "extended_ids" not in batch or features_NPD is None:
            return losses
        assert self.settings is not None
        # Weight 0 still measures, but touches no gradient: it is plain training, bit for bit.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.settings.weight > 0):
            views = self._views(batch, features_NPD)
            return losses | self._align(self.alignment, views, noise_seed)

    def _decode(self, embeddings_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        decoder = self.model.get_decoder()
        return decoder(
            inputs_embeds=embeddings_BTD, attention_mask=mask_BT, use_cache=False
        ).last_hidden_state

    def _language_loss(self, hidden_BTD: Tensor, labels_BT: Tensor) -> dict[str, Tensor]:
        """Cross-entropy on supervised positions only, in chunks: logits of all positions would be
        gigabytes at full size and change nothing."""
        targets = labels_BT[:, 1:]
        supervised = targets != IGNORED
        hidden, targets = hidden_BTD[:, :-1][supervised], targets[supervised]
        chunks = zip(hidden.split(TOKENS_PER_CHUNK), targets.split(TOKENS_PER_CHUNK), strict=True)
        parts = [
            checkpoint(self._chunk_loss, states, goals, use_reentrant=False)
            for states, goals in chunks
        ]
        return {
            "language_loss_sum": torch.stack(parts).sum(),
            "num_supervised": supervised.sum(),
        }

    def _chunk_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(states).float()
        return F.cross_entropy(logits, targets, reduction="sum")

    def _views(self, batch: Batch, features_NPD: Tensor) -> list[Tensor]:
        """Image, answer and extended answer of every record with an image, [B, D] each."""
        with_image, sample_of_image = batch["sample_of_image"].unique(return_inverse=True)
        return [mean_by_sample(features_NPD.mean(1), sample_of_image, len(with_image))] + [
            self._pool_text(batch[f"{name}_ids"][with_image], batch[f"{name}_mask"][with_image])
            for name in ("answer", "extended")
        ]

    def _align(
        self, alignment: MultiGraphAlignment, views: list[Tensor], noise_seed: list[int]
    ) -> dict[str, Tensor]:
        image, answer, extended = views
        output = alignment(image, answer, extended, generator=seed_number(noise_seed))
        accuracy = output.matching_accuracy
        if not self.training:
            accuracy = alignment.matching_accuracy(image, answer, extended)
        return {
            "alignment_loss": output.loss,
            "matching_accuracy": torch.tensor(accuracy, device=image.device),
            "num_nodes": torch.tensor(output.num_nodes, device=image.device),
        }

    def _pool_text(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Mean of the last hidden states of each text, [B, D]; `padded` counts padding as the
        original does."""
        states_BTD = self._decode(self.model.get_input_embeddings()(ids_BT), mask_BT)
        if self.settings is not None and self.settings.pooling == "padded":
            return states_BTD.mean(1)
        weights_BT1 = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
        return (states_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)


def build_alignment(dim: int, settings: AlignmentSettings) -> MultiGraphAlignment:
    """The alignment module of a stage for embeddings of `dim` features."""
    return MultiGraphAlignment(dim, **settings.model_dump(exclude={"weight", "pooling"}))


def seed_number(parts: list[int]) -> int:
    """One seed from several numbers; near inputs give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 2)


def mean_by_sample(values_ND: Tensor, sample_of_value_N: Tensor, num_samples: int) -> Tensor:
    """Mean of the rows that belong to each sample, [num_samples, D]."""
    total = values_ND.new_zeros(num_samples, values_ND.shape[1])
    total = total.index_add(0, sample_of_value_N, values_ND)
    return total / torch.bincount(sample_of_value_N, minlength=num_samples).unsqueeze(1)
