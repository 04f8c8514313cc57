"""Every answer of a source through a language model: many at once, resumable, never paid twice."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exgra_med.captions.output import ExtendedFile
from exgra_med.captions.question import SCHEMA, messages_for, pairs_of, revision_of
from exgra_med.captions.source import Source
from exgra_med.data.record import Record
from exgra_med.llm.client import ChatService
from exgra_med.llm.failures import CompletionError, StoppedError
from exgra_med.llm.prompt import Prompt
from exgra_med.progress import Reporter

GRACE_SECONDS = 10.0
"""How long requests under way may still finish after the first Ctrl-C; the second ends at once."""


@dataclass
class Outcome:
    """How a run ended.

    Args:
        items: records of the source.
        done: records that are extended, those of earlier runs included.
        earlier: of these, finished by earlier runs.
        failed: records in the list of failures.
        interrupted: a person or the system stopped the run.
        error: why no further request made sense, if so.
    """

    items: int
    done: int = 0
    earlier: int = 0
    failed: int = 0
    interrupted: bool = False
    error: StoppedError | None = None

    @property
    def left(self) -> int:
        """Records that were not tried."""
        return self.items - self.done - self.failed


async def extend_all(
    source: Source,
    file: ExtendedFile,
    service: ChatService,
    prompt: Prompt,
    workers: int,
    reporter: Reporter,
) -> Outcome:
    """Extend every record that is not finished.

    Args:
        source: the records; only `workers` of them are in memory.
        file: receives each finished record and each failure.
        service: the model.
        prompt: how it is asked.
        workers: records under way at once.
        reporter: is told of each record.

    Raises:
        DataError: a record is malformed.
        WriteError: the disk is full.
        ServiceError: the cache cannot be used.
    """
    outcome = Outcome(source.total)
    records = _pending(source, file, outcome)
    reporter.start("extend", source.total, 0)
    stop = asyncio.Event()

    async def work() -> None:
        for record in records:
            try:
                await _extend(record, file, service, prompt, outcome)
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


def _pending(source: Source, file: ExtendedFile, outcome: Outcome) -> Iterator[Record]:
    def finished_before(name: str) -> bool:
        if not file.has(name):
            return False
        outcome.earlier += 1
        outcome.done += 1
        return True

    yield from source.iterate(finished_before)


async def _extend(
    record: Record, file: ExtendedFile, service: ChatService, prompt: Prompt, outcome: Outcome
) -> None:
    extended: list[str] = []
    for turn, (question, answer) in enumerate(pairs_of(record)):
        try:
            messages = messages_for(prompt, question, answer)
            completion = await service.complete(messages, SCHEMA, revision_of)
        except CompletionError as error:
            file.fail(record, turn, error.kind, error.detail, error.attempts)
            outcome.failed += 1
            return
        extended.append(revision_of(completion.text))
    file.write(record, extended)
    outcome.done += 1


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
