"""`exgra-med evaluate`: ask a trained model, store its answers, score them."""

import json
from typing import Annotated

import typer

from exgra_med.cli import options
from exgra_med.cli.evaluate_options import Answering, Out, Template, refuse_for_server

_VQA_EXAMPLES = """
Examples:

* `exgra-med evaluate vqa runs/demo --on data/vqa-rad --split test`

* `exgra-med evaluate vqa checkpoints/exgra-med-dci --on data/vqa-rad --out runs/exgra-med-dci`

* `exgra-med evaluate vqa runs/qwen --on data/vqa-rad --engine openai --model qwen2.5-vl
  --base-url http://localhost:8000/v1`

* `accelerate launch -m exgra_med evaluate vqa runs/demo`
"""

app = typer.Typer(help="Ask a trained model and score its answers.", no_args_is_help=True)


@app.callback()
def _noun() -> None:
    pass


@app.command(epilog=_VQA_EXAMPLES)
def vqa(
    run: Answering,
    on: Annotated[
        str | None, typer.Option(help="Prepared folder; the one of the recipe else.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to answer.")] = None,
    out: Out = None,
    template: Template = None,
    engine: options.EngineOption = options.Engine.exgra,
    base_url: options.BaseUrl = None,
    model: options.OptionalModel = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of --engine openai.")] = 64,
    concurrency: options.Concurrency = 8,
    allow_remote: options.AllowRemote = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Answer the questions of a split greedily and score the answers, strict and legacy.

    Answers are kept one a line; a call that was stopped goes on where it was.
    """
    from rich.console import Console

    from exgra_med.data.prepared import open_prepared
    from exgra_med.errors import RunError
    from exgra_med.evaluation.checkpoint_run import open_to_answer
    from exgra_med.evaluation.results import dataset_results
    from exgra_med.evaluation.run import evaluate_vqa
    from exgra_med.evaluation.wording import interval_text
    from exgra_med.progress import RichReporter

    console = Console(stderr=as_json)
    reporter = RichReporter(console)
    apart = False
    if engine is options.Engine.openai:
        from exgra_med.evaluation.foreign import evaluate_vqa_by_service

        refuse_for_server(out, template)
        if on is None:
            raise RunError("--engine openai needs the questions.", "Give --on PREPARED_FOLDER.")
        settings = options.answering_service(
            model, base_url, allow_remote, concurrency, max_new_tokens
        )
        folder = on
        results = evaluate_vqa_by_service(run, settings, reporter, on, split or "test")
    else:
        finished = open_to_answer(run, on, split, out, template)
        run, folder = finished.path, on or finished.recipe.evaluation_data.folder
        apart = split not in (None, finished.recipe.evaluation.split)
        results = evaluate_vqa(finished, reporter, on, split)
    if not results:
        # Another process of this launch scores and speaks.
        return
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
        return
    part = dataset_results(results, open_prepared(folder).manifest["dataset"])
    part = part["other_splits"][split] if apart else part
    for scorer in ("strict", "legacy"):
        score = part["vqa"][scorer]
        # A set without open or without closed questions has no average, few images no interval.
        average = "–" if score["average"] is None else f"{score['average']:.1f} %"
        bounds = interval_text(score["intervals"]["average"])
        console.print(f"{scorer}: average {average} (95 %: {bounds})")
    console.print(
        f"Everything is in {run / 'results.json'}; `exgra-med evaluate report {run}` draws it."
    )
