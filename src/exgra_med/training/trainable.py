"""A loaded model made ready for a stage: trainable parts, data type, compilation, sharding."""

import os
import shutil
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exgra_med.errors import RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.model.lora import attach_adapter, connector_modules
from exgra_med.recipe.schema import LoraSettings, StageSettings
from exgra_med.training.checkpoint import load_alignment
from exgra_med.training.distributed import autocast, on_cpu, shard
from exgra_med.training.objective import Objective

BACKEND = "inductor"


def build_objective(
    bundle: Bundle,
    stage: StageSettings,
    graph_weights: Path | None,
    device: torch.device,
    sharded: bool,
) -> Objective:
    """Change a model on the CPU in place as a stage asks for, and join it to the stage's losses.

    `graph_weights` are message-passing weights of an earlier aligned stage, to go on with. The
    objective computes in the precision of the stage.

    Raises:
        CheckpointError: the message-passing weights do not fit.
    """
    set_trainable(bundle, stage.trainable, stage.lora)
    if stage.weights == "bfloat16":
        cast_to_bfloat16(bundle)
    if stage.activation_checkpointing:
        recompute_activations(bundle)
    if stage.compile:
        compile_layers(bundle)
    objective = Objective(bundle, stage.alignment, stage.auxiliary)
    if objective.alignment is not None and graph_weights is not None:
        load_alignment(objective.alignment, graph_weights)
    if sharded:
        shard(objective, device, stage.precision, trainable_rows(bundle, stage.trainable))
    objective.forward = autocast(device, stage.precision)(objective.forward)
    return objective


def set_trainable(bundle: Bundle, parts: Sequence[str], lora: LoraSettings | None = None) -> None:
    """Make the named parts trainable and freeze everything else.

    Names are among `vision` (the tower), `connector` (the projector), `language` (the language
    model, its embeddings and its head; with `lora` through adapters, which are attached here) and
    `image_tokens` (only the embedding rows of `<im_start>` and `<im_end>`, as the original's stage
    1 does for records with an image). The paper never trains the vision tower.
    """
    model: Any = bundle.model
    model.requires_grad_(False)
    for name in parts:
        if name != "image_tokens" and (name != "language" or lora is None):
            for weight in bundle.part(name):
                weight.requires_grad_(True)
    if lora is not None:
        # What peft cannot name stays as it is, so that the adapter holds all that was trained.
        modules = [model.get_submodule(each) for each in connector_modules(bundle)]
        named = {id(weight) for module in modules for weight in module.parameters()}
        for weight in bundle.part("connector"):
            weight.requires_grad_(weight.requires_grad and id(weight) in named)
    if ("language" not in parts or lora is not None) and (rows := trainable_rows(bundle, parts)):
        train_rows(model.get_input_embeddings().weight.requires_grad_(True), rows)
    if lora is not None:
        attach_adapter(bundle, lora)


def trainable_rows(bundle: Bundle, parts: Sequence[str]) -> list[int]:
    """The only rows of the input embeddings that are trained; empty where all or none are."""
    if "language" in parts or "image_tokens" not in parts:
        return []
    return bundle.marker_ids


def train_rows(weight: Tensor, rows: Sequence[int]) -> None:
    """Zero the gradient of every row of a matrix but the given ones."""
    kept = torch.zeros(weight.shape[0], 1)
    kept[list(rows)] = 1.0
    weight.register_hook(lambda gradient: gradient * kept.to(gradient))


def cast_to_bfloat16(bundle: Bundle) -> None:
    """Keep all weights in bfloat16, those of the frozen tower too; adapters stay in float32.

    Buffers keep their type: rotary position angles lose too much in bfloat16.
    """
    for name, weight in bundle.model.named_parameters():
        if ".lora_" not in name:
            weight.data = weight.data.to(torch.bfloat16)


def recompute_activations(bundle: Bundle) -> None:
    """Activation checkpointing: keep only the input of each layer until the backward pass."""
    decoder: Any = bundle.model.get_decoder()
    decoder.gradient_checkpointing_enable({"use_reentrant": False})


def check_compiling_possible() -> None:
    """Check that the compiler which `torch.compile` needs is there.

    Raises:
        RecipeError: no C++ compiler on a machine without accelerator, no triton on one with.
    """
    if on_cpu():
        names = [os.environ.get("CXX", ""), "g++", "clang++"]
        found: Any = any(map(shutil.which, names))
        needed = "a C++ compiler on a machine without a GPU, and there is none."
    else:
        found, needed = util.find_spec("triton"), "triton, which is not installed."
    if not found:
        raise RecipeError(f"`compile: true` needs {needed}", "Set it to false.")


def compile_layers(bundle: Bundle, backend: str = BACKEND) -> None:
    """Compile every layer of the language model in place, for any length of a row.

    Each layer by itself: one compiled layer serves them all, so starting takes seconds to minutes
    instead of the time of a whole 7B graph. In place, so that names in a checkpoint stay.
    """
    decoder: Any = bundle.model.get_decoder()
    for layer in decoder.layers:
        layer.compile(dynamic=True, backend=backend)
