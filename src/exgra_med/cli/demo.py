"""`exgra-med demo`: the whole system once, on the bundled sample, with a toy model."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.recipe import Assignments


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    assignments: Assignments = None,
) -> None:
    """Train a toy model on bundled VQA-RAD images, evaluate it, and write a report.

    Minutes on two CPU cores, no network. Started again, it goes on where it was stopped.
    """
    from rich.console import Console

    from exgra_med.evaluation.report import write_report
    from exgra_med.evaluation.run import evaluate_vqa
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.load import load_recipe
    from exgra_med.training.run import begin_run, train_run

    console = Console()
    console.print("Research use only. The model of this demo is a toy, and so are its scores.")
    run = begin_run(out, load_recipe("demo", assignments or ()).recipe, resume=True)
    reporter = RichReporter(console)
    train_run(run, reporter)
    evaluate_vqa(run, reporter)
    report = write_report(run.path)
    console.print(f"Done. Open {report} in a browser; {run.results} has the numbers.")
