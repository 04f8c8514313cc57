"""What `evaluate` asks: a run, or a checkpoint, whose answers get a run folder of their own.

The folder of a checkpoint is a run without stages, so that scores, reports and comparisons read it
as any other.
"""

import re
from dataclasses import replace
from pathlib import Path

from exgra_med.data.chat_template import chat_template
from exgra_med.errors import RunError
from exgra_med.evaluation.sharding import launched_processes
from exgra_med.recipe.run_folder import (
    AnsweringRecipe,
    Run,
    is_run_folder,
    open_run,
    own_template,
    start_run,
)
from exgra_med.recipe.schema import DataSettings, EvaluationSettings, ModelSettings, TextSettings


def open_to_answer(
    source: str | Path,
    on: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    template: str | None = None,
) -> Run:
    """Open the run that answers, or start one for a checkpoint.

    Args:
        source: a finished run; or a checkpoint (folder or hub name; of a run the last one) where
            `out` is given.
        on: the prepared folder to answer; the first one of a new folder is its own.
        split: a split of it.
        out: the run folder of a checkpoint's answers: new, or of an earlier call with it.
        template: name of the chat template, where it is not the model's own.

    Raises:
        RunError: there is no run, `out` is missing, or holds something else.
        CheckpointError: there is no checkpoint.
        DataError: there is no such template.
    """
    if template is not None:
        chat_template(template)
    run = _open_finished(Path(source)) if out is None else _of_checkpoint(source, on, split, out)
    if template is None:
        return run
    text = run.recipe.text.model_copy(update={"template": template})
    return replace(run, recipe=run.recipe.model_copy(update={"text": text}))


def _of_checkpoint(source: str | Path, on: str | None, split: str | None, out: Path) -> Run:
    from exgra_med.model.bundle import read_config
    from exgra_med.model.folder import local_folder

    checkpoint = local_folder(source)
    read_config(checkpoint)
    processes = launched_processes()
    if processes.is_first:
        _start(checkpoint, str(source), on, split, out)
    processes.wait()
    return open_run(out)


def _open_finished(path: Path) -> Run:
    if (path / "config.json").is_file() and not is_run_folder(path):
        raise RunError(
            f"{path} is a checkpoint, and its answers need a folder.",
            "Give a new one with --out RUN, and the questions with --on PREPARED_FOLDER.",
        )
    if not (path / "recipe.yaml").is_file():
        raise RunError(
            f"{path} is not a run folder: it has no recipe.yaml.",
            "Name a finished run, or a checkpoint with --on PREPARED_FOLDER and --out RUN.",
        )
    return open_run(path)


def _start(checkpoint: Path, name: str, on: str | None, split: str | None, out: Path) -> None:
    if (out / "recipe.yaml").is_file():
        earlier = open_run(out)
        if earlier.recipe.stages:
            raise RunError(f"{out} holds a trained run.", "Name another folder with --out.")
        if earlier.last_checkpoint.resolve() != checkpoint.resolve():
            raise RunError(
                f"{out} holds answers of {earlier.last_checkpoint}.",
                "Name another folder with --out for this checkpoint.",
            )
        return
    if on is None:
        raise RunError(
            "Nothing says which questions a checkpoint is asked.", "Give --on PREPARED_FOLDER."
        )
    recipe = AnsweringRecipe(
        name=re.sub(r"[^a-z0-9_./-]+", "-", out.name.lower()).lstrip("_./-") or "checkpoint",
        description=f"Answers of the checkpoint {name}.",
        model=ModelSettings(start=str(checkpoint)),
        data=DataSettings(folder=on),
        text=TextSettings(template=own_template(checkpoint)),
        evaluation=EvaluationSettings(split=split or "test"),
    )
    start_run(out, recipe, resume=False)
