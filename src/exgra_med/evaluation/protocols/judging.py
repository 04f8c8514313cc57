"""Asks the judges of protocols about stored answers, each in the protocol's own words."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from exgra_med.errors import ServiceError
from exgra_med.evaluation.engines import allowed_endpoint, refuse_identifying
from exgra_med.evaluation.protocols.protocol import Answered, Judge, Protocol
from exgra_med.evaluation.score import Case
from exgra_med.llm.request import CompletionError, ReplyError
from exgra_med.llm.service import ChatService, ServiceSettings
from exgra_med.terminal import Reporter


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of one answer."""

    judge: str
    """Which protocol's words it was asked in."""
    model: str
    id: str
    """Of the question."""
    reply: str
    verdict: float | None
    """None where no reply said anything the protocol understands; it counts as wrong."""


def judges_of(chosen: Sequence[Protocol]) -> list[Judge]:
    """Every judge of these protocols, once."""
    found = [
        reading.judge
        for protocol in chosen
        for number in protocol.numbers
        for reading in number.readings
    ]
    return list(dict.fromkeys(each for each in found if each is not None))


def ask_judges(
    answered: Answered, judges: Sequence[Judge], settings: ServiceSettings, reporter: Reporter
) -> list[Judged]:
    """Ask a language model about every answer that a protocol lets a judge read.

    Raises:
        ServiceError: no judge can be reached, or it gave no reply to some answers; what was paid is
            in the cache.
        DataError: text that seems to identify patients would leave this machine.
    """
    endpoint = allowed_endpoint(settings)
    cases = [case for case in answered.cases if case is not None]
    asked = [(judge, case, judge.message(case)) for judge in judges for case in cases]
    pairs = [(judge, case, text) for judge, case, text in asked if text is not None]
    refuse_identifying({case.question.id: text for _, case, text in pairs}, settings, endpoint)
    failed: list[str] = []

    async def work() -> list[Judged]:
        service = ChatService(settings, endpoint, cache)
        done = 0

        async def one(judge: Judge, case: Case, text: str) -> Judged:
            nonlocal done

            def accept(reply: str) -> None:
                if judge.verdict(reply, case) is None:
                    raise ReplyError("the reply says neither right nor wrong")

            message = {"role": "user", "content": text}
            reply, verdict = "", None
            try:
                reply = (await service.complete([message], accept=accept)).text
                verdict = judge.verdict(reply, case)
            except CompletionError as error:
                if error.kind != "invalid reply":
                    failed.append(f"{error.kind} ({error.detail})")
            done += 1
            cost = service.usage.cost
            reporter.advance(done, "cost unknown" if cost is None else f"${cost:.4f}")
            return Judged(judge.name, service.model, case.question.id, reply, verdict)

        tasks = [asyncio.create_task(one(*each)) for each in pairs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.close()

    reporter.start(f"judging by {settings.model}", len(pairs), 0, "answers")
    try:
        with closing(settings.open_cache()) as cache:
            found = asyncio.run(work())
    finally:
        reporter.finish()
    if failed:
        raise ServiceError(
            f"The judge gave no reply to {len(failed)} of {len(pairs)} answers: {failed[0]}.",
            "The same call asks for these again; the other replies are kept.",
        )
    return found


def verdicts_of(
    judges: Sequence[Judge], judged: Sequence[Judged]
) -> dict[str, dict[str, float | None]]:
    """Judge -> question -> verdict, as `Answered` takes them; also of a judge not asked once."""
    found: dict[str, dict[str, float | None]] = {each.name: {} for each in judges}
    for each in judged:
        found[each.judge][each.id] = each.verdict
    return found
