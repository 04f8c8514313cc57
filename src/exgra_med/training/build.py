"""A loaded model made ready for a stage: what learns, in which types, on which processes."""

from pathlib import Path

import torch

from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.checkpoint import load_alignment
from exgra_med.training.compiled import compile_layers
from exgra_med.training.objective import Objective
from exgra_med.training.parts import (
    choose_parts,
    keep_in_bfloat16,
    learning_rows,
    recompute_activations,
)
from exgra_med.training.processes import autocast
from exgra_med.training.sharding import shard


def build_objective(
    bundle: Bundle,
    stage: StageSettings,
    graph_weights: Path | None,
    device: torch.device,
    sharded: bool,
) -> Objective:
    """Change a model in place as a stage wants it, and join it to the stage's losses.

    Args:
        bundle: the model, on the CPU.
        stage: its settings.
        graph_weights: message-passing weights of an earlier aligned stage, to go on with.
        device: where this process computes.
        sharded: whether the processes share out the weights.

    Returns:
        The objective, which computes in the precision of the stage.

    Raises:
        CheckpointError: the message-passing weights do not fit.
    """
    choose_parts(bundle, stage.learn, stage.lora)
    if stage.weights == "bfloat16":
        keep_in_bfloat16(bundle)
    if stage.activation_checkpointing:
        recompute_activations(bundle)
    if stage.compile:
        compile_layers(bundle)
    objective = Objective(bundle.model, stage.alignment)
    if objective.alignment is not None and graph_weights is not None:
        load_alignment(objective.alignment, graph_weights)
    if sharded:
        shard(objective, device, stage.precision, learning_rows(bundle, stage.learn))
    objective.forward = autocast(device, stage.precision)(objective.forward)
    return objective
