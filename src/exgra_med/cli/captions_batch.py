"""`exgra-med captions batch`: files for a service's batch queue."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.captions_options import Cache, Json, Limit, MaxTokens, Model, Source, Temperature
from exgra_med.cli.output import print_json, say

batch = typer.Typer(help="Files for a service's batch queue.", no_args_is_help=True)


@batch.command(
    epilog="Example: exgra-med captions batch write data.jsonl --out b.jsonl --model gpt-4o-mini"
)
def write(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="The file to upload.")],
    model: Model,
    cache: Cache = None,
    limit: Limit = None,
    max_tokens: MaxTokens = 1024,
    temperature: Temperature = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write text that seems to identify patients.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the requests whose answers are not in the cache; nothing is sent."""
    from exgra_med.captions.batch import write_batches
    from exgra_med.captions.source import open_source, refuse_identifiers
    from exgra_med.llm.cache import AnswerCache, default_cache_path
    from exgra_med.llm.request import Sampling

    records = open_source(source, limit)
    with closing(AnswerCache(cache or default_cache_path())) as stored:
        if not force:
            refuse_identifiers(records, lambda name: False, stored)
        written = write_batches(records, out, model, Sampling(max_tokens, temperature), stored)
    if as_json:
        print_json({"files": [{"path": str(path), "requests": count} for path, count in written]})
        return
    for path, count in written:
        say(f"{path}: {count} requests")


@batch.command(epilog="Example: exgra-med captions batch read results.jsonl --model gpt-4o-mini")
def read(
    results: Annotated[list[Path], typer.Argument(help="Files that the service gave back.")],
    model: Model,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Store the good replies in the cache, where `generate` finds them."""
    from exgra_med.captions.batch import read_batches
    from exgra_med.captions.output import failures_path
    from exgra_med.llm.cache import AnswerCache, default_cache_path

    failures = failures_path(results[0])
    with closing(AnswerCache(cache or default_cache_path())) as stored:
        counts = read_batches(results, model, stored, failures)
    if as_json:
        print_json(counts | {"failures": str(failures)})
        return
    say(f"{counts['stored']} replies stored, {counts['failed']} refused (see {failures}).")
