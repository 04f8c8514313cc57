"""`log.jsonl`, one JSON object a line, and the same figures in tensorboard, wandb or trackio.

    runs/NAME/log.jsonl                      appended; cut back to the checkpoint on resume
    runs/NAME/tensorboard/STAGE/exgra-med/   what tensorboard reads

Trackers are off unless a recipe names one. They get numbers and the stage's settings, and nothing
else: no text, id or image of a record, no console output, no path (tensorboard's file, in the run
folder, is named after the machine). wandb stays on this machine with WANDB_MODE=offline.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from exgra_med import files
from exgra_med.errors import MissingExtraError, RunError
from exgra_med.recipe.run_folder import Run
from exgra_med.section import Section


@dataclass(frozen=True)
class TrainingLog:
    """Appends the events of a run to a file that need not exist."""

    path: Path
    active: bool = True
    """Whether this process writes; the others do nothing."""

    def write(self, **event: Any) -> None:
        """Append one event."""
        if not self.active:
            return
        with files.disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")

    def cut_back(self, stage: str, step: int) -> None:
        """Drop what a killed process wrote of `stage` after `step`, and a torn last line.

        With step 0 the stage starts again, so all its events are dropped.
        """
        if not self.active:
            return
        kept = [
            event
            for event in read_log(self.path)
            if event.get("stage") != stage or (step > 0 and event["step"] <= step)
        ]
        files.write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log. A last line that a kill left incomplete is left out."""
    if not path.is_file():
        return []
    events = []
    for number, line in enumerate(files.read_text(path, RunError).split("\n")[:-1], start=1):
        where = f"{path}:{number}"
        event = files.decode_json(line, where, error=RunError, finite=False)
        if not isinstance(event, dict) or not isinstance(event.get("step"), int):
            raise RunError(f"{where}: no event of a training.")
        events.append(event)
    return events


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
