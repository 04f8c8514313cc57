"""`exgra-med captions`: extended answers by a language model."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.cli import options
from exgra_med.terminal import next_step, remark, reporter, show

if TYPE_CHECKING:
    from exgra_med.llm.cache import AnswerCache

app = typer.Typer(
    help="Extend answers with a language model; check, review and merge them.", no_args_is_help=True
)
batch = typer.Typer(help="Write and read files of a service's batch queue.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="IN", help="Prepared folder, records, or JSON of the original.")
]
ReviewedCaptions = Annotated[
    str,
    typer.Argument(
        metavar="CAPTIONS", help="Output of `generate` or `compose`, merged data, original's JSON."
    ),
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
    from exgra_med.llm.request import Sampling

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
    from exgra_med.llm.request import adapted_sentence

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


@app.command(epilog="Example: `exgra-med captions check long.jsonl`")
def check(
    captions: ReviewedCaptions,
    worst: Annotated[int, typer.Option("--worst", min=0, help="Worst examples to show.")] = 3,
    as_json: options.Json = False,
) -> None:
    """Look for signs of faults: flipped answers, leaked prompts, lost numbers and more.

    `exgra-med captions review` shows each of them beside its picture.
    """
    from exgra_med.captions.check import check_captions
    from exgra_med.captions.records import open_records

    report = check_captions(open_records(captions), worst)

    def lines() -> Iterator[str]:
        yield f"{report.answers} extended answers, {report.faulty} with signs of a fault."
        if report.without:
            yield f"{report.without} records have no extended answer."
        for kind, count in report.counts.most_common():
            yield f"    {kind}: {count}"
        low, middle, high = report.length_ratio
        yield f"Length over the answer's: median {middle} ({low} to {high})."
        if report.worst:
            yield f"The worst {len(report.worst)}:" if len(report.worst) > 1 else "The worst:"
        for each in report.worst:
            signs = "; ".join(f"{fault.kind} ({fault.detail})" for fault in each.faults)
            yield f"    {each.id}, answer {each.turn + 1}: {signs}"
            for name in ("question", "answer", "extended"):
                yield _shown(name, getattr(each, name))
        yield next_step(f"captions review {captions} --rater NAME --data DATA")

    show(report.to_json(), as_json, lines())


def _shown(name: str, text: str) -> str:
    text = " ".join(text.split())
    return f"        {name}: {text if len(text) <= 200 else f'{text[:200]}...'}"


@app.command(
    epilog="""
Examples:

* `exgra-med captions review long.jsonl --data data/slake --rater ana`

* `exgra-med captions review long.jsonl --data data/slake --rater bo --sample 100` shows 100 at
  random; another rater gets the same ones
"""
)
def review(
    captions: ReviewedCaptions,
    rater: Annotated[
        str, typer.Option("--rater", metavar="NAME", help="Who judges; part of the file's name.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Prepared folder, or `bundled:vqa-rad-sample`. Its pictures are shown.",
        ),
    ] = None,
    flagged: Annotated[
        bool, typer.Option("--flagged", help="Only answers with a sign of a fault.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", min=1, help="Only N, drawn at random.")
    ] = None,
    seed: options.Seed = 0,
    port: options.Port = 7861,
) -> None:
    """Open a page to accept or reject extended answers, with picture, differences and signs.

    The worst come first. Each judgement is stored at once, in a file of the rater's beside
    CAPTIONS; the page and this command may be stopped at any time. --port 0 takes a free port.
    """
    from exgra_med.captions.judgements import JudgementFile
    from exgra_med.captions.records import open_records
    from exgra_med.data.prepare import MAX_PIXELS
    from exgra_med.data.records import open_prepared
    from exgra_med.web.review import Review, choose_items, serve_review

    source = open_records(captions)
    folder = captions if data is None and _is_prepared(captions) else data
    images = None if folder is None else open_prepared(folder).image_folder(MAX_PIXELS)
    items = choose_items(source, flagged, sample, seed)
    with JudgementFile(captions, rater) as file:
        page = Review(Path(captions).name, items, images, file)

        def on_open(address: str) -> None:
            done = sum(map(bool, page.overview()["verdicts"]))
            remark(f"{len(items)} answers to judge, {done} judged before. Stored: {file.path}")
            remark(f"The page is open: {address}")
            remark("Ctrl-C ends it.")

        serve_review(page, port, on_open)
    remark(next_step(f"captions judgements {captions}"))


def _is_prepared(captions: str) -> bool:
    from exgra_med.data.records import BUNDLED

    return captions.startswith(BUNDLED) or Path(captions).is_dir()


@app.command(
    epilog="""
