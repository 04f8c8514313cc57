"""`exgra-med captions`: extended answers by a language model."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.cli import options
from exgra_med.files import write_text
from exgra_med.llm.request import Sampling, adapted_sentence
from exgra_med.terminal import next_step, reporter, show

if TYPE_CHECKING:
    from exgra_med.llm.cache import AnswerCache

app = typer.Typer(
    help="Extend answers with a language model, check them, merge them.", no_args_is_help=True
)
batch = typer.Typer(help="Write and read files of a service's batch queue.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="IN", help="Prepared folder, records, or JSON of the original.")
]
Captions = Annotated[Path, typer.Argument(metavar="CAPTIONS", help="Output of `generate`.")]


def _stored(cache: Path | None) -> "closing[AnswerCache]":
    from exgra_med.llm.cache import AnswerCache, default_cache_path

    return closing(AnswerCache(cache or default_cache_path()))


class Format(StrEnum):
    """Of the output file."""

    records = "records"
    original = "original"


class Engine(StrEnum):
    """Where the model runs."""

    openai = "openai"
    vllm = "vllm"


@dataclass(frozen=True, kw_only=True)
class _CaptionService(options.PaidService):
    concurrency: options.Concurrency = 64
    attempts: options.Attempts = 6
    requests_per_minute: Annotated[
        float | None,
        options.of_service("--requests-per-minute", min=0.001, help="The service's limit."),
    ] = None
    tokens_per_minute: Annotated[
        float | None,
        options.of_service("--tokens-per-minute", min=0.001, help="The service's limit."),
    ] = None
    timeout_seconds: Annotated[
        float, options.of_service("--timeout", min=0.01, help="Seconds for one request.")
    ] = 120.0


@app.command(
    epilog="""
Examples:

* `exgra-med captions generate data/slake --out long.jsonl --model qwen3:8b
  --base-url http://localhost:11434/v1`

* `exgra-med captions generate instruct.json --out long.jsonl --model openai/gpt-4o-mini
  --allow-remote --max-cost 20`

* The same with `--dry-run` sends nothing and says what it would cost.
"""
)
@options.grouped(_CaptionService)
def generate(
    source: Source,
    out: options.OutFile,
    model: options.Model,
    limit: options.Limit = None,
    output_format: Annotated[
        Format, typer.Option("--format", help="Of the output file.")
    ] = Format.records,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    engine: Annotated[
        Engine,
        options.of_service(
            "--engine", help="An OpenAI-compatible server, or vLLM in this process."
        ),
    ] = Engine.openai,
    **given: Any,
) -> None:
    """Let a language model extend every answer. Stopped or killed, it continues where it was."""
    from exgra_med.captions import generate

    service = _CaptionService(**given)
    sampling = Sampling(service.max_new_tokens, service.temperature, seed=service.seed)
    where = "vllm" if engine is Engine.vllm else "api"
    settings = service.settings(model, sampling, engine=where)
    if dry_run:
        figures = generate.dry_run(source, settings, limit)
        show(figures, as_json, _estimate_lines(figures))
        return
    summary, outcome = generate.generate_captions(
        source,
        out,
        settings,
        limit=limit,
        original=output_format is Format.original,
        reporter=reporter(),
    )
    show(summary, as_json, _summary_lines(summary))
    if outcome.error is not None:
        raise outcome.error
    if outcome.interrupted:
        raise KeyboardInterrupt
    outcome.require_one()


_SAMPLE_CHARACTERS = 300
"""Of each message that a dry run shows."""


def _estimate_lines(figures: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{figures['answers']:,} answers: {figures['requests']:,} requests to send, "
        f"{figures['from_cache']:,} answered in the cache, {figures['duplicates']:,} the same as "
        "another and asked once."
    )
    yield f"About {figures['prompt_tokens']:,} + {figures['completion_tokens']:,} tokens."
    cost = figures["cost"]
    yield f"Cost: {'unknown, give --price' if cost is None else f'about ${cost:.2f}'}."
    yield f"Address: {figures['address']}{', another machine' if figures['remote'] else ''}."
    if figures["example"] is None:
        yield "Nothing would be sent."
        return
    yield "The first request begins so:"
    for message in figures["example"]["messages"]:
        text = message["content"]
        cut = len(text) > _SAMPLE_CHARACTERS
        shown = text[:_SAMPLE_CHARACTERS] + f"... ({len(text):,} characters)" * cut
        yield fill(
            " ".join(shown.split()),
            width=100,
            initial_indent=f"    {message['role']}: ",
            subsequent_indent="        ",
        )
    yield "--json shows it whole."


def _summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    from exgra_med.llm.prompt import faults_text

    yield f"{summary['done']} extended, {summary['failed']} failed, {summary['left']} left."
    cost = "unknown cost" if summary["cost"] is None else f"${summary['cost']:.4f}"
    free = f"{summary['from_cache']} answers needed none (in the cache, or the same as another)"
    yield f"{summary['requests']} requests, {cost}; {free}."
    if summary["adapted"]:
        yield adapted_sentence(summary["adapted"], summary["model"])
    yield f"Written: {summary['out']}"
    if summary["failed"]:
        yield f"Last replies of the failed: {faults_text(summary['faults'])}."
        yield f"Failures, tried again by the next run: {summary['failures']}"
    yield next_step(f"captions check {summary['out']}")


@app.command(
    epilog="""
