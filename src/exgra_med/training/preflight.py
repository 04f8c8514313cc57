"""What is found wrong with a run before its model is loaded, one sentence each.

`check_plan` refuses what no machine can run; `exgra-med train --dry-run` asks it, too.
`missing_here` is what this machine lacks: a note in a dry run, which may plan for another one.
`check_before_training` is everything, of the stages that are still to do.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from rich.filesize import decimal

from exgra_med.alignment.controls import CONTROLS
from exgra_med.alignment.loss import directed_pairs
from exgra_med.alignment.matching import check_size
from exgra_med.alignment.solvers import SOLVERS
from exgra_med.data.chat_template import chat_template
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import Record, open_prepared
from exgra_med.errors import (
    CheckpointError,
    DataError,
    ExgraMedError,
    MatchingError,
    RecipeError,
    RunError,
)
from exgra_med.files import expand_home
from exgra_med.model.batch import chosen_records
from exgra_med.model.bundle import CONFIG, is_native, load_processor, local_folder, read_json_object
from exgra_med.model.chat_text import ChatText
from exgra_med.model.image_budget import set_image_budget
from exgra_med.model.lora import check_adapters_possible
from exgra_med.model.processor import check_vocabulary
from exgra_med.model.sizes import folder_config, is_native_origin, model_config, origin
from exgra_med.model.small_model import NAME, check_packaged, is_model_name
from exgra_med.recipe.run_folder import Run, last_checkpoint_of
from exgra_med.recipe.schema import ModelSettings, Recipe, StageSettings, TextSettings
from exgra_med.training.distributed import process_state
from exgra_med.training.estimate import estimate_run
from exgra_med.training.log import check_trackers_installed
from exgra_med.training.optimizer import check_eight_bit_possible
from exgra_med.training.stages import training_texts
from exgra_med.training.trainable import check_compiling_possible


def check_plan(recipe: Recipe, num_processes: int, data_is_here: bool = False) -> None:
    """Refuse a recipe that no machine can run, from the recipe and the data that is there.

    Args:
        num_processes: that share each step; graphs of scope `global` grow with them.
        data_is_here: whether every folder has to be; a plan assumes what is not.

    Raises:
        RecipeError: settings of a stage do not go together or with the model, the solver takes
            smaller graphs, or the vocabulary has no room for the characters of the texts.
        CheckpointError, RunError: what the model starts from is not there.
        MatchingError: a solver cannot be loaded.
        DataError: a split, image or extended answer is not there.
    """
    chat_template(recipe.text.template)
    _check_graph_weights(recipe)
    check_model_settings(recipe)
    all_here = True
    for name, stage in recipe.stages.items():
        _check_alignment(name, stage, num_processes)
        try:
            open_prepared(recipe.stage_data(name).folder)
        except DataError:
            if data_is_here:
                raise
            all_here = False
        else:
            check_data(recipe, name)
    sizes = recipe.model.architecture
    if sizes is not None and all_here:
        check_vocabulary(training_texts(recipe), sizes.tokenizer.vocabulary_size)


def _check_alignment(name: str, stage: StageSettings, num_processes: int) -> None:
    settings = stage.alignment
    if settings is None:
        return
    solver = SOLVERS.find(settings.solver)
    nodes = stage.batch_size * (num_processes if settings.scope == "global" else 1)
    if nodes == 1 and settings.weight > 0:
        raise RecipeError(
            f"stages.{name}.alignment: a graph over all processes has one node here, and loss 0.",
            "Raise `batch_size`, or start more processes.",
        )
    if settings.objective in CONTROLS:
        return
    try:
        check_size(solver, settings.solver, nodes)
    except MatchingError as error:
        raise RecipeError(f"stages.{name}.alignment: {error.message}", error.hint) from error


def _check_graph_weights(recipe: Recipe) -> None:
    """A stage goes on with the message passing of the one before, so both have the same layers."""
    before: tuple[str, int] | None = None
    for name, stage in recipe.stages.items():
        settings = stage.alignment
        if settings is None:
            before = None
            continue
        pairs = directed_pairs(settings.objective, settings.views)
        layers = settings.num_layers if pairs else 0
        if before is not None and layers != before[1]:
            raise RecipeError(
                f"stages.{name}.alignment has {layers} message-passing layers, and stage "
                f"{before[0]!r}, whose weights it goes on with, has {before[1]}.",
                "Give both the same `num_layers` and an objective of graphs, or run them apart.",
            )
        before = name, layers


def missing_here(recipe: Recipe, out: Path) -> list[ExgraMedError]:
    """What the stages of a run need and this machine lacks: packages, a compiler, a GPU, disk,
    the packaged model.

    What the run folder `out` holds already counts as written.
    """
    checks: list[Callable[[], None]] = [
        partial(check_trackers_installed, recipe.trackers),
        partial(check_disk, recipe, out),
        partial(_check_processor, recipe),
    ]
    if recipe.model.start == NAME and not expand_home(NAME).is_dir():
        checks.append(check_packaged)
    for stage in recipe.stages.values():
        if stage.lora is not None:
            checks.append(partial(check_adapters_possible, stage.lora))
        if stage.optimizer == "adamw8bit":
            checks.append(check_eight_bit_possible)
        if stage.compile:
            checks.append(check_compiling_possible)
    found: dict[str, ExgraMedError] = {}
    for check in checks:
        try:
            check()
        except ExgraMedError as error:
            found.setdefault(error.message, error)
    return list(found.values())


def check_before_training(recipe: Recipe, out: Path) -> None:
    """Look at everything that the unfinished stages of a run need, but the weights.

    What the run folder `out` holds already counts as written.

    Raises:
        CheckpointError, RunError: what the model starts from is not there.
        DataError: a folder, split, image or extended answer is not there.
        RecipeError, MissingExtraError: what a stage or a tracker needs is not installed.
        RunError: the disk has less room than the run needs.
    """
    run = Run(out, recipe)
    pending = [name for name in recipe.stages if not run.final(name).is_dir()]
    if len(pending) == len(recipe.stages):
        check_start(recipe)
    if pending:
        to_do = _remainder(run, pending)
        check_plan(to_do, process_state().num_processes, data_is_here=True)
        for error in missing_here(to_do, out):
            raise error


def check_start(recipe: Recipe) -> None:
    """Look at what the model comes from: it exists, can be used here, and goes with the recipe.

    Of a hub name everything but the weights is downloaded.

    Raises:
        CheckpointError: there is no such folder or hub name, or none of this kind of model.
        RunError: it is a run that has not finished.
        RecipeError: the model does not go with the connector or the image budget of the recipe.
        MissingExtraError: its processor needs a package that is not installed.
    """
    model = recipe.model
    if model.parts is not None:
        for part in (model.parts.language, model.parts.vision):
            if _is_folder(part):
                read_json_object(Path(part) / CONFIG)
    if model.start is None:
        return
    folder = last_checkpoint_of(model.start) if _is_folder(model.start) else None
    folder = folder or local_folder(model.start, weights=False)
    config = folder_config(folder)
    connector = getattr(config, "connector", None)
    if model.expect_connector not in (None, connector):
        what = f"the connector {connector!r}" if connector else "a connector of its own"
        raise CheckpointError(
            f"{model.start} has {what}, and this recipe is for {model.expect_connector!r}.",
            "Start from another model, or use the recipe without that ending in its name.",
        )
    _check_processor(recipe)


def _check_processor(recipe: Recipe) -> None:
    """The processor of another model that is here can be had, asks, and takes the image budget."""
    place = origin(recipe.model)
    if not isinstance(place, Path) or is_native(place):
        return
    processor = load_processor(place)
    ChatText(processor)
    if recipe.model.images is not None:
        set_image_budget(processor, folder_config(place), recipe.model.images)


def check_model_settings(recipe: Recipe) -> None:
    """Refuse settings that are for this project's own model where the recipe has another, and the
    other way round.

    Raises:
        RecipeError: a chat template, an image budget, or a stage that trains nothing of the model.
        CheckpointError, RunError: what the model starts from is not there.
    """
    place = origin(recipe.model)
    native = is_native_origin(place)
    if recipe.model.images is not None and (native or not isinstance(place, Path)):
        side = model_config(recipe.model).vision_config.image_size
        size = f"{side} x {side}" if native else "the size of its tower"
        raise RecipeError(
            f"`model.images` does not go with this model, whose processor resizes every image to "
            f"{size}.",
            "Leave it out.",
        )
    if native:
        return
    if recipe.text.template != TextSettings().template:
        raise RecipeError(
            f"`text.template: {recipe.text.template}` is for this project's own model, and "
            f"{recipe.model.start or 'a joined model'} is asked by its own chat template.",
            "Leave `text.template` out.",
        )
    for name, stage in recipe.stages.items():
        if stage.trainable == ["image_tokens"]:
            raise RecipeError(
                f"stages.{name}.trainable names `image_tokens` alone, which only this project's "
                "own model has, so nothing would be trained.",
                "Name other parts of the model, such as `connector`.",
            )


def start_notes(recipe: Recipe) -> list[str]:
    """What of a recipe has no effect on its model, one sentence each."""
    if is_native_origin(origin(recipe.model)):
        return []
    return [
        f"Stage {name} names `image_tokens`, the markers of this project's own model; this model "
        "has markers of its own, and they are left as they are."
        for name, stage in recipe.stages.items()
        if "image_tokens" in stage.trainable and "language" not in stage.trainable
    ]


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
    records: Sequence[Record] = prepared.stored(settings.split)
    if settings.fraction < 1:  # whole splits are named record by record, not joined
        records = chosen_records(records, settings)
    images = prepared.image_folder(settings.max_pixels)
    # Preparation has refused what is larger, so most folders need no look at every header.
    check = images.size if settings.max_pixels < MAX_PIXELS else images.locate
    first, num_missing = "", 0
    for record in chain(records, *map(prepared.iterate, held_out)):
        for image in record.images:
            check(image, record.id)
    for record in records if stage.needs_extended else ():
        if record.extended is None:
            first, num_missing = first or record.id, num_missing + 1
    if num_missing:
        raise DataError(
            f"{num_missing} of the {len(records)} records of stage {name!r} have no extended "
            f"answers, which alignment and `answers` need; the first is {first!r}.",
            "Make them with `exgra-med captions generate`, keep the records that have one with "
            "`captions merge --only-extended`, or set the stage's alignment to null.",
        )


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
            f"{out} needs about {decimal(int(needed - written))} more, and the disk has "
            f"{decimal(free)}.",
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


def _is_folder(place: str) -> bool:
    """Whether a name means a folder; one that is not there is refused.

    A hub name is `owner/name`, and nothing here begins with `runs/`. `small` and its parts have
    names of their own.
    """
    path = expand_home(place)
    if path.is_dir():
        return True
    if is_model_name(place):
        return False
    if place.count("/") != 1 or place.startswith((".", "/", "~", "runs/")):
        raise CheckpointError(
            f"There is no folder {place}.",
            "Train the run it comes from first, or correct the recipe's `model`.",
        )
    return False
