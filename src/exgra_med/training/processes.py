"""The processes of one launch (`accelerate launch`, `torchrun`), with or without an accelerator."""

import os
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list

from exgra_med.errors import RecipeError

Value = TypeVar("Value")
_ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": (
        "DeepSpeed",
        "It moves weights, gradients and moments where checkpoints and clipping do not find them.",
    ),
    "ACCELERATE_USE_FSDP": (
        "FSDP",
        "What is sharded belongs to the recipe, so that a run can be repeated.",
    ),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "It brings its own models."),
}


def on_cpu() -> bool:
    """Whether training runs on processors only; accelerate has to be told to use gloo then."""
    return not torch.accelerator.is_available()


def process_state() -> PartialState:
    """This process among the others."""
    return PartialState(cpu=on_cpu())


def refuse_other_engines() -> None:
    """The way weights are spread is `stages.*.sharding`, not accelerate's own configuration.

    Raises:
        RecipeError: `accelerate launch` was told to use DeepSpeed, FSDP or Megatron-LM.
    """
    for variable, (engine, reason) in _ENGINES.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise RecipeError(
                f"`accelerate launch` was configured for {engine}, which training does not take "
                f"from there. {reason}",
                "Launch without it, and set `stages.STAGE.sharding: full` to shard all weights.",
            )


def make_accelerator(find_unused: bool) -> Accelerator:
    """Accelerate for one stage. Precision is ours: accelerate allows a process only one.

    Args:
        find_unused: whether a pass may leave something that learns without a gradient.
    """
    return Accelerator(
        cpu=on_cpu(),
        mixed_precision="no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=find_unused)],
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context, or decorator, in which products are computed in the precision of a stage."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def of_main(value: Value) -> Value:
    """The value that the main process has, on all of them."""
    values = [value]
    broadcast_object_list(values)
    return values[0]
