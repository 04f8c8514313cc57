"""Verbs of evaluation: `score`, `report` and `compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exgra_med.cli.output import print_json, say

ScorerChoice = Annotated[
    str, typer.Option("--scorer", help="strict, legacy or legacy-pathvqa.", metavar="NAME")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
DataFolder = Annotated[
    str | None,
    typer.Option(
        help="The prepared folder that was answered, if it moved; of several it names one."
    ),
]
Answers = Annotated[Path, typer.Argument(help="Answers, one JSON object a line.")]

_SCORE_EXAMPLES = """
Examples:

* `exgra-med evaluate score runs/demo/predictions/vqa-rad.jsonl prepared/vqa-rad/test.jsonl`

* `exgra-med evaluate score answers.jsonl test.json --candidates candidate.json --json`
"""
_REPORT_EXAMPLES = """
Examples:

* `exgra-med evaluate report runs/demo`

* `exgra-med evaluate report runs/a runs/b runs/c --out runs/comparison.html`
"""
_COMPARE_EXAMPLES = """
Examples:

* `exgra-med evaluate compare runs/a runs/b`

* `exgra-med evaluate compare a.jsonl b.jsonl prepared/vqa-rad/test.jsonl --scorer legacy --json`
"""


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    app.command("score", epilog=_SCORE_EXAMPLES)(score)
    app.command("report", epilog=_REPORT_EXAMPLES)(report)
    app.command("compare", epilog=_COMPARE_EXAMPLES)(compare)


def score(
    predictions: Answers,
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
        print_json(result)
        return
    from exgra_med.evaluation.wording import counts_sentences, score_rows

    columns = ("measure", "percent", "95 % interval", "questions")
    _print_table(f"{result['scorer']} score", columns, score_rows(result))
    for sentence in counts_sentences(result):
        say(sentence)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    data: DataFolder = None,
    out: Annotated[
        Path, typer.Option(help="Page that compares several runs; the first is the reference.")
    ] = Path("comparison.html"),
) -> None:
    """Write report.html, report.md and scores.csv into each run; several runs are also compared."""
    from exgra_med.evaluation.report import write_comparison, write_report

    for run in runs:
        say(write_report(run, data))
    if len(runs) > 1:
        say(write_comparison(runs, out, data))


def compare(
    first: Annotated[Path, typer.Argument(help="A run folder, or a file of answers.")],
    second: Annotated[Path, typer.Argument(help="Another one that answers the same questions.")],
    reference: Annotated[
        Path | None, typer.Argument(help="Records, or a JSON file of the original; for files.")
    ] = None,
    scorer: ScorerChoice = "strict",
    data: DataFolder = None,
    seed: Annotated[int, typer.Option(help="Of resamples and permutations.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether two runs can be told apart on the same questions."""
    from exgra_med.evaluation.compare import compare_stored
    from exgra_med.evaluation.score import as_scorer

    result = compare_stored(
        first, second, reference, as_scorer(scorer), data_folder=data, seed=seed
    )
    if as_json:
        print_json(result)
        return
    from exgra_med.evaluation.wording import comparison_rows

    columns = ("measure", "first", "second", "difference", "95 % interval", "p (Holm)", "")
    _print_table(
        f"{result['num_questions']} questions on {result['num_images']} images",
        columns,
        comparison_rows(result),
    )


def _print_table(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index > 0 and column else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