Examples:

* `exgra-med captions compose data/slake --out long.jsonl`

* `exgra-med captions compose data/instructions --captions data/captions --out long.jsonl`
"""
)
def compose(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Prepared folder; its training split is extended.")
    ],
    out: options.OutFile,
    captions: Annotated[
        list[str] | None,
        typer.Option("--captions", help="Prepared folder that describes the same pictures."),
    ] = None,
    questions: Annotated[
        int, typer.Option("--questions", min=0, help="Other questions added, at most.")
    ] = 2,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Extend every answer without a language model, by what else is published of its picture.

    That is a caption, and other training questions with their answers. No test question is read.
    """
    from exgra_med.captions.compose import compose_captions

    result = compose_captions(data, captions or [], out, questions, seed)

    def lines() -> Iterator[str]:
        yield (
            f"{result['answers']} answers extended: {result['with_caption']} by a caption, "
            f"{result['with_question']} by other questions, {result['bare']} by nothing."
        )
        yield f"Written: {out}"
        yield next_step(f"captions merge {data} {out} --out FOLDER")

    show(result, as_json, lines())


@app.command(epilog="Example: `exgra-med captions check long.jsonl --html check.html`")
def check(
    captions: Annotated[
        str, typer.Argument(metavar="CAPTIONS", help="Output of `generate`, or original's JSON.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Page to write.")
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=0, help="Worst examples on the page.")] = 50,
    sample: Annotated[
        int, typer.Option("--sample", min=0, help="Random examples on the page, to judge.")
    ] = 50,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Look for signs of faults: flipped sides, lost numbers, refusals, copies and more."""
    from exgra_med.captions.check import check_captions, render_check
    from exgra_med.captions.records import open_records

    source = open_records(captions)
    report = check_captions(source, worst, sample, seed)
    if html is not None:
        write_text(html, render_check(report, source.path.name))

    def lines() -> Iterator[str]:
        yield f"{report.answers} extended answers, {report.faulty} with signs of a fault."
        for kind, count in report.counts.most_common():
            yield f"    {kind}: {count}"
        low, middle, high = report.length_ratio
        yield f"Length over the answer's: median {middle} ({low} to {high})."
        yield f"Written: {html}" if html else "Give --html FILE to see the examples."
        yield next_step(f"captions merge DATA {captions} --out FOLDER")

    value = report.to_json() | {"html": None if html is None else str(html)}
    show(value, as_json, lines())


@app.command(
    epilog="""
Examples:

* `exgra-med captions merge data/slake long.jsonl --out data/long`

* `exgra-med captions merge data/slake long.jsonl --out data/long --only-extended` takes what is
  there

* `exgra-med captions merge data/slake long.jsonl --out data/long --leave-out rejected
  --leave-out "answer flipped"`
