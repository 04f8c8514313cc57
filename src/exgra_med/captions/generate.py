"""`captions generate`: every answer of a file through a language model.

Many requests run at once; a stopped run goes on where it was, and no answer is paid twice.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.captions.output import ExtendedFile, failures_path, write_original
from exgra_med.captions.question import (
    PROMPT,
    SCHEMA,
    messages_for,
    pairs_of,
    requests_of,
    revision_of,
)
from exgra_med.captions.records import RecordFile, open_records, refuse_identifiers
from exgra_med.data.records import Record
from exgra_med.errors import AnswerError
from exgra_med.llm.endpoint import require_allowed
from exgra_med.llm.openai_transport import request_body
from exgra_med.llm.prompt import Prompt, faults_text, load_prompt, reply_fault
from exgra_med.llm.request import CompletionError, StoppedError, estimate_tokens
from exgra_med.llm.service import ChatService, ServiceSettings
from exgra_med.terminal import Reporter, Silent

EXPLANATION_TOKENS = 130
"""Of a reply: five checks of a sentence each, with their names and the JSON around them."""

GRACE_SECONDS = 10.0
"""How long requests under way may still finish after the first Ctrl-C; the second ends at once."""


@dataclass
class Outcome:
    """How a run ended.

    Args:
        done: records that are extended, those of earlier runs included.
        earlier: of these, finished by earlier runs.
        faults: of the failed ones, how many had a last reply that was `empty`, `cut` at the token
            limit or `unparsed`, or none (`failed`).
        error: why no further request made sense, if so.
    """

    items: int
    done: int = 0
    earlier: int = 0
    failed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False
    error: StoppedError | None = None

    def require_one(self) -> None:
        """Refuse to call a run done in which every record that was tried failed.

        Raises:
            AnswerError: nothing was extended, and something failed.
        """
        if self.failed and self.done == self.earlier:
            cut = self.faults["cut"]
            hint = "Let it write more with --max-new-tokens." if cut else "Look at the failures."
            told = faults_text(self.faults)
            raise AnswerError(
                f"All {self.failed} records failed; their last replies: {told}.", hint
            )

    @property
    def left(self) -> int:
        """Records that were not tried."""
        return self.items - self.done - self.failed


async def extend_all(
    source: RecordFile,
    file: ExtendedFile,
    service: ChatService,
    prompt: Prompt,
    workers: int,
    reporter: Reporter,
) -> Outcome:
    """Extend every record that is not finished.

    Args:
        source: the records; only `workers` of them are in memory.

    Raises:
        DataError: a record is malformed.
        WriteError: the disk is full.
        ServiceError: the cache cannot be used.
    """
    outcome = Outcome(source.total)

    def is_finished(name: str) -> bool:
        before = file.has(name)
        outcome.earlier += before
        outcome.done += before
        return before

    records = source.iterate(is_finished)
    stop = asyncio.Event()
    is_begun = False

    async def extend(record: Record) -> None:
        extended: list[str] = []
        for turn, (question, answer) in enumerate(pairs_of(record)):
            try:
                messages = messages_for(prompt, question, answer)
                completion = await service.complete(messages, SCHEMA, revision_of)
            except CompletionError as error:
                file.fail(record, turn, error.kind, error.detail, error.attempts)
                outcome.failed += 1
                outcome.faults[reply_fault(error.kind, error.detail)] += 1
                return
            extended.append(revision_of(completion.text))
        file.write(record, extended)
        outcome.done += 1

    async def work() -> None:
        nonlocal is_begun
        for record in records:
            if not is_begun:
                # The iterator has passed over what was finished earlier: no part of the rate.
                reporter.start("extending answers", source.total, outcome.done, "records")
                is_begun = True
            try:
                await extend(record)
            except StoppedError as error:
                outcome.error = outcome.error or error
                stop.set()
            if stop.is_set():
                return
            finished = outcome.done + outcome.failed
            reporter.advance(finished, _note(service, outcome))
            # Answers from the cache never wait, so Ctrl-C would not be heard.
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        with _stop_signals(stop, tasks, outcome):
            await _finish(tasks, stop)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        reporter.finish()
    return outcome


async def _finish(tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait for all workers, or for a stop and the grace after it; then a worker's error comes up.

    An error stops the others too, but what they have asked for is paid and may still arrive.
    """
    stopping = asyncio.create_task(stop.wait())
    waiting: set[asyncio.Task[Any]] = {*tasks}
    try:
        while waiting and not stop.is_set():
            done, _ = await asyncio.wait({*waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            waiting -= done
            if any(not task.cancelled() and task.exception() for task in done):
                stop.set()
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE_SECONDS)
    finally:
        stopping.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


def _note(service: ChatService, outcome: Outcome) -> str:
    usage = service.usage
    tokens = f"{usage.prompt_tokens + usage.completion_tokens:,} tokens"
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    if usage.cost is None:
        return f"{tokens}{failed}"
    new = outcome.done + outcome.failed - outcome.earlier
    expected = usage.cost / new * (outcome.items - outcome.earlier) if new else 0.0
    return f"{tokens}, ${usage.cost:.4f} of about ${expected:.2f}{failed}"


@contextmanager
def _stop_signals(
    stop: asyncio.Event, tasks: list[asyncio.Task[None]], outcome: Outcome
) -> Iterator[None]:
    """The first signal stops new requests, the second ends those under way."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        outcome.interrupted = True
        if stop.is_set():
            for task in tasks:
                task.cancel()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in signals:
            loop.add_signal_handler(number, on_signal)
    except (NotImplementedError, ValueError, RuntimeError):
        # Windows, or not the main thread: Ctrl-C then ends the loop as an exception.
        yield
        return
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def generate_captions(
    name: str,
    out: Path,
    settings: ServiceSettings,
    *,
    limit: int | None = None,
    original: bool = False,
    reporter: Reporter | None = None,
) -> tuple[dict[str, Any], Outcome]:
    """Extend every answer of a file and return the summary and how the run ended.

    Args:
        name: records, the original's JSON, or a prepared folder.
        out: JSON Lines of extended records; with `original`, the original's JSON.

    Raises:
        ServiceError: remote without permission, no key, no cache.
        DataError: malformed records, text that identifies patients, `out` of another origin.
        WriteError: the disk is full.
        MissingExtraError: the SDK or vLLM is not installed.
    """
    source = open_records(name, limit)
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

        service = ChatService(settings, endpoint, cache)

        async def work() -> Outcome:
            try:
                return await extend_all(
                    source, file, service, prompt, settings.concurrency, reporter or Silent()
                )
            finally:
                await service.close()

        with file:
            outcome = asyncio.run(work())
    if original:
        write_original(source, records, out)
        if outcome.done == outcome.items:
            records.unlink()
    counts = {name: getattr(outcome, name) for name in ("done", "failed", "left", "earlier")}
    summary = {
        **counts,
        "model": model,
        "faults": dict(outcome.faults),
        **vars(service.usage),
        "interrupted": outcome.interrupted,
        "out": str(out),
        "failures": str(failures_path(out)),
    }
    return summary, outcome


def dry_run(name: str, settings: ServiceSettings, limit: int | None = None) -> dict[str, Any]:
    """What `generate_captions` would ask and cost, without any connection.

    Tokens are estimates (`llm/request.py`); an extended answer is taken to be as long as the
    prompt's length rule allows on average.

    Returns:
        Of all `answers`, how many are `requests` that would be sent, how many are `from_cache`, and
        how many are `duplicates`, whose request is that of an earlier one; tokens and cost of the
        requests; and the first one in full.

    Raises:
        DataError: malformed records.
        ServiceError: no address, or the cache cannot be used.
    """
    endpoint = settings.endpoint()
    model, sampling = settings.served_name(endpoint), settings.sampling
    price = settings.known_price(endpoint)
    prompt = load_prompt(PROMPT)
    counts = Counter(requests=0, from_cache=0, duplicates=0)
    prompt_tokens = completion_tokens = 0
    example: dict[str, Any] | None = None
    seen: set[str] = set()
    with closing(settings.open_cache()) as cache:
        source = open_records(name, limit)
        for answer, request in requests_of(source.iterate(), prompt, model, sampling):
            if request.key in seen:
                counts["duplicates"] += 1
                continue
            seen.add(request.key)
            if cache.get(request.key) is not None:
                counts["from_cache"] += 1
                continue
            counts["requests"] += 1
            if example is None:
                example = request_body(request)
            prompt_tokens += request.prompt_tokens
            revision = max(60, min(400, 2 * estimate_tokens(answer)))
            completion_tokens += min(sampling.max_tokens, EXPLANATION_TOKENS + revision)
    return {
        "records": source.total,
        "answers": counts.total(),
        **counts,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if price is None else price.cost(prompt_tokens, completion_tokens),
        "model": model,
        "prompt": prompt.label,
        "example": example,
        "address": endpoint.base_url if endpoint else "this process (vLLM)",
        "remote": endpoint is not None and not endpoint.is_local,
    }
