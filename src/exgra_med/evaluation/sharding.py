"""Several processes answer one file: each writes its own part, the first one joins the parts.

Started by `accelerate launch`, every process takes every n-th open question. A part that a killed
process left is joined before anything else, so no answer is lost, whatever the number of processes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.evaluation.predictions import PredictionWriter, read_predictions
from exgra_med.progress import Reporter, Silent


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of one launch."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one looks after the common file."""
        return self.index == 0

    def part(self, out: Path) -> Path:
        """The file this process writes: the common one where it is alone."""
        return out if self.count == 1 else out.with_name(f"{out.stem}.part-{self.index}.jsonl")

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            _state().wait_for_everyone()


def launched_processes() -> Processes:
    """The processes of `accelerate launch` or `torchrun`; one where there was no launch."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes()
    state = _state()
    return Processes(state.process_index, state.num_processes)


def told_once(reporter: Reporter) -> Reporter:
    """The reporter in the first process of a launch, silence in the others."""
    return reporter if launched_processes().is_first else Silent()


def join_parts(out: Path) -> int:
    """Append to `out` what parts hold and it does not, and remove the parts.

    Returns:
        Predictions that were added.
    """
    added = 0
    # Only the parts' own names: "vqa.part-0.jsonl" belongs to "vqa.jsonl" alone.
    for part in sorted(out.parent.glob(f"{out.stem}.part-*.jsonl")):
        with PredictionWriter(out) as writer:
            new = [
                each for each in read_predictions(part).predictions if each.id not in writer.done
            ]
            if new:
                writer.append(new)
        added += len(new)
        part.unlink()
    return added


def _state() -> Any:
    import torch
    from accelerate import PartialState

    # Without this, accelerate takes processes on CPUs for strangers to each other.
    return PartialState(cpu=not torch.accelerator.is_available())
