"""`exgra-med captions` verbs without a language model: `check`, `cost`, `merge`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.captions_options import (
    BaseUrl,
    Cache,
    Json,
    Limit,
    MaxTokens,
    PerMillion,
    Temperature,
)
from exgra_med.cli.output import print_json, say

_COST_EXAMPLES = """
Examples:

* `exgra-med captions cost instruct.json --model openai/gpt-4o-mini`

* `exgra-med captions cost --cache answers.sqlite`
"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `captions`."""
    app.command(epilog="Example: `exgra-med captions check long.jsonl --html check.html`")(check)
    app.command(epilog=_COST_EXAMPLES)(cost)
    app.command(epilog="Example: `exgra-med captions merge data/slake long.jsonl --out data/long`")(
        merge
    )


def check(
    captions: Annotated[str, typer.Argument(help="Output of `generate`, or the original's JSON.")],
    html: Annotated[Path | None, typer.Option("--html", help="Page to write.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="Worst examples on the page.")] = 50,
    sample: Annotated[int, typer.Option(min=0, help="Answers for a person to judge.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """Look for signs of faults: flipped sides, lost numbers, refusals, copies and more."""
    from exgra_med.captions.check import check_captions, render_check
    from exgra_med.captions.source import open_source
    from exgra_med.files import write_text

    source = open_source(captions)
    report = check_captions(source, worst, sample, seed)
    if html is not None:
        write_text(html, render_check(report, source.path.name))
    if as_json:
        print_json(report.to_json() | {"html": None if html is None else str(html)})
        return
    say(f"{report.answers} extended answers, {report.faulty} with signs of a fault.")
    for kind, count in report.counts.most_common():
        say(f"    {kind}: {count}")
    low, middle, high = report.length_ratio
    say(f"Length over the answer's: median {middle} ({low} to {high}).")
    say(f"Page: {html}" if html else "Give --html FILE to see the examples.")


def cost(
    source: Annotated[
        str | None, typer.Argument(metavar="[IN]", help="What to estimate; else what was spent.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="For an estimate.")] = None,
    base_url: BaseUrl = None,
    cache: Cache = None,
    limit: Limit = None,
    price: PerMillion = None,
    max_tokens: MaxTokens = 1024,
    temperature: Temperature = None,
    as_json: Json = False,
) -> None:
    """Estimate what extending a file would cost, or say what the answers of a cache did cost."""
    from exgra_med.captions import generate
    from exgra_med.errors import DataError
    from exgra_med.llm.budget import Price
    from exgra_med.llm.request import Sampling

    settings = generate.ServiceSettings(
        model=model or "",
        base_url=base_url,
        price=None if price is None else Price(*price),
        sampling=Sampling(max_tokens, temperature),
        cache=cache,
    )
    if source is None:
        with closing(settings.open_cache()) as stored:
            rows = stored.spent()
        if as_json:
            print_json(rows)
        for row in rows if not as_json else ():
            paid = "unknown" if row["cost"] is None else f"${row['cost']:.4f}"
            say(f"{row['model']}: {row['answers']} answers, cost {paid}")
        return
    if model is None:
        raise DataError("An estimate needs a model.", "Give --model NAME.")
    figures = generate.estimate_cost(source, settings, limit)
    if as_json:
        print_json(figures)
        return
    say(f"{figures['requests']} requests, {figures['from_cache']} answers in the cache.")
    say(f"About {figures['prompt_tokens']:,} + {figures['completion_tokens']:,} tokens.")
    paid = "unknown; give --price" if figures["cost"] is None else f"about ${figures['cost']:.2f}"
    say(f"Cost: {paid}.")


def merge(
    data: Annotated[str, typer.Argument(help="Prepared folder, records, or original's JSON.")],
    captions: Annotated[Path, typer.Argument(help="Output of `generate`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder, or file of records, to make.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Records may have no extended answer.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Join extended answers to the data they were made from; stage 2 trains on the result."""
    from exgra_med.captions.merge import merge as join

    result = join(str(data), captions, out, allow_missing)
    if as_json:
        print_json(result)
        return
    say(f"Written: {out} ({result['without']} without, {result['unused']} unused).")
