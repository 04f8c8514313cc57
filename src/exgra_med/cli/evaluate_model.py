"""`exgra-med evaluate`: ask a trained model, store its answers, score them."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Ask a trained model and score its answers.", no_args_is_help=True)


@app.callback()
def _noun() -> None:
    pass


@app.command(epilog="Example: exgra-med evaluate vqa runs/demo --on data/vqa-rad --split test")
def vqa(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    on: Annotated[
        str | None, typer.Option(help="Prepared folder; the one of the recipe else.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to answer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Answer the questions of a split greedily and score the answers, strict and legacy.

    Answers are kept one a line; a call that was stopped goes on where it was.
    """
    from rich.console import Console

    from exgra_med.evaluation.run import evaluate_vqa
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.run import open_run

    console = Console(stderr=as_json)
    results = evaluate_vqa(open_run(run), RichReporter(console), on, split)
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
        return
    for scorer in ("strict", "legacy"):
        score = results["vqa"][scorer]
        low, high = score["intervals"]["average"]
        console.print(f"{scorer}: average {score['average']:.1f} % (95 %: {low:.1f} to {high:.1f})")
    console.print(f"Everything is in {run / 'results.json'}; `exgra-med report {run}` draws it.")
