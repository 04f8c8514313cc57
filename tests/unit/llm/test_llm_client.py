"""The service on a transport that answers from a list."""

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from exgra_med.errors import ServiceError
from exgra_med.llm.budget import Price, known_price
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.request import (
    BudgetError,
    ChatRequest,
    CompletionError,
    Reply,
    ReplyError,
    Sampling,
    StoppedError,
    TransportError,
    estimate_tokens,
)
from exgra_med.llm.service import ChatService, RateLimit, ServiceSettings

ASK = [{"role": "user", "content": "question"}]


class Answers:
    """Gives what it was told to give, then `good`."""

    def __init__(self, *steps: object, seconds: float = 0.0) -> None:
        self.steps, self.seconds, self.sent = list(steps), seconds, 0

    async def send(self, request: ChatRequest) -> Reply:
        self.sent += 1
        step = self.steps.pop(0) if self.steps else "good"
        await asyncio.sleep(self.seconds)
        if isinstance(step, Exception):
            raise step
        return Reply(str(step), 1000, 100)

    async def close(self) -> None:
        pass


class Waits:
    """Stands for `sleep` and remembers how long it would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


# Of another machine: there a model of no known price costs an unknown amount.
ENDPOINT = Endpoint("https://models.example/v1", "key")


def service(
    transport: Answers, cache: AnswerCache | None = None, **settings: object
) -> tuple[ChatService, Waits]:
    waits = Waits()
    chosen = ServiceSettings(model="model", **settings)
    return ChatService(chosen, ENDPOINT, cache, transport=transport, sleep=waits), waits


def accept_good(text: str) -> None:
    if text != "good":
        raise ReplyError("not good")


def test_a_paid_answer_is_never_paid_twice(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "deep" / "c.sqlite")
    transport = Answers()
    made, _ = service(transport, cache=cache)
    first = asyncio.run(made.complete(ASK))
    assert (first.from_cache, first.prompt_tokens, first.completion_tokens) == (False, 1000, 100)
    other, _ = service(transport, cache=AnswerCache(cache.path))
    again = asyncio.run(other.complete(ASK))
    assert again.from_cache and again.cost == 0 and again.text == "good"
    assert (transport.sent, other.usage.requests, other.usage.from_cache) == (1, 0, 1)
    assert cache.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"messages": [{"role": "user", "content": "question "}]},
        {"sampling": Sampling(temperature=0.0)},
        {"sampling": Sampling(seed=1)},
    ],
)
def test_the_key_holds_everything_that_decides_an_answer(change: dict) -> None:
    base = {"model": "model", "messages": ASK, "sampling": Sampling()}
    assert ChatRequest(**base).key == ChatRequest(**base).key
    assert ChatRequest(**base).key != ChatRequest(**base | change).key


def test_equal_requests_under_way_are_sent_once() -> None:
    transport = Answers(seconds=0.01)
    made, _ = service(transport)

    async def both() -> list:
        return await asyncio.gather(*(made.complete(ASK) for _ in range(5)))

    found = asyncio.run(both())
    assert transport.sent == 1
    assert sorted(one.from_cache for one in found) == [False, True, True, True, True]


def test_a_waiter_goes_on_when_the_one_it_waits_for_is_cancelled() -> None:
    transport = Answers(seconds=0.02)
    made, _ = service(transport)

    async def race() -> str:
        first = asyncio.create_task(made.complete(ASK))
        await asyncio.sleep(0)
        second = asyncio.create_task(made.complete(ASK))
        await asyncio.sleep(0.005)
        first.cancel()
        return (await second).text

    assert asyncio.run(race()) == "good"
    assert transport.sent == 2


def test_faults_are_tried_again_with_growing_waits() -> None:
    faults = [TransportError("server", "HTTP 500") for _ in range(3)]
    made, waits = service(Answers(*faults, "bad"))
    assert asyncio.run(made.complete(ASK, accept=accept_good)).text == "good"
    assert made.usage.requests == 5
    for number, seconds in enumerate(waits.seconds):
        assert 0.25 * 2**number <= seconds <= 0.5 * 2**number


def test_retry_after_is_honoured() -> None:
    asked = TransportError("rate limit", "HTTP 429", retry_after_seconds=7.0)
    made, waits = service(Answers(asked))
    asyncio.run(made.complete(ASK))
    assert 7.0 <= waits.seconds[0] < 8.0


def test_a_wait_of_hours_is_not_waited_for() -> None:
    asked = TransportError("rate limit", "HTTP 429", retry_after_seconds=7200.0)
    made, waits = service(Answers(asked))
    with pytest.raises(CompletionError, match="rate limit"):
        asyncio.run(made.complete(ASK))
    assert waits.seconds == []


def test_a_service_that_wants_hours_is_left_after_a_while() -> None:
    asked = [TransportError("rate limit", "HTTP 429", retry_after_seconds=7200.0)] * 99
    transport = Answers(*asked)
    made, waits = service(transport, concurrency=4)

    async def ask() -> None:
        for number in range(99):
            with contextlib.suppress(CompletionError):
                await made.complete([{"role": "user", "content": str(number)}])

    with pytest.raises(StoppedError, match="rate limit"):
        asyncio.run(ask())
    assert transport.sent == 20 and waits.seconds == []


def test_nobody_asks_while_one_is_asked_to_wait() -> None:
    asked = TransportError("rate limit", "HTTP 429", retry_after_seconds=7.0)
    made, waits = service(Answers("good", asked))

    async def both() -> None:
        await made.complete(ASK)
        await made.complete([{"role": "user", "content": "second"}])
        await made.complete([{"role": "user", "content": "third"}])

    asyncio.run(both())
    # No clock goes on here: the second waits, asks again and is paused with the third.
    assert len(waits.seconds) == 3 and all(6.5 < seconds < 8 for seconds in waits.seconds)


def test_attempts_are_bounded_and_the_last_fault_is_named(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    transport = Answers(*["bad"] * 100)
    made, _ = service(transport, attempts=4, cache=cache)
    with pytest.raises(CompletionError) as caught:
        asyncio.run(made.complete(ASK, accept=accept_good))
    assert (caught.value.kind, caught.value.attempts, transport.sent) == ("invalid reply", 4, 4)
    assert cache.get(made.settings.request(ENDPOINT, ASK).key) is None


def test_what_cannot_succeed_is_not_tried_again() -> None:
    refused = TransportError("rejected", "HTTP 400", retryable=False)
    made, _ = service(Answers(refused))
    with pytest.raises(CompletionError, match="after 1 attempts"):
        asyncio.run(made.complete(ASK))
    fatal = TransportError("rejected", "HTTP 401: the key was refused", fatal=True)
    made, _ = service(Answers(fatal))
    with pytest.raises(StoppedError, match="key was refused"):
        asyncio.run(made.complete(ASK))


def test_a_server_that_is_gone_stops_the_run() -> None:
    made, _ = service(Answers(*[TransportError("connection", "x")] * 99), attempts=1, concurrency=1)

    async def ask() -> int:
        for number in range(99):
            try:
                await made.complete([{"role": "user", "content": str(number)}])
            except CompletionError:
                continue
            except StoppedError:
                return number
        return -1

    assert asyncio.run(ask()) == 19


def test_the_cap_on_cost_holds_with_requests_side_by_side() -> None:
    price = Price(1.0, 10.0)
    sampling = Sampling(max_tokens=200)
    # A reply costs 1000 x 1 + 100 x 10 = 0.002 dollars; a request may cost 0.002 and a little.
    made, _ = service(
        Answers(seconds=0.001), price=price, max_cost=0.0065, sampling=sampling, concurrency=10
    )

    async def ask(number: int) -> bool:
        try:
            await made.complete([{"role": "user", "content": str(number)}])
        except BudgetError as error:
            assert "--max-cost" in error.hint
            return False
        return True

    async def many() -> list[bool]:
        return await asyncio.gather(*(ask(number) for number in range(20)))

    assert sum(asyncio.run(many())) == 3
    assert made.usage.cost == pytest.approx(0.006)


def test_a_cap_needs_a_price() -> None:
    with pytest.raises(StoppedError, match="price"):
        service(Answers(), max_cost=1.0)
    assert known_price("openai/gpt-4o-mini") == Price(0.15, 0.60)
    assert known_price("unheard-of") is None


def test_the_server_s_own_cost_goes_first() -> None:
    class Paid(Answers):
        async def send(self, request: ChatRequest) -> Reply:
            return Reply("good", 1, 1, 0.5)

    made, _ = service(Paid(), price=Price(1, 1))
    assert asyncio.run(made.complete(ASK)).cost == 0.5


def test_rates_are_kept_by_pacing() -> None:
    waits = Waits()
    rate = RateLimit(60, 6000, clock=lambda: 100.0, sleep=waits)

    async def three() -> None:
        for tokens in (10, 500, 10):
            await rate.wait(tokens)

    asyncio.run(three())
    # One a second; 500 tokens at 100 a second take five.
    assert waits.seconds == [1.0, 6.0]


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("no database " * 100)
    with pytest.raises(ServiceError, match=r"c\.sqlite"):
        AnswerCache(path)


def test_the_cache_holds_no_question(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    made, _ = service(Answers(), cache=cache)
    asyncio.run(made.complete([{"role": "user", "content": "findmeplease"}]))
    cache.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"good" in stored and b"findmeplease" not in stored
    assert AnswerCache(cache.path).spent()[0]["answers"] == 1


def test_the_prompt_changes_only_with_its_version() -> None:
    prompt = load_prompt("extend-answer")
    assert prompt.label == "extend-answer/1-b81156e236dc"
    for word in ("helpfulness", "relevance", "accuracy", "level_of_detail", "clarity"):
        assert prompt.text.count(word) == 2


def test_tokens_are_estimated_by_script() -> None:
    assert [estimate_tokens(text) for text in ("", "abcd", "abcde", "日本")] == [0, 1, 2, 2]


def test_a_stored_answer_that_was_changed_is_asked_for_again(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    for key, cost in (("whole", 0), ("changed", 0.5), ("earlier", None)):
        cache.put(key, "m", Reply("Grade 8.", 3, 4, cost))
    with closing(sqlite3.connect(cache.path, isolation_level=None)) as file:
        file.execute("UPDATE answers SET text = 'Grade 9.' WHERE key != 'whole'")
        file.execute("DELETE FROM digests WHERE key = 'earlier'")
    assert cache.get("whole") == Reply("Grade 8.", 3, 4, 0.0)
    assert cache.get("changed") is None
    # Of a version that kept no SHA-256.
    assert cache.get("earlier") == Reply("Grade 9.", 3, 4, None)
    cache.put("changed", "m", Reply("Grade 8.", 3, 4, 0.5))
    assert cache.get("changed") == Reply("Grade 8.", 3, 4, 0.5)
