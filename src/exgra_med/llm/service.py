"""One language model, asked many questions: cached, rate-limited, retried, within a budget.

    settings = ServiceSettings(model="openai/gpt-4o-mini", allow_remote=True)
    endpoint = settings.endpoint()
    service = ChatService(settings, endpoint, settings.open_cache())
    completion = await service.complete([{"role": "user", "content": "..."}], accept=parse)

`accept` reads a reply and raises `ReplyError` where it is of no use; only accepted replies are
stored, so a stored answer is always a good one.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from exgra_med.llm.budget import Budget, Price, known_price
from exgra_med.llm.cache import AnswerCache, default_cache_path
from exgra_med.llm.endpoint import Endpoint, environment_with_file, find_endpoint, model_name
from exgra_med.llm.request import (
    BudgetError,
    ChatRequest,
    CompletionError,
    Message,
    Names,
    Reply,
    ReplyError,
    Sampling,
    StoppedError,
    Transport,
    TransportError,
)
from exgra_med.terminal import Reporter

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
"""Where a server asks to wait longer, the item counts as failed."""

MOST_REJECTED = 8
"""After so many rejected requests, and none answered, no further one is sent."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Which model is asked, where, and within which limits; the command line has a flag for each.

    Args:
        model: name at the service, or of a local model for vLLM.
        base_url: of the service; None looks into the environment.
        engine: `api` for a server, `vllm` for a model in this process.
        attempts: most requests for one answer, whatever goes wrong.
        price: US dollars for a million tokens; None takes the list price where we know it.
        max_cost: cap in US dollars.
        cache: file of stored answers; where absent, one in the user's cache folder.
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

    def request(self, endpoint: Endpoint | None, messages: Sequence[Message]) -> ChatRequest:
        """The request that the service would make; its `key` names the answer in the cache."""
        return ChatRequest(self.served_name(endpoint), messages, self.sampling)


@dataclass(frozen=True)
class Completion(Reply):
    """An accepted answer. `cost` is in US dollars, None where unknown, 0 from the cache."""

    from_cache: bool = False


@dataclass
class Usage:
    """What a service has used so far. `cost` is None as soon as one request's cost is unknown."""

    requests: int = 0
    from_cache: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    adapted: dict[str, str | None] = field(default_factory=dict)
    """Parameters it takes under another name, or (None) not at all, as it told by its errors."""


