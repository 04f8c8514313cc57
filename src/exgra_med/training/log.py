"""`log.jsonl`, one JSON object a line, and the same figures in tensorboard, wandb or trackio.

    runs/NAME/log.jsonl                      appended; cut back to the checkpoint on resume
    runs/NAME/tensorboard/STAGE/exgra-med/   what tensorboard reads

Trackers are off unless a recipe names one. They get numbers and the stage's settings, and nothing
else: no text, id or image of a record, no console output, no path (tensorboard's file, in the run
folder, is named after the machine). wandb stays on this machine with WANDB_MODE=offline.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from exgra_med import digests, files, reading
from exgra_med.errors import DamagedFileError, ExgraMedError, MissingExtraError
from exgra_med.recipe.run_folder import Run
from exgra_med.section import Section
from exgra_med.terminal import remark


@dataclass
class TrainingLog:
    """Appends the events of a run to a file that need not exist; each line has its digest."""

    path: Path
    active: bool = True
    """Whether this process writes; the others do nothing."""

    def write(self, **event: Any) -> None:
        """Append one event.

        Raises:
            DiskFullError, WriteError: nothing was added.
        """
        if self.active:
            files.append(self.path, digests.with_digests([event], self._before), to_disk=False)

    def cut_back(self, stage: str, step: int, num_events: int = 0) -> None:
        """Drop what a killed process wrote of `stage` after `step`, and a torn last line.

        With step 0 the stage starts again, so all its events are dropped. Where fewer than
        `num_events` are left, which were there at `step`, the log says so from then on.

        Raises:
            DamagedFileError: the log is not what was written.
        """
        if not self.active:
            return
        kept = [
            event
            for event in read_log(self.path)
            if event.get("stage") != stage or (step > 0 and event["step"] <= step)
        ]
        if len(kept) < num_events:
            lost = num_events - len(kept)
            kept.append({"kind": "stage", "stage": stage, "event": LOST, "step": step})
            remark(f"{self.path} lost {lost} of the {num_events} events before step {step}.")
        self.__dict__.pop("_before", None)
        files.write_bytes(self.path, digests.with_digests(kept, hashlib.sha256()))

    @cached_property
    def _before(self) -> Any:
        """SHA-256 over what is in the file."""
        return hashlib.sha256(self.path.read_bytes() if self.path.exists() else b"")


LOST = "lost"
"""The event of a log that is not whole: what came before it is not all there."""
_WITHOUT_LOG = "Put it back from a copy, or delete it to go on without the curves until here."


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log. A last line that a kill left incomplete is left out.

    Raises:
        DamagedFileError: it cannot be read, or is not what was written.
    """
    if not os.path.lexists(path):
        return []
    try:
        lines = digests.checked_lines(path.read_bytes(), path, _WITHOUT_LOG)[:-1]
        events = [reading.decode_json(line.decode(), str(path), finite=False) for line in lines]
        for each in events:
            int(each.setdefault("step", 0))
        return events
    except (OSError, ExgraMedError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DamagedFileError):
            raise
        why = error.strerror if isinstance(error, OSError) else "a line is no event"
        raise DamagedFileError(f"{path} cannot be read ({why}).", _WITHOUT_LOG) from error


PROJECT = "exgra-med"
EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "track"}
PRIVATE = {"console": "off", "disable_code": True, "disable_git": True, "x_disable_meta": True}
"""Settings that keep wandb from sending console output, code, commands and names of machines."""


def check_trackers_installed(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        MissingExtraError: a tracker's package is not.
    """
    for name in names:
        if util.find_spec(name) is None:
            raise MissingExtraError(f"`trackers: [{name}]`", EXTRAS[name])


def tracking(run: Run, stage: str) -> dict[str, Any]:
    """The arguments of `Accelerator` that a stage with trackers needs."""
    names = list(run.recipe.trackers)
    check_trackers_installed(names)
    folder = ProjectConfiguration(logging_dir=str(run.path / "tensorboard" / stage))
    return {"log_with": names, "project_config": folder} if names else {}


def start_tracking(accelerator: Accelerator, run: Run, stage: str, done: int) -> None:
    """Begin the stage's curves, or continue the same ones after `done` steps."""
    if not run.recipe.trackers:
        return
    name = f"{run.recipe.name}/{stage}"
    made = f"{run.record()['created']} {name} {run.recipe.seed}"
    accelerator.init_trackers(
        PROJECT,
        {"recipe": run.recipe.name, "stage": stage, "seed": run.recipe.seed}
        | plain_settings(run.recipe.stages[stage]),
        {
            "tensorboard": {"purge_step": done + 1} if done else {},
            "wandb": {
                "name": name,
                "id": hashlib.sha256(made.encode()).hexdigest()[:16],
                "resume": "allow",
                "dir": str(run.path),
                "settings": PRIVATE,
            },
            "trackio": {"name": name, "resume": "allow"},
        },
    )


def plain_settings(section: Section, prefix: str = "") -> dict[str, Any]:
    """Numbers and words of a section, nested ones with dots; `data` is left out."""
    plain: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section) and name != "data":
            plain |= plain_settings(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            plain[f"{prefix}{name}"] = value
    return plain
