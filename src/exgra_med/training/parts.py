"""Which parts of the model learn in a stage. In the paper's stages the vision tower never does."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from exgra_med.model.bundle import Bundle
from exgra_med.model.lora import attach_adapter
from exgra_med.recipe.schema import LoraSettings


def choose_parts(bundle: Bundle, learn: Sequence[str], lora: LoraSettings | None = None) -> None:
    """Let the named parts learn and freeze everything else.

    Args:
        bundle: the model and its tokens.
        learn: names among `vision` (the tower), `connector` (the projector), `language` (the
            language model, its embeddings and its head) and `image_tokens` (only the embedding rows
            of `<im_start>` and `<im_end>`, as the original's stage 1 does for records with an
            image).
        lora: let the language model learn through adapters, which are attached here.
    """
    model: Any = bundle.model
    model.requires_grad_(False)
    if "vision" in learn:
        model.model.vision_tower.requires_grad_(True)
    if "connector" in learn:
        model.model.multi_modal_projector.requires_grad_(True)
    if "language" in learn and lora is None:
        model.get_decoder().requires_grad_(True)
        model.get_output_embeddings().requires_grad_(True)
    elif learning_rows(bundle, learn):
        weight = model.get_input_embeddings().weight.requires_grad_(True)
        keep_rows(weight, learning_rows(bundle, learn))
    if lora is not None:
        attach_adapter(bundle, lora)


def keep_in_bfloat16(bundle: Bundle) -> None:
    """Keep the model in bfloat16, its frozen tower too; adapters stay in float32.

    Buffers stay as they are: the angles of the positions are wrong in bfloat16.
    """
    for name, weight in bundle.model.named_parameters():
        if ".lora_" not in name:
            weight.data = weight.data.to(torch.bfloat16)


def learning_rows(bundle: Bundle, learn: Sequence[str]) -> list[int]:
    """The only rows of the input embeddings that learn; empty where all or none do."""
    if "language" in learn or "image_tokens" not in learn:
        return []
    return [bundle.image_start_id, bundle.image_end_id]


def recompute_activations(bundle: Bundle) -> None:
    """Let the language model keep only what enters each layer, until the backward pass."""
    decoder: Any = bundle.model.get_decoder()
    decoder.gradient_checkpointing_enable({"use_reentrant": False})


def keep_rows(weight: Tensor, rows: Sequence[int]) -> None:
    """Zero the gradient of every row of a matrix but the given ones."""
    kept = torch.zeros(weight.shape[0], 1)
    kept[list(rows)] = 1.0

    def mask(gradient: Tensor) -> Tensor:
        return gradient * kept.to(gradient)

    weight.register_hook(mask)
