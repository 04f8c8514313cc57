"""`captions generate` as one call: source, guards, service, files, summary."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

from exgra_med.captions.cost import estimate
from exgra_med.captions.generate import Outcome, extend_all
from exgra_med.captions.original_format import write_original
from exgra_med.captions.output import ExtendedFile, failures_path
from exgra_med.captions.question import PROMPT
from exgra_med.captions.scan import refuse_identifiers
from exgra_med.captions.source import open_source
from exgra_med.llm.budget import known_price
from exgra_med.llm.client import Usage
from exgra_med.llm.endpoint import Endpoint, require_allowed
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.settings import Settings
from exgra_med.progress import Reporter, Silent


def generate(
    name: str,
    out: Path,
    settings: Settings,
    *,
    limit: int | None = None,
    original: bool = False,
    reporter: Reporter | None = None,
) -> tuple[dict[str, Any], Outcome]:
    """Extend every answer of a file and return the summary and how the run ended.

    Args:
        name: records, the original's JSON, or a prepared folder.
        out: JSON Lines of extended records; with `original`, the original's JSON.
        settings: see `Settings`.
        limit: only the first so many records.
        original: write the original's format.
        reporter: is told of each record.

    Raises:
        ServiceError: remote without permission, no key, no cache.
        DataError: malformed records, text that identifies patients, `out` of another origin.
        WriteError: the disk is full.
        MissingExtraError: the SDK or vLLM is not installed.
    """
    source = open_source(name, limit)
    endpoint = settings.endpoint()
    if endpoint is not None:
        require_allowed(endpoint, settings.allow_remote)
    model = settings.served_name(endpoint)
    prompt = load_prompt(PROMPT)
    records = out.with_name(f"{out.stem}.partial.jsonl") if original else out
    origin = {"model": model, "prompt": prompt.label}
    with closing(settings.open_cache()) as cache:
        file = ExtendedFile(records, failures_path(out), origin)
        if not settings.force:
            refuse_identifiers(source, file.has, cache)

        async def work() -> tuple[Outcome, Usage]:
            service = settings.service(endpoint, cache)
            try:
                workers = settings.concurrency
                found = await extend_all(
                    source, file, service, prompt, workers, reporter or Silent()
                )
            finally:
                await service.close()
            return found, service.usage

        with file:
            outcome, usage = asyncio.run(work())
    if original:
        write_original(source, records, out)
        if outcome.done == outcome.items:
            records.unlink()
    return _summary(out, outcome, usage), outcome


def dry_run(name: str, settings: Settings, limit: int | None = None) -> dict[str, Any]:
    """What `generate` would ask and cost, without any connection.

    Raises:
        DataError: malformed records.
        ServiceError: no address, or the cache cannot be used.
    """
    endpoint = settings.endpoint()
    figures = estimate_cost(name, settings, limit, endpoint)
    address = endpoint.base_url if endpoint else "this process (vLLM)"
    return figures | {"address": address, "remote": endpoint is not None and not endpoint.is_local}


def estimate_cost(
    name: str, settings: Settings, limit: int | None = None, endpoint: Endpoint | None = None
) -> dict[str, Any]:
    """Requests, tokens and money for what is not in the cache.

    Args:
        name: as for `generate`.
        settings: model, price, sampling and cache count.
        limit: only the first so many records.
        endpoint: where it would be asked; without one, the list price of the model counts.

    Raises:
        DataError: malformed records.
        ServiceError: the cache cannot be used.
    """
    source = open_source(name, limit)
    with closing(settings.open_cache()) as cache:
        model = settings.served_name(endpoint)
        return estimate(
            source,
            model,
            settings.sampling,
            settings.known_price(endpoint) if endpoint else settings.price or known_price(model),
            cache,
        )


def _summary(out: Path, outcome: Outcome, usage: Usage) -> dict[str, Any]:
    return {
        "done": outcome.done,
        "failed": outcome.failed,
        "left": outcome.left,
        "earlier": outcome.earlier,
        "requests": usage.requests,
        "from_cache": usage.from_cache,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": usage.cost,
        "interrupted": outcome.interrupted,
        "out": str(out),
        "failures": str(failures_path(out)),
    }
