"""`captions generate` as one call: source, guards, service, files, summary."""

import asyncio
import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exgra_med.captions.cost import estimate
from exgra_med.captions.generate import Outcome, extend_all
from exgra_med.captions.original_format import write_original
from exgra_med.captions.output import ExtendedFile, failures_path
from exgra_med.captions.question import PROMPT
from exgra_med.captions.scan import refuse_identifiers
from exgra_med.captions.source import open_source
from exgra_med.llm.budget import Price, known_price
from exgra_med.llm.cache import AnswerCache, default_cache_path
from exgra_med.llm.client import ChatService, Usage
from exgra_med.llm.endpoint import (
    Endpoint,
    environment_with_file,
    find_endpoint,
    model_name,
    require_allowed,
)
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.rate import RateLimit
from exgra_med.llm.request import Sampling, Transport
from exgra_med.progress import Reporter, Silent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How answers are generated; the command line has a flag for each.

    Args:
        model: name at the service, or of a local model for vLLM.
        base_url: of the service; None looks into the environment.
        engine: `api` for a server, `vllm` for a model in this process.
        concurrency: requests under way at once.
        attempts: most requests for one answer.
        timeout_seconds: for one request.
        price: US dollars for a million tokens; None takes the list price where we know it.
        max_cost: cap in US dollars.
        requests_per_minute: limit of the service.
        tokens_per_minute: limit of the service.
        sampling: how answers are drawn.
        cache: file of stored answers; None takes the user's.
        allow_remote: text may leave this machine.
        force: text that seems to identify patients may be sent.
    """

    model: str
    base_url: str | None = None
    engine: Literal["api", "vllm"] = "api"
    concurrency: int = 64
    attempts: int = 6
    timeout_seconds: float = 120.0
    price: Price | None = None
    max_cost: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    sampling: Sampling = field(default_factory=Sampling)
    cache: Path | None = None
    allow_remote: bool = False
    force: bool = False

    def endpoint(self) -> Endpoint | None:
        """The service, or None for a model in this process."""
        if self.engine == "vllm":
            return None
        return find_endpoint(self.base_url, environment_with_file(os.environ, Path.cwd()))

    def served_name(self, endpoint: Endpoint | None) -> str:
        """The model's name as it is asked for."""
        return model_name(self.model, endpoint) if endpoint else self.model

    def known_price(self, endpoint: Endpoint | None) -> Price | None:
        """What tokens cost: nothing on this machine, unless a price was given."""
        if self.price is None and (endpoint is None or endpoint.is_local):
            return Price(0.0, 0.0)
        return self.price or known_price(self.model)

    def open_cache(self) -> AnswerCache:
        """The stored answers."""
        return AnswerCache(self.cache or default_cache_path())


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
            service = _service(settings, endpoint, model, cache)
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


def _service(
    settings: Settings, endpoint: Endpoint | None, model: str, cache: AnswerCache
) -> ChatService:
    transport: Transport | None = None
    if endpoint is None:
        from exgra_med.llm.vllm_transport import VllmTransport

        transport = VllmTransport(model)
    return ChatService(
        endpoint.base_url if endpoint else "",
        endpoint.api_key if endpoint else "",
        model,
        cache=cache,
        sampling=settings.sampling,
        concurrency=settings.concurrency,
        attempts=settings.attempts,
        timeout_seconds=settings.timeout_seconds,
        price=settings.known_price(endpoint),
        max_cost=settings.max_cost,
        rate=RateLimit(settings.requests_per_minute, settings.tokens_per_minute),
        transport=transport,
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