Examples:

* `exgra-med captions judgements long.jsonl`

* `exgra-med captions judgements long.jsonl --out judged.csv`
"""
)
def judgements(
    captions: ReviewedCaptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write them, as .csv or .jsonl."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Count what raters said of extended answers, say how far they agree, and write it all down."""
    from exgra_med.captions.judgements import judgement_counts, judgement_rows, write_export
    from exgra_med.captions.records import open_records
    from exgra_med.evaluation.agreement import agreement

    rows = list(judgement_rows(captions, open_records(captions)))
    if out is not None:
        write_export(out, [row.to_json() for row in rows])
    result: dict[str, Any] = judgement_counts(captions, rows)
    result["agreement"] = []
    for first, second in combinations(result["raters"], 2):
        said = {
            rater: {row.place: row for row in rows if row.rater == rater and row.verdict}
            for rater in (first, second)
        }
        if both := [place for place in said[first] if place in said[second]]:
            ones, twos = ([said[rater][place] for place in both] for rater in (first, second))
            found = agreement(
                [row.verdict for row in ones],
                [row.verdict for row in twos],
                [row.image_group for row in ones],
            )
        else:
            found = {"items": 0}
        result["agreement"].append({"raters": [first, second], **found})

    show(
        result | {"out": None if out is None else str(out)}, as_json, _judgement_lines(result, out)
    )


def _judgement_lines(result: dict[str, Any], out: Path | None) -> Iterator[str]:
    for rater, counts in result["raters"].items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        yield f"{rater}: {said}."
    if result["of_other_texts"]:
        yield f"{result['of_other_texts']} judgements are of texts that have changed; not counted."
    for each in result["agreement"]:
        names = " and ".join(each["raters"])
        if not each["items"]:
            yield f"{names}: no answer that both judged."
            continue
        value, bounds = each["kappa"]["value"], each["kappa"]["interval"]
        kappa = "no kappa, since both gave one verdict alone"
        if value is not None:
            kappa = f"Cohen's kappa {value:.2f}"
            within = "no interval, fewer than five images"
            kappa += f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else f" ({within})"
        yield f"{names}: agree on {each['agreed']} of {each['items']}, {kappa}."
        for one, others in each["table"].items():
            for two, count in others.items():
                if count and one != two:
                    first, second = each["raters"]
                    yield f"    {one} by {first}, {two} by {second}: {count}"
    if out is not None:
        yield f"Written: {out}"


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
        bool,
        typer.Option("--only-extended", help="Leave out records that CAPTIONS has nothing of."),
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a prepared folder that differs.")
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
        overwrite=overwrite,
    )

    def lines() -> Iterator[str]:
        kind = "training records" if "fingerprint" in result else "records"
        extended, without = result["extended"], result["without"]
        yield f"Written: {out}, {result['written']} {kind}, {extended} with an extended answer."
        if result["had"]:
            yield f"{result['had']} keep the extended answer that they had."
        if without:
            state = (
                f"of which {captions} has nothing are left out" if only_extended else "have none"
            )
            yield f"{without} {state}."
        if leave_out:
            told = reasons_text(result["left_out"]) or "none"
            yield f"Left out by --leave-out: {told}."
        if result["unused"]:
            yield f"{result['unused']} captions are of no record there."
        if "fingerprint" in result:
            yield next_step(f"train demo --out runs/long --set data.folder={out}")

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
    from exgra_med.llm.request import Sampling

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
