"""A whole run: the stages of a recipe in order, each from the checkpoint of the one before.

A stage always starts from a folder, also within one process, so a resumed run and one that was not
interrupted take the same path.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from exgra_med import __version__
from exgra_med.data.conversation import join_by_image
from exgra_med.data.records import IMAGE_PLACEHOLDER, MANIFEST, Prepared, open_prepared
from exgra_med.digests import write_digests
from exgra_med.errors import RecipeError, RunError
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.assemble import NATIVE_CONNECTORS, assemble_parts
from exgra_med.model.batch import Layout, StageDataset, chosen_records
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
from exgra_med.model.image_budget import set_image_budget
from exgra_med.model.join import join_parts
from exgra_med.recipe.run_folder import (
    Run,
    check_checkpoint,
    last_checkpoint_of,
    open_run,
    start_run,
)
from exgra_med.recipe.schema import DataSettings, ModelSettings, Recipe, StageSettings
from exgra_med.terminal import Reporter, Silent, waiting_for
from exgra_med.training.checkpoint import read_progress
from exgra_med.training.distributed import (
    check_same_everywhere,
    check_shared_folder,
    on_main,
    process_state,
    stop_with_the_others,
)
from exgra_med.training.held_out import BestCheckpoint, HeldOut, Scorer
from exgra_med.training.loop import StageTraining
from exgra_med.training.precision import with_precision

ScorerFactory = Callable[[Run, Prepared, DataSettings], Scorer]


def starting_checkpoint(run: Run) -> Path:
    """The checkpoint of the first stage; built once where the recipe gives sizes or parts.

    Raises:
        RunError: `model.start` is a run that has not finished.
        CheckpointError: a part cannot be used.
    """
    model = run.recipe.model
    if model.start is not None:
        return last_checkpoint_of(model.start)
    folder = run.stage_folder("start") / "final"
    with process_state().main_process_first():
        if not folder.is_dir():
            with waiting_for("Building the model that the first stage starts from"):
                save_bundle(_built(model, run.recipe), folder, write_digests)
    return folder


def _built(model: ModelSettings, recipe: Recipe) -> Bundle:
    if model.architecture is not None:
        return build_model(model.architecture, training_texts(recipe), recipe.seed)
    assert model.parts is not None, "a recipe has exactly one origin"
    if model.parts.connector in NATIVE_CONNECTORS:
        return assemble_parts(model.parts, recipe.seed)
    return AnyBundle(*join_parts(model.parts, recipe.seed))


def training_texts(recipe: Recipe) -> list[str]:
    """Training text of every stage, each folder and split once: what the tokenizer learns from."""
    settings = map(recipe.stage_data, recipe.stages)
    sources = dict.fromkeys((each.folder, each.split) for each in settings)
    return [
        text.replace(IMAGE_PLACEHOLDER, " ")
        for folder, split in sources
        for record in open_prepared(folder).iterate(split)
        for text in [turn.text for turn in record.turns] + (record.extended or [])
    ]


@stop_with_the_others()
def begin_run(path: Path, recipe: Recipe, resume: bool) -> Run:
    """Create or open the run folder, once for all processes; see `recipe.run_folder.start_run`.

    The run's recipe says what `precision: auto` means here.

    Raises:
        RunError: the folder cannot be used, or the machines of the launch do not share it.
        TrainingError: another process has ended.
    """
    check_same_everywhere("The version of exgra-med or torch", (__version__, torch.__version__))
    run = on_main(lambda: start_run(path, with_precision(recipe, path), resume))
    check_shared_folder(path)
    return run or open_run(path)


@stop_with_the_others()
def train_run(run: Run, reporter: Reporter, scorers: ScorerFactory | None = None) -> Path:
    """Train every stage that is not finished yet, and return the checkpoint of the last one.

    `scorers` makes the scorer of a stage's held-out records, for stages with
    `load_best_model_at_end`.

    Raises:
        RunError: another process writes the run.
        ExgraMedError: data, checkpoint or training fails, or another process has ended; what was
            saved stays.
    """
    with run.writing():
        folder = starting_checkpoint(run)
        for name in run.recipe.stages:
            if not run.final(name).is_dir():
                _train_stage(run, name, folder, reporter, scorers)
            folder = run.final(name)
        # Also where nothing was left to train, what is called finished is whole.
        check_checkpoint(folder)
    return folder


def _train_stage(
    run: Run, name: str, start: Path, reporter: Reporter, scorers: ScorerFactory | None
) -> None:
    recipe, stage = run.recipe, run.recipe.stages[name]
    told = reporter if process_state().is_main_process else Silent()
    bundle = load_bundle(start)
    if recipe.model.images is not None:
        set_image_budget(bundle.processor, bundle.model.config, recipe.model.images)
    settings = recipe.stage_data(name)
    prepared = open_prepared(settings.folder)
    check_same_everywhere(f"The prepared folder {prepared.path}", prepared.fingerprint)
    layout = Layout(
        packed=stage.alignment is None or stage.alignment.pooling == "tokens",
        tokens_per_row=stage.tokens_per_row,
        max_tokens_per_call=stage.max_tokens_per_call,
    )
    # With weight 0 the texts of the graphs are not even tokenised: plain training, bit for bit.
    aligned = stage.aligned is not None
    with_extended = stage.alignment is not None and stage.alignment.has_extended
    dataset = StageDataset(
        chosen_records(prepared.stored(settings.split), settings),
        prepared.image_folder(settings.max_pixels),
        bundle,
        recipe.text,
        aligned,
        layout,
        with_extended,
        stage.answers,
        stage.train_on_prompts,
        reporter=told,
    )
    dataset.check_learnt()
    held_out = HeldOut(
        _held_out_dataset(prepared, settings, dataset, stage, told),
        stage.batch_size,
        stage.num_held_out_batches,
        stage.measure_views,
    )
    scorer = None if scorers is None else scorers(run, prepared, settings)
    if stage.load_best_model_at_end and scorer is None:
        raise RecipeError(
            f"stages.{name}.load_best_model_at_end is true, but nothing scores the model here.",
            "Train with `exgra-med train`, or pass a scorer to `train_run`.",
        )
    best = BestCheckpoint(run.stage_folder(name), scorer if stage.load_best_model_at_end else None)
    graph_weights = start / "alignment.safetensors"
    data = run.record().get("data", {})
    known = data.get(name, {}).get("fingerprint", prepared.fingerprint)
    if known != prepared.fingerprint and read_progress(run.stage_folder(name)) is not None:
        raise RunError(
            f"The stage {name!r} of {run.path} began with other data: the SHA-256 of "
            f"{prepared.path / MANIFEST} was another one.",
            "Put that data back, or train into another folder with --out.",
        )
    if process_state().is_main_process:
        data[name] = {
            "folder": settings.folder,
            "split": settings.split,
            "fingerprint": prepared.fingerprint,
            "num_records": len(dataset),
        }
        run.add_to_record("data", data)
    StageTraining(
        run,
        name,
        bundle,
        dataset,
        held_out,
        told,
        best,
        graph_weights if graph_weights.is_file() else None,
    ).train()


def _held_out_dataset(
    prepared: Prepared,
    settings: DataSettings,
    like: StageDataset,
    stage: StageSettings,
    reporter: Reporter,
) -> StageDataset | None:
    """The records to measure on, always with their original answers as answers."""
    if settings.held_out_split is None:
        return None
    records = join_by_image(prepared.stored(settings.held_out_split), settings.questions_per_record)
    extended = all(record.extended for record in records)
    with_extended = extended and (like.with_extended or stage.measure_views)
    aligned = stage.alignment is not None and (extended or not stage.alignment.has_extended)
    return replace(
        like,
        records=records,
        with_alignment=aligned or stage.measure_views,
        with_extended=with_extended,
        answers="original",
        train_on_prompts=False,
        reporter=reporter,
    )
