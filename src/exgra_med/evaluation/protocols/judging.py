"""Asks the judges of protocols about stored answers, in our own words or in those of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exgra_med.data.records import file_sha256
from exgra_med.errors import DataError, ScoreError, ServiceError
from exgra_med.evaluation.engines import allowed_endpoint, refuse_identifying
from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols import PROTOCOLS
from exgra_med.evaluation.protocols.protocol import Answered, Judge, Protocol, places_of
from exgra_med.llm.request import CompletionError, ReplyError
from exgra_med.llm.service import ChatService, ServiceSettings, ask_all
from exgra_med.reading import read_text
from exgra_med.terminal import Reporter

_PLACES = frozenset({"question", "reference", "answer", "options"})
"""What some judge is told; other words in braces are text."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of one answer."""

    judge: str
    model: str
    words: str
    """Whose it was asked in, as `Judge.words`."""
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


def in_words_of(judges: Sequence[Judge], files: Mapping[str, Path]) -> list[Judge]:
    """The same judges, those of some protocols with the request of a file.

    Args:
        judges: all that will be asked.
        files: protocol -> text file with the places that our own request to its judge has. Other
            braces are text.

    Raises:
        ScoreError: there is no such protocol, none of these judges is its, or two files are for
            one judge.
        DataError: a file cannot be read, lacks a place, or has one that its judge is not told.
    """
    asked = {each.name: each for each in judges}
    given: dict[str, Path] = {}
    for name, path in files.items():
        own = [each for each in judges_of([PROTOCOLS.find(name)]) if each.name in asked]
        if not own:
            raise ScoreError(
                f"The protocol {name!r} has no judge that is asked about these questions.",
                f"Judges that are asked: {', '.join(asked) or 'none'}.",
            )
        for judge in own:
            if given.setdefault(judge.name, path) != path:
                raise ScoreError(
                    f"The judge {judge.name!r} is to be asked in the words of {given[judge.name]} "
                    f"and of {path}.",
                    "Protocols that share a judge are asked once: give one file.",
                )
            asked[judge.name] = _in_words_of(path, judge)
    return list(asked.values())


def _in_words_of(path: Path, judge: Judge) -> Judge:
    text = read_text(path)
    wanted, there = set(judge.places), _PLACES.intersection(places_of(text))
    fault = ""
    if missing := sorted(wanted - there):
        fault = f"the place {{{missing[0]}}} is missing"
    elif unknown := sorted(there - wanted):
        fault = f"the judge is not told what belongs at {{{unknown[0]}}}"
    if fault:
        places = ", ".join(f"{{{name}}}" for name in judge.places)
        raise DataError(
            f"{path}: {fault}.", f"A request to the judge {judge.name!r} has the places {places}."
        )
    return replace(judge, request=text, words=file_sha256(path))


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

    async def ask(service: ChatService, pair: tuple[Judge, Case, str]) -> Judged:
        judge, case, text = pair

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
        return Judged(judge.name, service.model, judge.words, case.question.id, reply, verdict)

    title = f"judging by {settings.model}"
    found, _ = ask_all(pairs, ask, settings, endpoint, reporter, title, "answers")
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
