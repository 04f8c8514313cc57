"""What the first stage of a run starts from: a checkpoint, another run, sizes, or trained parts."""

from pathlib import Path

from exgra_med.data.prepared import open_prepared
from exgra_med.model.assemble import assemble_parts
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.recipe.run import Run, last_checkpoint_of
from exgra_med.training.processes import process_state


def starting_checkpoint(run: Run) -> Path:
    """The checkpoint of the first stage; built once where the recipe gives sizes or parts.

    Raises:
        RunError: `model.start` is a run that has not finished.
        CheckpointError: a part cannot be used.
    """
    start = run.recipe.model.start
    if start is not None:
        return last_checkpoint_of(start)
    folder = run.stage_folder("start") / "final"
    with process_state().main_process_first():
        if not folder.is_dir():
            save_bundle(_build(run), folder)
    return folder


def _build(run: Run) -> Bundle:
    settings = run.recipe.model
    if settings.architecture is not None:
        return build_model(settings.architecture, _texts(run), run.recipe.seed)
    assert settings.parts is not None, "a recipe has exactly one origin"
    return assemble_parts(settings.parts, run.recipe.seed)


def _texts(run: Run) -> list[str]:
    """Training text of every stage, each folder and split once: what the tokenizer learns from."""
    sources = {
        (settings.folder, settings.split): None
        for settings in map(run.recipe.stage_data, run.recipe.stages)
    }
    return [
        text
        for folder, split in sources
        for record in open_prepared(folder).records(split)
        for text in [turn.text for turn in record.turns] + (record.extended or [])
    ]