class ChatService:
    """An OpenAI-compatible model, or one in this process, behind a cache.

    It belongs to the event loop that is running.

    Args:
        endpoint: from `settings.endpoint()`.
        transport: another way to the model; for tests.
        sleep: waits between attempts; for tests.

    Raises:
        StoppedError: a cap without a price.
        MissingExtraError: the openai SDK or vLLM is not installed.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        endpoint: Endpoint | None,
        cache: AnswerCache | None = None,
        *,
        transport: Transport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.model = settings.served_name(endpoint)
        self.price = settings.known_price(endpoint)
        if settings.max_cost is not None and self.price is None:
            raise StoppedError(
                f"The price of {self.model} is not known, so its cost cannot be capped.",
                "Give --price PROMPT COMPLETION in US dollars for a million tokens.",
            )
        self.cache = cache
        self.usage = Usage()
        if transport is None and endpoint is not None:
            from exgra_med.llm.openai_transport import OpenAITransport

            transport = OpenAITransport(endpoint, settings.timeout_seconds, settings.concurrency)
        elif transport is None:
            from exgra_med.llm.vllm_transport import VllmTransport

            transport = VllmTransport(self.model)
        self._transport: Transport = transport
        self._budget = None if settings.max_cost is None else Budget(settings.max_cost)
        self._rate = RateLimit(
            settings.requests_per_minute, settings.tokens_per_minute, sleep=sleep
        )
        self._sleep = sleep
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._under_way: dict[str, asyncio.Future[Reply]] = {}
        # The first request finds out which parameters the service takes; the others wait for that.
        self._is_new = True
        self._known = asyncio.Event()
        self._stopped: StoppedError | None = None
        self._answered = False
        self._num_rejected = 0
        self._failed_in_a_row = 0
        self._most_failures = max(20, settings.concurrency)

    async def complete(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None = None,
        accept: Callable[[str], Any] | None = None,
        keep_cut: bool = False,
    ) -> Completion:
        """One accepted answer: from the cache, from an equal request under way, or paid.

        Args:
            schema: JSON schema of the reply, used where the server knows structured output.
            accept: raises `ReplyError` for a reply of no use, which is then asked again.
            keep_cut: also take a reply that is cut, empty or a refusal; for use without a cache,
                which does not store how a reply ended.

        Raises:
            CompletionError: this answer cannot be had.
            StoppedError: no answer can be had any more: key, budget, server gone.
            ServiceError: the cache cannot be used.
        """
        asked = ChatRequest(self.model, messages, self.settings.sampling, schema, keep_cut)
        is_first, self._is_new = self._is_new, False
        if not is_first and asked.key not in self._under_way:
            await self._known.wait()
        names: Names = self.usage.adapted
        try:
            while True:
                if self._stopped is not None:
                    raise self._stopped
                request = replace(asked, names=dict(names))
                try:
                    return await self._complete(request, accept)
                except TransportError as error:
                    if error.names is None:
                        raise
                    # Without a parameter it is another request, which the cache may know.
                    names = error.names
        except StoppedError as error:
            # What is left of a budget may do for another request.
            if not isinstance(error, BudgetError):
                self._stopped = error
            raise
        finally:
            if is_first:
                self._known.set()

    async def _complete(
        self, request: ChatRequest, accept: Callable[[str], Any] | None
    ) -> Completion:
        key = request.key
        while True:
            stored = self._stored(key, accept)
            if stored is not None:
                self._learn(request)
                return self._free(stored)
            other = self._under_way.get(key)
            if other is None:
                break
            await asyncio.wait([other])
            if not other.cancelled():
                return self._free(other.result())
        future = self._under_way[key] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting; asyncio would warn of an exception that was never read.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with self._slots:
                reply, cost = await self._ask(request, accept)
            if self.cache is not None:
                self.cache.put(key, self.model, replace(reply, cost=cost))
            future.set_result(reply)
        except Exception as error:
            future.set_exception(error)
            raise
        finally:
            future.cancel()
            del self._under_way[key]
        return Completion(**vars(replace(reply, cost=cost)))

    def _learn(self, request: ChatRequest) -> None:
        """The service takes this request, so others are asked with the same names."""
        self.usage.adapted |= request.names
        self._known.set()

    async def close(self) -> None:
        """Close the connections; the cache stays open."""
        await self._transport.close()

    def _stored(self, key: str, accept: Callable[[str], Any] | None) -> Reply | None:
        reply = None if self.cache is None else self.cache.get(key)
        if reply is not None and accept is not None:
            try:
                accept(reply.text)
            except ReplyError:
                # Stored under older rules: it would be refused today.
                return None
        return reply

    def _free(self, reply: Reply) -> Completion:
        self.usage.from_cache += 1
        return Completion(**vars(replace(reply, cost=0.0)), from_cache=True)

    async def _ask(
        self, request: ChatRequest, accept: Callable[[str], Any] | None
    ) -> tuple[Reply, float | None]:
        """Ask until a reply is accepted; returns it with what all its attempts cost."""
        total: float | None = 0.0
        attempt = 0
        while True:
            if self._stopped is not None:
                raise self._stopped
            attempt += 1
            wait = backoff_seconds(attempt)
            try:
                reply, cost = await self._ask_once(request)
                total = None if total is None or cost is None else total + cost
                if accept is not None:
                    accept(reply.text)
            except ReplyError as error:
                self._failed_in_a_row = 0
                failure = CompletionError("invalid reply", str(error), attempt)
            except TransportError as error:
                if error.names is not None:
                    raise
                if not error.fatal:
                    self._known.set()
                failure = CompletionError(error.kind, error.detail, attempt, error.hint)
                if error.fatal:
                    raise StoppedError(
                        f"The language model cannot be used: {error.detail}.", error.hint
                    ) from error
                asked = error.retry_after_seconds
                self._refuse_hopeless(error)
                if not error.retryable:
                    raise failure from error
                too_long = (asked or 0) > LONGEST_RETRY_AFTER_SECONDS
                if asked and not too_long:
                    # The others shall not ask meanwhile either.
                    self._rate.pause(asked)
                wait = wait if asked is None else asked + wait * 0.1
                last = too_long or attempt == self.settings.attempts
                self._failed_in_a_row += last
                if last and self._failed_in_a_row >= self._most_failures:
                    raise StoppedError(
                        f"The language model does not answer: {self._failed_in_a_row} requests in "
                        f"a row failed, the last by {error.kind} ({error.detail}).",
                        error.hint or "What was finished is kept; start again when it answers.",
                    ) from error
                if too_long:
                    raise failure from error
            else:
                self._failed_in_a_row = 0
                return reply, total
            if attempt >= self.settings.attempts:
                raise failure
            await self._sleep(wait)

    def _refuse_hopeless(self, error: TransportError) -> None:
        """Stop where nothing was ever answered: most servers call a wrong model a bad request.

        Raises:
            StoppedError: so many requests were rejected before the first reply.
        """
        if self._answered:
            return
        # A filter looks at each request for itself.
        self._num_rejected += not error.retryable and error.kind != "content filter"
        if self._num_rejected >= MOST_REJECTED:
            raise StoppedError(
                f"The language model rejects every request: {error.detail}.", error.hint
            ) from error

    async def _ask_once(self, request: ChatRequest) -> tuple[Reply, float | None]:
        prompt_tokens = request.prompt_tokens
        await self._rate.wait(prompt_tokens + request.sampling.max_tokens // 4)
        price = self.price
        dearest = price.cost(prompt_tokens, request.sampling.max_tokens) if price else 0.0
        if self._budget is not None:
            await self._budget.reserve(dearest)
        # A request that is lost on the way may have been charged: its prompt is booked.
        cost = price.cost(prompt_tokens, 0) if price else None
        try:
            self.usage.requests += 1
            reply = await self._transport.send(request)
            self._answered = True
            self._learn(request)
            cost = reply.cost
            if cost is None and price is not None:
                cost = price.cost(reply.prompt_tokens, reply.completion_tokens)
            usage = self.usage
            usage.prompt_tokens += reply.prompt_tokens
            usage.completion_tokens += reply.completion_tokens
            usage.cost = None if usage.cost is None or cost is None else usage.cost + cost
        except TransportError as error:
            if error.status is not None:
                cost = 0.0
            raise
        except ReplyError:
            self._answered = True
            self._learn(request)
            cost = dearest if price else None
            raise
        finally:
            if self._budget is not None:
                await self._budget.settle(dearest, cost or 0.0)
        return reply, cost


Item = TypeVar("Item")
Result = TypeVar("Result")


def ask_all(
    items: Sequence[Item],
    ask: Callable[[ChatService, Item], Awaitable[Result]],
    settings: ServiceSettings,
    endpoint: Endpoint | None,
    reporter: Reporter,
    title: str,
    unit: str,
) -> tuple[list[Result], Usage]:
    """Ask about each item, many at once, and show how many are done and what it cost.

    Whatever ends it, no request is left running; accepted replies are in the cache.

    Args:
        ask: makes an item's requests; what it raises ends the work.
        title: what is done, for the reporter.
        unit: what is counted, in the plural.

    Returns:
        Results in the order of the items, and what they used.

    Raises:
        StoppedError: no answer can be had.
        ServiceError: the cache cannot be used.
    """

    async def work() -> tuple[list[Result], Usage]:
        service = ChatService(settings, endpoint, cache)
        done = 0

        async def one(item: Item) -> Result:
            nonlocal done
            result = await ask(service, item)
            done += 1
            cost = service.usage.cost
            reporter.advance(done, "cost unknown" if cost is None else f"${cost:.4f}")
            return result

        tasks = [asyncio.create_task(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks)), service.usage
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.close()

    reporter.start(title, len(items), 0, unit)
    try:
        with closing(settings.open_cache()) as cache:
            return asyncio.run(work())
    finally:
        reporter.finish()


def backoff_seconds(attempt: int) -> float:
    """How long to wait after the given attempt: doubled each time, half of it by chance."""
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)


class RateLimit:
    """Lets requests start no faster than both limits allow, evenly spread.

    Args:
        tokens_per_minute: None for no limit; counts the estimate made before a request.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self.seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next_request = 0.0
        self._next_token = 0.0

    def pause(self, seconds: float) -> None:
        """Start nothing for so long."""
        self._next_request = max(self._next_request, self._clock() + seconds)

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may start."""
        now = self._clock()
        start = max(now, self._next_request, self._next_token)
        self._next_request = start + self.seconds_per_request
        self._next_token = start + self.seconds_per_token * tokens
        if start > now:
            await self._sleep(start - now)
