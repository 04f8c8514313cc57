"""`exgra-med captions`: extended answers by a language model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from exgra_med.cli import captions_batch, captions_review
from exgra_med.cli.captions_options import (
    BaseUrl,
    Cache,
    Json,
    Limit,
    MaxTokens,
    Model,
    PerMillion,
    Source,
    Temperature,
)
from exgra_med.cli.output import print_json, say

app = typer.Typer(
    help="Extended answers by a language model: generate, check, merge.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Format(StrEnum):
    """Of the output file."""

    records = "records"
    original = "original"


class Engine(StrEnum):
    """Where the model runs."""

    api = "api"
    vllm = "vllm"


@app.command(
    epilog="""
Examples:

* `exgra-med captions generate bundled:vqa-rad-sample --out long.jsonl --model qwen3:8b
  --base-url http://localhost:11434/v1`

* `exgra-med captions generate instruct.json --out long.jsonl --model openai/gpt-4o-mini
  --allow-remote --max-cost 20`
"""
)
def generate(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="JSON Lines to write or go on with.")],
    model: Model,
    base_url: BaseUrl = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 64,
    cache: Cache = None,
    limit: Limit = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before more US dollars.")] = None,
    price: PerMillion = None,
    requests_per_minute: Annotated[float | None, typer.Option(help="Of the service.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(help="Of the service.")] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Most requests for one answer.")] = 6,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds for one request.")] = 120.0,
    max_tokens: MaxTokens = 1024,
    temperature: Temperature = None,
    output_format: Annotated[Format, typer.Option("--format")] = Format.records,
    engine: Annotated[Engine, typer.Option(help="A server, or vLLM in-process.")] = Engine.api,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Text may leave this machine.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send text that seems to identify patients.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate only; no request.")] = False,
    as_json: Json = False,
) -> None:
    """Let a language model extend every answer. Stopped or killed, it goes on where it was."""
    from rich.console import Console

    from exgra_med.captions import generate
    from exgra_med.llm.budget import Price
    from exgra_med.llm.request import Sampling
    from exgra_med.progress import RichReporter

    settings = generate.ServiceSettings(
        model=model,
        base_url=base_url,
        engine=engine.value,
        concurrency=concurrency,
        attempts=attempts,
        timeout_seconds=timeout,
        price=None if price is None else Price(*price),
        max_cost=max_cost,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        sampling=Sampling(max_tokens, temperature),
        cache=cache,
        allow_remote=allow_remote,
        force=force,
    )
    if dry_run:
        print_json(generate.dry_run(source, settings, limit))
        return
    original = output_format is Format.original
    reporter = RichReporter(Console(stderr=True))
    summary, outcome = generate.generate(
        source, out, settings, limit=limit, original=original, reporter=reporter
    )
    if as_json:
        print_json(summary)
    else:
        _report(summary)
    if outcome.error is not None:
        raise outcome.error
    if outcome.interrupted:
        raise KeyboardInterrupt


def _report(summary: dict[str, Any]) -> None:
    say(f"{summary['done']} extended, {summary['failed']} failed, {summary['left']} left.")
    cost = "unknown cost" if summary["cost"] is None else f"${summary['cost']:.4f}"
    say(f"{summary['requests']} requests, {summary['from_cache']} from the cache, {cost}.")
    say(f"Written: {summary['out']}")
    if summary["failed"]:
        say(f"Failures, tried again by the next run: {summary['failures']}")


captions_review.register(app)
app.add_typer(captions_batch.batch, name="batch")
