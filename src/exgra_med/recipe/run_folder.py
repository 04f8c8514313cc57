"""A run is one folder: recipe, record, log, checkpoints, predictions, results, report."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from exgra_med import __version__, files
from exgra_med.errors import RunError
from exgra_med.files import read_yaml, write_yaml
from exgra_med.recipe.schema import Name, Recipe, StageSettings, TextSettings, check_recipe

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "numba", "pillow")


def now() -> str:
    """The time, in UTC, as ISO 8601 text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_software() -> dict[str, Any]:
    """Code version, git commit where there is one, package versions, processor."""
    return {
        "exgra_med": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "num_cpus": os.cpu_count(),
    }


def git_commit() -> str | None:
    """Commit of the checkout that holds this package, `-dirty` added where files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", __file__) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain") else commit


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class AnsweringRecipe(Recipe):
    """A run that trains nothing: `model.start` answers, and its answers are scored."""

    engine: str = "checkpoint"
    """Who answers: a checkpoint here, or an engine that knows a model of the name `model.start`."""

    stages: dict[Name, StageSettings] = Field(default={}, max_length=0)
    """None."""


@dataclass(frozen=True)
class Run:
    """An opened run folder."""

    path: Path
    recipe: Recipe

    @property
    def log(self) -> Path:
        """The JSON Lines log of training."""
        return self.path / "log.jsonl"

    @property
    def results(self) -> Path:
        """Scores and alignment figures."""
        return self.path / "results.json"

    def stage_folder(self, stage: str) -> Path:
        """Where a stage's checkpoints lie."""
        return self.path / "checkpoints" / stage

    def final(self, stage: str) -> Path:
        """The finished checkpoint of a stage; it exists once the stage is done."""
        return self.stage_folder(stage) / "final"

    @property
    def last_checkpoint(self) -> Path:
        """The finished checkpoint of the last stage; of a run without stages, where it starts.

        Raises:
            RunError: the run has not got there.
        """
        if isinstance(self.recipe, AnsweringRecipe):
            if self.recipe.engine != "checkpoint":
                raise RunError(
                    f"{self.path} holds answers of {self.recipe.model.start!r}, which the engine "
                    f"{self.recipe.engine} runs; there is no checkpoint.",
                    f"Ask it again with --engine {self.recipe.engine} --out {self.path}.",
                )
            return Path(str(self.recipe.model.start))
        stage = list(self.recipe.stages)[-1]
        if not self.final(stage).is_dir():
            raise RunError(
                f"The run {self.path} has not finished its stage {stage!r}.",
                "Go on with `exgra-med train ... --resume`.",
            )
        return self.final(stage)

    def record(self) -> dict[str, Any]:
        """The run's record as it stands."""
        return files.read_object(self.path / "record.json", RunError)

    def add_to_record(self, section: str, value: Any) -> None:
        """Set one section of the record, atomically."""
        record = self.record() | {section: value}
        files.write_text(self.path / "record.json", json.dumps(record, indent=2) + "\n")


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe: every value, defaults included."""
    return write_yaml(recipe.model_dump(mode="json"))


def open_run(path: str | Path) -> Run:
    """Open a run folder to read.

    Raises:
        RunError: there is no run.
        RecipeError: its recipe is not one that this version can read.
    """
    path = Path(path)
    file = path / "recipe.yaml"
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no recipe.yaml.")
    values = read_yaml(file)
    if isinstance(values, dict) and "served" in values:
        raise RunError(
            f"{path} holds answers of a served model, written by an earlier version of exgra-med.",
            "Reports and comparisons read it; ask the server again into a new folder.",
        )
    trains = not isinstance(values, dict) or values.get("stages") != {}
    return Run(path, check_recipe(values, str(file), Recipe if trains else AnsweringRecipe))


def is_run_folder(place: str | Path) -> bool:
    """Whether a folder holds a run (a checkpoint has a copy of the recipe too, but no record)."""
    return all(files.is_file(Path(place) / name) for name in ("recipe.yaml", "record.json"))


def last_checkpoint_of(place: str | Path) -> Path:
    """Of a run folder its last checkpoint, of anything else (a checkpoint) the place itself.

    Raises:
        RunError: the run has not finished.
    """
    return open_run(Path(place)).last_checkpoint if is_run_folder(place) else Path(place)


def own_template(checkpoint: Path) -> str:
    """The chat template that a checkpoint was trained with; the default where nothing says so."""
    file = checkpoint / "recipe.yaml"
    values = read_yaml(file) if file.is_file() else {}
    text = values.get("text") if isinstance(values, dict) else None
    return str((text or {}).get("template") or TextSettings().template)


def start_run(path: Path, recipe: Recipe, resume: bool) -> Run:
    """Make the folder of a new run, or open one to go on with.

    Raises:
        RunError: the folder holds another run, or something that is no run.
    """
    if (path / "recipe.yaml").is_file():
        run = open_run(path)
        if not resume:
            raise RunError(
                f"{path} already holds the run {run.recipe.name!r}.",
                "Add --resume to go on with it, or choose another folder with --out.",
            )
        if difference := first_difference(run.recipe, recipe):
            raise RunError(
                f"{path} holds another run: {difference}.",
                "Choose another folder with --out, or give the recipe that the run began with.",
            )
        return run
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not a run folder.", "Choose an empty or new folder with --out."
        )
    path.mkdir(parents=True, exist_ok=True)
    record = {"created": now(), **describe_software(), "seed": recipe.seed}
    files.write_text(path / "record.json", json.dumps(record, indent=2) + "\n")
    files.write_text(path / "recipe.yaml", recipe_yaml(recipe))
    return Run(path, recipe)


def first_difference(old: Recipe, new: Recipe) -> str:
    """Path and both values of the first field that differs, or an empty text."""
    found = (f"{at} is {old!r} there and {new!r} here" for at, old, new in differences(old, new))
    return next(found, "")


def differences(old: Recipe, new: Recipe) -> list[tuple[str, Any, Any]]:
    """Path, old value and new value of every leaf that differs."""
    return _differences(old.model_dump(mode="json"), new.model_dump(mode="json"), "")


def _differences(old: Any, new: Any, at: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(old) + [key for key in new if key not in old]
        return [
            found
            for key in keys
            for found in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [(at, old, new)]
