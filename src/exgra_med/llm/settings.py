"""Everything a person decides about a language-model service, and the service that follows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from exgra_med.llm.budget import Price, known_price
from exgra_med.llm.cache import AnswerCache, default_cache_path
from exgra_med.llm.client import ChatService
from exgra_med.llm.endpoint import Endpoint, environment_with_file, find_endpoint, model_name
from exgra_med.llm.rate import RateLimit
from exgra_med.llm.request import ChatRequest, Message, Sampling, Transport


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model is asked, where, and within which limits; the command line has a flag for each.

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

    def service(self, endpoint: Endpoint | None, cache: AnswerCache | None) -> ChatService:
        """The service itself; it belongs to the event loop that is running.

        Args:
            endpoint: from `endpoint()`.
            cache: stored answers; None asks anew each time.

        Raises:
            StoppedError: a cap without a price.
            MissingExtraError: the SDK or vLLM is not installed.
        """
        model = self.served_name(endpoint)
        transport: Transport | None = None
        if endpoint is None:
            from exgra_med.llm.vllm_transport import VllmTransport

            transport = VllmTransport(model)
        return ChatService(
            endpoint.base_url if endpoint else "",
            endpoint.api_key if endpoint else "",
            model,
            cache=cache,
            sampling=self.sampling,
            concurrency=self.concurrency,
            attempts=self.attempts,
            timeout_seconds=self.timeout_seconds,
            price=self.known_price(endpoint),
            max_cost=self.max_cost,
            rate=RateLimit(self.requests_per_minute, self.tokens_per_minute),
            transport=transport,
        )

    def request(self, endpoint: Endpoint | None, messages: Sequence[Message]) -> ChatRequest:
        """The request that the service would make; its `key` names the answer in the cache."""
        return ChatRequest(self.served_name(endpoint), messages, self.sampling)
