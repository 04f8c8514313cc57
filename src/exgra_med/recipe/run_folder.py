"""A run is one folder: recipe, record, log, checkpoints, predictions, results, report.

What is read again was written with its SHA-256 (`digests.py`), and one process at a time writes.
"""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from exgra_med import __version__, digests, files
from exgra_med.digests import read_yaml_document
from exgra_med.errors import DamagedFileError, ExgraMedError, RunError
from exgra_med.reading import write_yaml
from exgra_med.recipe.schema import Name, Recipe, StageSettings, TextSettings, check_recipe
from exgra_med.terminal import remark

RECIPE, RECORD, LOG = "recipe.yaml", "record.json", "log.jsonl"
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
        return self.path / LOG

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
        """The run's record as it stands.

        Raises:
            DamagedFileError: it is gone, cannot be read, or is not what was written.
        """
        return digests.read_document(self.path / RECORD)

    def add_to_record(self, section: str, value: Any) -> None:
        """Set one section of the record, atomically.

        Raises:
            DamagedFileError: see `record`.
            RunError: another process writes the run.
        """
        with self.writing():
            record = self.record() | {section: value}
            if unchecked(self.path):
                # The record has a digest from now on, and what was before it has none.
                record[_UNCHECKED] = True
            digests.write_document(self.path / RECORD, record)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes into the run; see `files.sole_writer`.

        Raises:
            RunError: another process does.
        """
        with files.disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with files.sole_writer(self.path / files.LOCK, self.path):
            yield


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe: every value, defaults included."""
    return write_yaml(recipe.model_dump(mode="json"))


def open_run(path: str | Path) -> Run:
    """Open a run folder to read.

    Raises:
        RunError: there is no run.
        RecipeError: its recipe is not one that this version can read.
        DamagedFileError: recipe or record are not what was written.
    """
    path = Path(path)
    file = path / RECIPE
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no {RECIPE}.")
    values = read_yaml_document(file)
    if isinstance(values, dict) and "served" in values:
        raise RunError(
            f"{path} holds answers of a served model, written by an earlier version of exgra-med.",
            "Reports and comparisons read it; ask the server again into a new folder.",
        )
    trains = not isinstance(values, dict) or values.get("stages") != {}
    run = Run(path, check_recipe(values, str(file), Recipe if trains else AnsweringRecipe))
    run.record()  # says what is wrong with it
    return run


_UNCHECKED = "begun_without_digests"


def unchecked(run: Path) -> str:
    """A sentence where a run was begun by a version that wrote no digests, else nothing."""
    file = run / RECORD
    try:
        is_known = digests.has_digest(file) and _UNCHECKED not in digests.read_document(file)
    except DamagedFileError:
        return ""  # which whoever reads it says
    if is_known or not file.is_file():
        return ""
    return (
        f"{run} was begun by an earlier version of exgra-med, which wrote no SHA-256 of its files: "
        "whether what it wrote is still whole cannot be checked."
    )


def is_run_folder(place: str | Path) -> bool:
    """Whether a folder holds a run (a checkpoint has a copy of the recipe too, but no record)."""
    return all(files.is_file(Path(place) / name) for name in (RECIPE, RECORD))


def last_checkpoint_of(place: str | Path) -> Path:
    """Of a run folder its last checkpoint, of anything else (a checkpoint) the place itself.

    Raises:
        RunError: the run has not finished.
        DamagedFileError: it has lost its recipe or its record.
    """
    place = Path(place)
    lost = [name for name in (RECIPE, RECORD) if not (place / name).is_file()]
    if not lost:
        return open_run(place).last_checkpoint
    if len(lost) == 1 and (place / "checkpoints").is_dir():
        raise _lost(place / lost[0], "name a checkpoint in that folder")
    return place


def _lost(file: Path, otherwise: str) -> DamagedFileError:
    return DamagedFileError(
        f"{file} is gone, and without it {file.parent} is no run.",
        f"Copy it again from where it is whole, or {otherwise}.",
    )


def _part(values: Any, name: str) -> dict[str, Any]:
    """A part of a recipe that is read as it is; empty where it has none, or of another type."""
    part = values.get(name) if isinstance(values, dict) else None
    return part if isinstance(part, dict) else {}


def own_template(checkpoint: Path) -> str:
    """The chat template that a checkpoint was trained with; the default where nothing says so."""
    file = checkpoint / RECIPE
    values = read_yaml_document(file) if file.is_file() else {}
    return str(_part(values, "text").get("template") or TextSettings().template)


