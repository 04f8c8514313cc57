"""Verbs of evaluation: `score`, `report`, `compare`, and the noun `evaluate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

ScorerChoice = Annotated[
    str, typer.Option("--scorer", help="strict, legacy or legacy-pathvqa.", metavar="NAME")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    app.command("score", epilog=_SCORE_EXAMPLES)(score)


_SCORE_EXAMPLES = """
Examples:

* `exgra-med score runs/demo/predictions/vqa-rad.jsonl prepared/vqa-rad/test.jsonl`

* `exgra-med score answers.jsonl test.json --candidates candidate.json --scorer legacy --json`
"""


def score(
    predictions: Annotated[Path, typer.Argument(help="Answers, one JSON object a line.")],
    reference: Annotated[Path, typer.Argument(help="Records, or a JSON file of the original.")],
    scorer: ScorerChoice = "strict",
    candidates: Annotated[
        Path | None, typer.Option(help="Known open answers: candidate.json, or training records.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score stored answers against a reference, without a model."""
    from exgra_med.evaluation.score import score_files

    result = score_files(predictions, reference, scorer, candidates)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        _print_score(result)


def _print_score(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from exgra_med.evaluation.wording import counts_sentences, score_rows

    console = Console()
    table = Table(title=f"{result['scorer']} score", title_justify="left")
    for column in ("measure", "percent", "95 % interval", "questions"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for row in score_rows(result):
        table.add_row(*row)
    console.print(table)
    for sentence in counts_sentences(result):
        console.print(sentence, style="dim")
