"""`exgra-med evaluate multiple-choice`, `evaluate reliance` and `evaluate baselines`."""

from typing import Annotated

import typer

from exgra_med.cli import options
from exgra_med.cli.evaluate_options import Answering, Out, Template, refuse_for_server
from exgra_med.cli.output import print_json, say

AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
_CHOICE_EXAMPLES = """
Examples:

* `exgra-med evaluate multiple-choice runs/demo --on data/omnimedvqa`

* `exgra-med evaluate multiple-choice runs/demo --on data/omnimedvqa --orders 4`

* `exgra-med evaluate multiple-choice runs/qwen --on data/omnimedvqa --engine openai
  --model qwen2.5-vl --base-url http://localhost:8000/v1`
"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `evaluate`."""
    app.command("multiple-choice", epilog=_CHOICE_EXAMPLES)(multiple_choice)
    app.command("reliance", epilog="Example: `exgra-med evaluate reliance runs/demo`")(reliance)
    app.command("baselines", epilog="Example: `exgra-med evaluate baselines data/vqa-rad`")(floors)


def multiple_choice(
    run: Answering,
    on: Annotated[str, typer.Option(help="Prepared folder whose questions have options.")],
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    protocol: Annotated[str, typer.Option(help="generation, likelihood or both.")] = "both",
    out: Out = None,
    template: Template = None,
    orders: Annotated[int, typer.Option(min=1, help="Option orders to ask in.")] = 1,
    engine: options.EngineOption = options.Engine.exgra,
    base_url: options.BaseUrl = None,
    model: options.OptionalModel = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of --engine openai.")] = 64,
    concurrency: options.Concurrency = 8,
    allow_remote: options.AllowRemote = False,
    as_json: AsJson = False,
) -> None:
    """Answer multiple-choice questions by generation and by option likelihood, and score them."""
    from rich.console import Console

    from exgra_med.errors import RunError
    from exgra_med.evaluation.checkpoint_run import open_to_answer
    from exgra_med.evaluation.checks import evaluate_multiple_choice
    from exgra_med.progress import RichReporter

    if protocol not in ("generation", "likelihood", "both"):
        raise RunError(f"Unknown protocol {protocol!r}.", "generation, likelihood or both.")
    reporter = RichReporter(Console(stderr=True))
    if engine is options.Engine.openai:
        from exgra_med.evaluation.foreign import evaluate_choices_by_service

        refuse_for_server(out, template)
        if protocol == "likelihood":
            raise RunError("A server gives no likelihoods.", "Use --protocol generation.")
        settings = options.answering_service(
            model, base_url, allow_remote, concurrency, max_new_tokens
        )
        section = evaluate_choices_by_service(run, settings, reporter, on, split, orders)
    else:
        answering = open_to_answer(run, on, split, out, template)
        section = evaluate_multiple_choice(answering, reporter, on, split, protocol, orders)
    if as_json:
        print_json(section)
        return
    for name, score in section.items():
        if isinstance(score, dict) and "accuracy" in score:
            number = score["num_questions"]
            say(f"{name.replace('_', ' ')}: {score['accuracy']:.1f} % of {number}")


def reliance(
    run: Answering,
    on: Annotated[str | None, typer.Option(help="Prepared folder that was answered.")] = None,
    split: Annotated[str | None, typer.Option(help="Split that was answered.")] = None,
    out: Out = None,
    template: Template = None,
    as_json: AsJson = False,
) -> None:
    """Ask again with blank, noise and exchanged images: does the model look?"""
    from rich.console import Console

    from exgra_med.evaluation.checkpoint_run import open_to_answer
    from exgra_med.evaluation.checks import evaluate_reliance
    from exgra_med.evaluation.run import evaluate_vqa
    from exgra_med.evaluation.wording import interval_text
    from exgra_med.progress import RichReporter

    reporter = RichReporter(Console(stderr=True))
    answering = open_to_answer(run, on, split, out, template)
    if out is not None:
        # What the images are worth is told beside the plain answers, which may not be there yet.
        evaluate_vqa(answering, reporter, on, split)
    section = evaluate_reliance(answering, reporter, on, split)
    if as_json:
        print_json(section)
        return
    if not section:
        # Another process of this launch scores and speaks.
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


def floors(
    folder: Annotated[str, typer.Argument(help="A prepared folder.")],
    split: Annotated[str, typer.Option(help="Split whose questions are answered.")] = "test",
    train_split: Annotated[str, typer.Option(help="Split whose answers are known.")] = "train",
    as_json: AsJson = False,
) -> None:
    """Score what answers without a model or an image; the strict scorer's figures are printed."""
    from exgra_med.data.prepared import open_prepared
    from exgra_med.evaluation.floors import FLOOR_LABELS
    from exgra_med.evaluation.vqa import score_folder_floors
    from exgra_med.evaluation.wording import interval_text, percent

    found = score_folder_floors(open_prepared(folder), split, train_split)
    if as_json:
        print_json(found)
        return
    for name, scores in found.items():
        strict = scores["strict"]
        say(
            f"{FLOOR_LABELS[name]}: average {percent(strict['average'])} "
            f"(95 %: {interval_text(strict['intervals']['average'])}), "
            f"open recall {percent(strict['open_recall'])}, "
            f"closed accuracy {percent(strict['closed_accuracy'])}"
        )