def is_toy(place: Path) -> bool:
    """Whether the weights of a run or a checkpoint began as random ones, by its own recipe and
    those of what it started from, as far as these are here and can be read."""
    seen: set[Path] = set()
    # A checkpoint has a copy of the recipe, so a chain goes on where a run's folder is gone.
    while (place / RECIPE).is_file() and place.resolve() not in seen:
        seen.add(place.resolve())
        try:
            values = read_yaml_document(place / RECIPE)
        except ExgraMedError:
            return False  # which whoever reads that run says
        model = _part(values, "model")
        if model.get("architecture"):
            return True
        if not model.get("start"):
            return False
        place = Path(str(model["start"]))
    return False


def start_run(path: Path, recipe: Recipe, resume: bool) -> Run:
    """Make the folder of a new run, or open one to go on with.

    Raises:
        RunError: the folder holds another run, or something that is no run; another process
            writes it.
        DamagedFileError: its recipe or its record are not what was written.
        WriteError: the folder cannot be made or written.
    """
    # The recipe is written last: before it, a kill has left nothing that counts.
    if not (path / RECIPE).is_file() and not files.is_unused(path, leftovers=(RECORD,)):
        if (path / RECORD).is_file() and ((path / LOG).exists() or (path / "checkpoints").exists()):
            raise _lost(path / RECIPE, "choose another folder with --out")
        raise RunError(
            f"{path} exists and is not a run folder.", "Choose an empty or new folder with --out."
        )
    with files.disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with files.sole_writer(path / files.LOCK, path):
        if (path / RECIPE).is_file():
            return _go_on(path, recipe, resume)
        record = {"created": now(), **describe_software(), "seed": recipe.seed}
        digests.write_document(path / RECORD, record)
        files.write_text(path / RECIPE, digests.yaml_with_digest(recipe.model_dump(mode="json")))
    return Run(path, recipe)


def _go_on(path: Path, recipe: Recipe, resume: bool) -> Run:
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


_WORTH_A_WORD = 1_000_000_000


def check_checkpoint(folder: Path, hint: str = "") -> bool:
    """Check the files of a checkpoint against their SHA-256; says so where that takes seconds.

    Args:
        folder: a checkpoint; of another program or an earlier version it has no digests.
        hint: how to go on without it.

    Returns:
        Whether there were digests.

    Raises:
        DamagedFileError: a file is gone, or is not what was written; it is named.
    """
    above = list(folder.absolute().parents)
    is_final = folder.name == "final" and len(above) > 2 and is_run_folder(above[2])
    if not hint and is_final:
        hint = f"Copy it again, or delete {folder}: `exgra-med train ... --resume` makes it anew."
    if not os.path.lexists(folder / digests.DIGESTS):
        if is_final and _had_digests(above[2], folder.absolute().parent.name):
            raise DamagedFileError(
                f"{folder / digests.DIGESTS} is gone: nothing says whether the checkpoint is what "
                "was written.",
                hint,
            )
        return False
    size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    if size > _WORTH_A_WORD and os.environ.get("RANK", "0") == "0":
        remark(f"Checking the SHA-256 of the {size / 1e9:.0f} GB in {folder}.")
    return digests.check_digests(folder, hint)


def _had_digests(run: Path, stage: str) -> bool:
    """Whether a version that writes digests finished a stage: its line of the log has one."""
    wanted = (b'"event": "end"', f'"stage": "{stage}"'.encode(), b'"sha256"')
    if not files.is_file(run / LOG):
        return False
    with (run / LOG).open("rb") as lines:
        return any(all(each in line for each in wanted) for line in lines)


def first_difference(old: Recipe, new: Recipe) -> str:
    """Path and both values of the first field that differs, or an empty text."""
    found = (f"{at} is {old!r} there and {new!r} here" for at, old, new in differences(old, new))
    return next(found, "")


def differences(old: Recipe, new: Recipe) -> list[tuple[str, Any, Any]]:
    """Path, old value and new value of every leaf that differs."""
    return differing_values(old.model_dump(mode="json"), new.model_dump(mode="json"))


def differing_values(old: Any, new: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    """The same for plain values, such as recipes of other versions; `at` is where they stand."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(old) + [key for key in new if key not in old]
        return [
            found
            for key in keys
            for found in differing_values(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [(at, old, new)]