"""
)
def merge(
    data: Source,
    captions: Captions,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="PATH", help="Prepared folder to make, or file of records."),
    ],
    only_extended: Annotated[
        bool, typer.Option("--only-extended", help="Leave out records without an extended answer.")
    ] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out",
            metavar="WHAT",
            help="Leave out records that are `rejected` by a rater, `flagged` by the check, or "
            "have one kind of sign. May be repeated.",
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Keep records without an extended answer.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Join extended answers to the data they were made from. Stage 2 trains on the result.

    Of a prepared folder, only the training split loses records. What a rater accepts and nobody
    rejects stays, whatever the check says.
    """
    from exgra_med.captions.merge import merge_captions, reasons_text

    result = merge_captions(
        data,
        captions,
        out,
        allow_missing,
        only_extended=only_extended,
        leave_out=leave_out or (),
    )

    def lines() -> Iterator[str]:
        kind = "training records" if "fingerprint" in result else "records"
        extended, without = result["extended"], result["without"]
        yield f"Written: {out}, {result['written']} {kind}, {extended} with an extended answer."
        if result["had"]:
            yield f"{result['had']} keep the extended answer that they had."
        if without:
            yield f"{without} have none, and are {'left out' if only_extended else 'kept'}."
        if leave_out:
            told = reasons_text(result["left_out"]) or "none"
            yield f"Left out by --leave-out: {told}."
        if result["unused"]:
            yield f"{result['unused']} captions are of no record there."

    show(result, as_json, lines())


@app.command(epilog="Example: `exgra-med captions cost --cache answers.sqlite`")
def cost(cache: options.Cache = None, as_json: options.Json = False) -> None:
    """Say what the stored answers did cost.

    `exgra-med captions generate` with --dry-run says what a file will cost.
    """
    with _stored(cache) as stored:
        rows = stored.spent()

    def lines() -> Iterator[str]:
        for row in rows:
            paid = "unknown" if row["cost"] is None else f"${row['cost']:.4f}"
            yield f"{row['model']}: {row['answers']} answers, cost {paid}"
        if not rows:
            yield "No answer is stored."

    show(rows, as_json, lines())


@batch.command(
    epilog="Example: `exgra-med captions batch write data/slake --out batch.jsonl"
    " --model gpt-4o-mini`"
)
def write(
    source: Source,
    out: options.OutFile,
    model: options.Model,
    limit: options.Limit = None,
    as_json: options.Json = False,
    max_new_tokens: options.MaxNewTokens = 1024,
    temperature: options.Temperature = None,
    seed: options.ServiceSeed = None,
    cache: options.Cache = None,
    force: options.Force = False,
) -> None:
    """Write the requests whose answers are not stored, for upload. Nothing is sent."""
    from exgra_med.captions.batch import write_batches
    from exgra_med.captions.records import open_records, refuse_identifiers

    records = open_records(source, limit)
    sampling = Sampling(max_new_tokens, temperature, seed=seed)
    with _stored(cache) as stored:
        if not force:
            refuse_identifiers(records, lambda name: False, stored)
        written = write_batches(records, out, model, sampling, stored)
    value = {"files": [{"path": str(path), "requests": count} for path, count in written]}
    lines = [f"{path}: {count} requests" for path, count in written]
    later = "Upload them; then: exgra-med captions batch read RESULTS --model"
    show(value, as_json, [*lines, f"{later} {model}"])


@batch.command(epilog="Example: `exgra-med captions batch read results.jsonl --model gpt-4o-mini`")
def read(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="Files that the service gave back.")
    ],
    model: options.Model,
    cache: options.Cache = None,
    as_json: options.Json = False,
) -> None:
    """Store the good replies, where `captions generate` finds them."""
    from exgra_med.captions.batch import read_batches
    from exgra_med.captions.output import failures_path

    failures = failures_path(results[0])
    with _stored(cache) as stored:
        counts = read_batches(results, model, stored, failures)
    line = f"{counts['stored']} replies stored, {counts['failed']} refused (see {failures})."
    again = next_step(f"captions generate IN --out OUT --model {model}")
    show(counts | {"failures": str(failures)}, as_json, [line, again])
