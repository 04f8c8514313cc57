"""What is found wrong with a run before its model is loaded, one sentence each."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from exgra_med.data.conversation import choose_conversations
from exgra_med.data.prepared import open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import CheckpointError, DataError, RunError
from exgra_med.model.bundle import read_config
from exgra_med.model.folder import CONFIG, read_json_object
from exgra_med.model.lora import check_adapters_possible
from exgra_med.recipe.run_folder import Run, last_checkpoint_of
from exgra_med.recipe.schema import ModelSettings, Recipe
from exgra_med.training.estimate import estimate_run
from exgra_med.training.log import check_trackers_installed
from exgra_med.training.optimizer import check_eight_bit_possible
from exgra_med.training.trainable import check_compiling_possible


def check_before_training(recipe: Recipe, out: Path) -> None:
    """Look at everything that the unfinished stages of a run need, but the weights.

    Args:
        recipe: the recipe.
        out: the run folder; what it holds already counts as written.

    Raises:
        CheckpointError, RunError: what the model starts from is not there.
        DataError: a folder, split, image or extended answer is not there.
        RecipeError, MissingExtraError: what a stage or a tracker needs is not installed.
        RunError: the disk has less room than the run needs.
    """
    check_trackers_installed(recipe.trackers)
    run = Run(out, recipe)
    pending = [name for name in recipe.stages if not run.final(name).is_dir()]
    if len(pending) == len(recipe.stages):
        check_start(recipe)
    for name in pending:
        stage = recipe.stages[name]
        if stage.lora is not None:
            check_adapters_possible(stage.lora)
        if stage.optimizer == "adamw8bit":
            check_eight_bit_possible()
        if stage.compile:
            check_compiling_possible()
        check_data(recipe, name)
    if pending:
        check_disk(_remainder(run, pending), out)


def check_start(recipe: Recipe) -> None:
    """The folders that the model comes from exist and hold a model; hub names pass."""
    model = recipe.model
    if model.parts is not None:
        for part in (model.parts.language, model.parts.vision):
            if _is_folder(part):
                read_json_object(Path(part) / CONFIG)
    if model.start is None or not _is_folder(model.start):
        return
    config = read_config(last_checkpoint_of(model.start))
    if model.expect_connector not in (None, config.connector):
        raise CheckpointError(
            f"{model.start} has the connector {config.connector!r}, and this recipe is for "
            f"{model.expect_connector!r}.",
            "Start from another model, or use the recipe without that ending in its name.",
        )


def check_data(recipe: Recipe, name: str) -> None:
    """Every split of a stage exists and has records, with their images and extended answers."""
    settings, stage = recipe.stage_data(name), recipe.stages[name]
    prepared = open_prepared(settings.folder)
    held_out = [] if settings.held_out_split is None else [settings.held_out_split]
    for split in (settings.split, *held_out):
        prepared.split_path(split)
        if prepared.manifest["counts"][split] == 0:
            raise DataError(
                f"{prepared.path}: the split {split!r}, which stage {name!r} reads, has no record.",
                "Name another split; `held_out_split: null` measures nothing.",
            )
    records = list(prepared.iterate(settings.split))
    if settings.fraction < 1:  # whole splits are named record by record, not joined
        records = choose_conversations(
            records, settings.questions_per_record, settings.fraction, settings.subset_seed
        )
    images = prepared.image_folder(settings.max_pixels)
    for record in records:
        for image in record.images:
            images.locate(image, record.id)
    if stage.needs_extended:
        _check_extended(records, name)


def check_disk(recipe: Recipe, out: Path) -> None:
    """There is room for what the run will write, without what it has written."""
    needed = estimate_run(recipe, "h100").disk
    folders = [Run(out, recipe).stage_folder(name) for name in ("start", *recipe.stages)]
    files = (each for folder in folders for each in folder.rglob("*") if each.is_file())
    written = sum(each.stat().st_size for each in files)
    place = next(each for each in (out.absolute(), *out.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    if needed - written > free:
        raise RunError(
            f"{out} needs about {(needed - written) / 1e9:.1f} GB more, and the disk has "
            f"{free / 1e9:.1f} GB.",
            "Choose another disk with --out, or keep fewer checkpoints.",
        )


def _remainder(run: Run, pending: Sequence[str]) -> Recipe:
    """The recipe of what is still to do; it starts from the last finished stage."""
    finished = [name for name in run.recipe.stages if name not in pending]
    if not finished:
        return run.recipe
    stages = {name: run.recipe.stages[name] for name in pending}
    start = ModelSettings(start=str(run.final(finished[-1])))
    return run.recipe.model_copy(update={"model": start, "stages": stages})


def _check_extended(records: Sequence[Record], name: str) -> None:
    missing = [record.id for record in records if record.extended is None]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(records)} records of stage {name!r} have no extended "
            f"answers, which alignment and `answers` need; the first is {missing[0]!r}.",
            "Make them with `exgra-med captions generate`, or set the stage's alignment to null.",
        )


def _is_folder(place: str) -> bool:
    """Whether a name means a folder; one that is not there is refused.

    A hub name is `owner/name`, and nothing here begins with `runs/`.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return True
    if place.count("/") != 1 or place.startswith((".", "/", "~", "runs/")):
        raise CheckpointError(
            f"There is no folder {place}.",
            "Train the run it comes from first, or correct the recipe's `model`.",
        )
    return False
