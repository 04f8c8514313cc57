"""`exgra-med train`: run the stages of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.recipe import Assignments


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/<name of the recipe> else.")
    ] = None,
    assignments: Assignments = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that the folder holds.")
    ] = False,
) -> None:
    """Train the stages of a recipe, one after another.

    A run that was stopped, or killed, goes on with --resume and ends with the same weights.
    """
    from rich.console import Console

    from exgra_med.evaluation.held_out import held_out_scorer
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.load import load_recipe
    from exgra_med.training.run import begin_run, train_run

    loaded = load_recipe(recipe, assignments or ())
    run = begin_run(out or Path("runs") / loaded.recipe.name, loaded.recipe, resume)
    console = Console()
    final = train_run(run, RichReporter(console), held_out_scorer)
    console.print(f"Finished. The last checkpoint is {final}.")
