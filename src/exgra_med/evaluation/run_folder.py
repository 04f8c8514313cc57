"""What evaluation reads from a run folder: its recipe, its answers, the questions they answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exgra_med.data.prepared import Prepared, open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.results import dataset_results, read_results


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions of a run's evaluation."""

    prepared: Prepared
    split: str
    records: list[Record]
    max_pixels: int


def read_recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run, as plain values, so that runs of other versions can be read.

    Raises:
        RunError: the folder is no run, or its recipe is not YAML.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunError(
            f"{run}: not a run folder, there is no recipe.yaml.", "Name a folder that a run made."
        )
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read as YAML.") from error
    if not isinstance(recipe, dict):
        raise RunError(f"{path}: not a recipe.")
    return recipe


def asked_questions(
    recipe: dict[str, Any], data_folder: str | None = None, split: str | None = None
) -> Asked:
    """The questions that a recipe's evaluation asks.

    Args:
        recipe: from `read_recipe`.
        data_folder: the prepared folder, where it is not at the recipe's place.
        split: the split, where it is not the recipe's.

    Raises:
        DataError: the prepared folder is not there, or was changed.
    """
    evaluation = recipe.get("evaluation") or {}
    data = evaluation.get("data") or recipe.get("data") or {}
    prepared = open_prepared(data_folder or str(data.get("folder")))
    split = split or str(evaluation.get("split") or "test")
    max_pixels = int(data.get("max_pixels") or 50_000_000)
    return Asked(prepared, split, prepared.records(split), max_pixels)


def answered_questions(run: Path, dataset: str, data_folder: str | None = None) -> Asked:
    """The questions that a run answered, from where its results say that they lie.

    Args:
        run: the run folder.
        dataset: name of its answers.
        data_folder: the prepared folder, where it is no longer there.

    Raises:
        DataError: the prepared folder is not there, was changed, or is another data set.
        RunError: the folder is no run.
    """
    vqa = dataset_results(read_results(run), dataset).get("vqa") or {}
    folder = data_folder or vqa.get("data_folder")
    asked = asked_questions(read_recipe(run), folder, vqa.get("split"))
    found = asked.prepared.manifest["dataset"]
    if found != dataset:
        raise DataError(
            f"{run.name} answered {dataset}, and the folder named for it holds {found}.",
            f"Give the prepared folder of {dataset} with --data.",
        )
    return asked


def is_own_data(folder: str, on: str | None, dataset: str) -> bool:
    """Whether a data set that was answered is the recipe's own.

    Args:
        folder: the recipe's prepared folder.
        on: the folder that was answered; None for the recipe's.
        dataset: the name of its data set.
    """
    if on in (None, folder):
        return True
    try:
        return open_prepared(folder).manifest["dataset"] == dataset
    except DataError:
        return False


def predictions_path(run: Path, dataset: str) -> Path:
    """Where a run keeps its answers to a data set."""
    return run / "predictions" / f"{dataset}.jsonl"


def check_path(run: Path, dataset: str, check: str) -> Path:
    """Where a run keeps the answers of a check, apart from its answers to the plain questions."""
    return run / "predictions" / dataset / f"{check}.jsonl"


def answers_path(run: Path, dataset: str, split: str, *, apart: bool) -> Path:
    """Where a run keeps its answers to a split: the recipe's own, or another one apart from it."""
    return check_path(run, dataset, f"split-{split}") if apart else predictions_path(run, dataset)


def answered_datasets(run: Path) -> list[str]:
    """Names of the data sets that a run has answers to."""
    names = (path.stem for path in (run / "predictions").glob("*.jsonl"))
    return sorted(name for name in names if ".part-" not in name)
