"""`exgra-med evaluate multiple-choice` and `evaluate reliance`."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import print_json, say

FinishedRun = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
_CHOICE_EXAMPLES = """
Examples:

* `exgra-med evaluate multiple-choice runs/demo --on data/omnimedvqa`

* `exgra-med evaluate multiple-choice runs/demo --on data/omnimedvqa --orders 4`
"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `evaluate`."""
    app.command("multiple-choice", epilog=_CHOICE_EXAMPLES)(multiple_choice)
    app.command("reliance", epilog="Example: `exgra-med evaluate reliance runs/demo`")(reliance)


def multiple_choice(
    run: FinishedRun,
    on: Annotated[str, typer.Option(help="Prepared folder whose questions have options.")],
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    protocol: Annotated[str, typer.Option(help="generation, likelihood or both.")] = "both",
    orders: Annotated[int, typer.Option(min=1, help="Option orders to ask in.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Answer multiple-choice questions by generation and by option likelihood, and score them."""
    from rich.console import Console

    from exgra_med.errors import RunError
    from exgra_med.evaluation.checks import evaluate_multiple_choice
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.run import open_run

    if protocol not in ("generation", "likelihood", "both"):
        raise RunError(f"Unknown protocol {protocol!r}.", "generation, likelihood or both.")
    reporter = RichReporter(Console(stderr=True))
    section = evaluate_multiple_choice(open_run(run), reporter, on, split, protocol, orders)
    if as_json:
        print_json(section)
        return
    for name, score in section.items():
        if isinstance(score, dict) and "accuracy" in score:
            say(f"{name.replace('_', ' ')}: {score['accuracy']:.1f} % of {score['num']}")


def reliance(
    run: FinishedRun,
    on: Annotated[str | None, typer.Option(help="Prepared folder that was answered.")] = None,
    split: Annotated[str | None, typer.Option(help="Split that was answered.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask again with blank, noise and exchanged images: does the model look?"""
    from rich.console import Console

    from exgra_med.evaluation.checks import evaluate_reliance
    from exgra_med.evaluation.wording import interval_text
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.run import open_run

    section = evaluate_reliance(open_run(run), RichReporter(Console(stderr=True)), on, split)
    if as_json:
        print_json(section)
        return
    probe = section.pop("mirrored")
    for kind, lost in section.items():
        bounds = interval_text(lost["intervals"]["average"])
        value = "–" if lost["average"] is None else f"{lost['average']:.1f}"
        say(
            f"{kind} image: {value} points of the average are lost (95 %: {bounds}), "
            f"{lost['same_answer']:.0f} % of the answers stay the same"
        )
    if probe["num"]:
        say(
            f"mirrored image: of {probe['num']} answers about a side {probe['follows']:.0f} % "
            f"follow the image, {probe['stays']:.0f} % stay"
        )
