"""Where a checkpoint answers: an accelerator in bfloat16 where there is one, else the CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exgra_med.evaluation.sharding import launched_processes

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Place:
    """A device and the type of weights on it, by their names in torch."""

    device: str
    dtype: str


def best_place() -> Place:
    """This process's place: under `accelerate launch` each has an accelerator of its own."""
    import torch

    if not torch.accelerator.is_available():
        # Half precision is slow or missing on CPUs.
        return Place("cpu", "float32")
    device = torch.accelerator.current_accelerator()
    if launched_processes().count > 1:
        from accelerate import PartialState

        device = PartialState().device
    return Place(str(device), "bfloat16")


def load_to_answer(checkpoint: Path, place: Place) -> "Bundle":
    """Load a checkpoint where it answers.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    import torch

    from exgra_med.model.bundle import load_bundle

    return load_bundle(checkpoint, getattr(torch, place.dtype), place.device)
