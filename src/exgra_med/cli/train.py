"""`exgra-med train`: run the stages of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.recipe import AsJson, Assignments


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/NAME of the recipe else.")
    ] = None,
    assignments: Assignments = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that the folder holds.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it will cost; no weights are loaded.")
    ] = False,
    gpu: Annotated[
        str, typer.Option(help="GPU to plan for: h100, h200, a100-80, a100-40, l40s, ...")
    ] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs to plan for.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Train the stages of a recipe, one after another.

    A run that was stopped, or killed, goes on with --resume and ends with the same weights; give
    every --set again, as the recipe must be the one that the run began with.
    --gpu, --gpus and --json belong to --dry-run: `accelerate launch` decides where training runs.
    """
    from exgra_med.errors import RecipeError
    from exgra_med.recipe.load import load_recipe

    if dry_run:
        from exgra_med.cli.train_plan import plan

        try:
            own = load_recipe(recipe).recipe
        except RecipeError:
            # A recipe that is whole only with --set; if it is not then, the next line says so.
            own = None
        plan(load_recipe(recipe, assignments or ()).recipe, own, gpu, gpus, as_json)
        return
    from rich.console import Console

    from exgra_med.evaluation.held_out import held_out_scorer
    from exgra_med.progress import RichReporter
    from exgra_med.training.distributed import process_state, refuse_other_engines
    from exgra_med.training.preflight import check_before_training
    from exgra_med.training.stages import begin_run, train_run

    refuse_other_engines()
    loaded = load_recipe(recipe, assignments or ())
    folder = out or Path("runs") / loaded.recipe.name
    if process_state().is_main_process:
        check_before_training(loaded.recipe, folder)
    console = Console()
    if resume and process_state().is_main_process and not (folder / "recipe.yaml").exists():
        console.print(f"There is nothing to go on with in {folder}: a new run begins.")
    run = begin_run(folder, loaded.recipe, resume)
    final = train_run(run, RichReporter(console), held_out_scorer)
    if process_state().is_main_process:
        console.print(f"Finished. The last checkpoint is {final}.")
