"""Conversations of visitors with one model or two about their pictures, held in memory."""

import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from exgra_med import files
from exgra_med.data.chat_template import answer_of, has_thoughts
from exgra_med.data.records import Turn
from exgra_med.errors import DataError, ExgraMedError, ServiceError
from exgra_med.evaluation.occlusion import Progress, occlude
from exgra_med.llm.request import Sampling
from exgra_med.web.chat_models import ChatModel, number_equal_names
from exgra_med.web.error_log import report_error
from exgra_med.web.isolated_pictures import PictureProcess
from exgra_med.web.limits import Limits, RateLimiter
from exgra_med.web.pictures import PictureStore
from exgra_med.web.votes import Vote, VoteBook

_LOG_NAME = re.compile(r"chat-(\d{4}-\d{2}-\d{2})\.jsonl")
_SECONDS_BETWEEN_UPDATES = 0.05
"""Nobody can read more often, and every update is sent over the network."""


@dataclass
class ModelAnswer:
    """One model's answer to one question."""

    model: str
    written: str = ""
    """What the model wrote so far, thoughts included."""
    first_seconds: float | None = None
    seconds: float = 0.0
    num_tokens: int | None = None
    ended: str = ""
    """Empty while it is written; then `stop`, `length`, `stopped`, `time` or `failed`."""
    problem: str = ""
    is_loading: bool = False
    """Whether the model's weights are being read first."""
    turns: list[Turn] = field(default_factory=list)
    """What the model was asked; the last turn is the question."""

    @property
    def text(self) -> str:
        """What is shown, and what the model is told that it said: the answer without thoughts."""
        return answer_of(self.written) if has_thoughts(self.written) else self.written


@dataclass
class Exchange:
    """A question and the answers to it."""

    question: str
    answers: list[ModelAnswer]
    blind: bool = False
    """Whether the models have no names until there was a vote."""
    vote: Vote | None = None

    @property
    def can_be_voted_on(self) -> bool:
        """Whether there are two whole answers, and no vote yet."""
        if len(self.answers) != 2 or self.vote is not None:
            return False
        return all(each.ended in ("stop", "length", "time") for each in self.answers)


@dataclass
class Looked:
    """Where a model looked for its answer, as far as that is known."""

    answer: ModelAnswer
    progress: Progress | None = None
    problem: str = ""


@dataclass
class Dialogue:
    """The conversation of one visitor."""

    pictures: str | None = None
    """Their name in the `PictureStore`."""
    exchanges: list[Exchange] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def hides(self, exchange: Exchange) -> bool:
        """Whether an exchange does not say yet which model is which: while it is answered, and
        until it is voted on or another question is asked."""
        if not exchange.blind or exchange is not self.exchanges[-1]:
            return False
        return exchange.can_be_voted_on or not all(each.ended for each in exchange.answers)

    def turns_of(self, model: str) -> list[Turn]:
        """The conversation as one model saw it; questions it did not answer are left out."""
        turns = []
        for exchange in self.exchanges:
            for answer in exchange.answers:
                if answer.model == model and answer.ended and not answer.problem:
                    turns.append(Turn(role="user", text=exchange.question))
                    # A turn has a text; an empty answer must not end the conversation.
                    turns.append(Turn(role="assistant", text=answer.text or "-"))
        return turns


class ChatLog:
    """Questions and answers on disk, for an operator who wants them; pictures are not kept.

    One file a day, `chat-2026-01-31.jsonl`, readable by its owner alone; those of more than `days`
    ago are deleted.

    Raises:
        WriteError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        days: int,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.folder, self.days = folder, days
        self._today = today
        self._lock = threading.Lock()
        with files.disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._delete_old()

    def write(self, **exchange: Any) -> None:
        """Append one JSON line.

        Raises:
            WriteError: the disk is full, or the folder is gone.
        """
        with self._lock:
            path = self.folder / f"chat-{self._today().isoformat()}.jsonl"
            if not path.exists():
                self._delete_old()
                with files.disk_errors(path):
                    path.touch(mode=0o600)
            with files.disk_errors(path), path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(exchange, ensure_ascii=False) + "\n")

    def _delete_old(self) -> None:
        first = self._today() - timedelta(days=self.days)
        for path in self.folder.iterdir():
            found = _LOG_NAME.fullmatch(path.name)
            if found and date.fromisoformat(found[1]) < first:
                path.unlink()


class ChatService:
    """Checks, answers and logs the questions of all visitors to one or two models of a menu.

    Args:
        models: always on the menu.
        log: where questions and answers are written down.
        found: further models, looked for again by `refresh`.
        votes: which answers were better.
    """

    def __init__(
        self,
        models: Sequence[ChatModel],
        limits: Limits,
        log: ChatLog | None = None,
        found: Callable[[], Sequence[ChatModel]] = tuple,
        votes: VoteBook | None = None,
    ) -> None:
        self.limits, self.log, self.votes = limits, log, votes or VoteBook()
        self.pictures = PictureStore(limits.max_held_megabytes, limits.forget_after_minutes)
        self.decoder = PictureProcess(limits.max_pixels)
        self._rate = RateLimiter(limits.questions_per_minute)
        self._given, self._found = list(models), found
        self._random = random.SystemRandom()
        self.refresh()

    def refresh(self) -> None:
        """Look again which models there are; they have different names afterwards."""
        self.models = [*self._given, *self._found()]
        number_equal_names(self.models)

    @property
    def asked_first(self) -> list[ChatModel]:
        """The models a page begins with: both where exactly two were named, else the first."""
        return self.models[: 2 if len(self.models) == 2 == len(self._given) else 1]

    def check(
        self, dialogue: Dialogue, question: str, names: Sequence[str], sampling: Sampling
    ) -> list[ChatModel]:
        """The models that are asked, in the order of the names.

        Raises:
            DataError: no question or model, one that is too long, or settings out of range.
        """
        limits = self.limits
        if not question.strip():
            raise DataError("There is no question.", "Write one and send it.")
        if len(question) > limits.max_prompt_characters:
            raise DataError(
                f"The question has {len(question)} characters, more than "
                f"{limits.max_prompt_characters}."
            )
        if len(dialogue.exchanges) >= limits.max_turns:
            raise DataError(
                f"The conversation has {limits.max_turns} questions.", "Clear it to go on."
            )
        if not 1 <= sampling.max_tokens <= limits.max_new_tokens:
            raise DataError(f"An answer has 1 to {limits.max_new_tokens} tokens.")
        temperature, top_p = sampling.temperature or 0.0, sampling.top_p or 1.0
        if not (0 <= temperature <= 2 and 0 < top_p <= 1 and 0 <= (sampling.seed or 0) < 2**31):
            raise DataError("Temperature is 0 to 2, top-p above 0 to 1, the seed 0 to 2147483647.")
        known = {model.name: model for model in self.models}
        asked = [known[name] for name in dict.fromkeys(names) if name in known]
        if not known:
            raise DataError("There is no model here yet.", "A run answers once it has finished.")
        if not asked:
            raise DataError("No model is chosen.", "Choose one.")
        return asked

    def ask(
        self,
        dialogue: Dialogue,
        question: str,
        names: Sequence[str],
        sampling: Sampling,
        client: str,
        *,
        remember: bool = False,
        blind: bool = False,
    ) -> Iterator[None]:
        """Answer a question, one model after the other; yields whenever there is more to show.

        With `remember` each model hears the conversation so far, else the question alone. With
        `blind` two models answer in an order drawn at random.

        One after the other, so that they do not slow each other down and their times can be
        compared. Closing the iterator stops the answer, which stays as far as it was written.

        Raises:
            DataError: see `check`; the picture was forgotten; too many questions of this address.
        """
        asked = self.check(dialogue, question, names, sampling)
        blind = blind and len(asked) == 2
        if blind:
            self._random.shuffle(asked)
        self._count(client)
        images = self.pictures.get(dialogue.pictures) if dialogue.pictures else []
        dialogue.stop.clear()
        self._close_others(asked)
        exchange = Exchange(question.strip(), [ModelAnswer(model.name) for model in asked], blind)
        for answer in exchange.answers:
            before = dialogue.turns_of(answer.model) if remember else []
            answer.turns = [*before, Turn(role="user", text=exchange.question)]
        dialogue.exchanges.append(exchange)
        try:
            for model, answer in zip(asked, exchange.answers, strict=True):
                yield from self._answer(dialogue, model, answer, images, sampling)
        finally:
            for answer in exchange.answers:
                answer.ended = answer.ended or "stopped"
            if self.log is not None:
                answers = [
                    {"model": answer.model, "text": answer.text, "ended": answer.ended}
                    | ({"written": answer.written} if has_thoughts(answer.written) else {})
                    for answer in exchange.answers
                ]
                self.log.write(question=exchange.question, answers=answers)

    def _answer(
        self,
        dialogue: Dialogue,
        model: ChatModel,
        answer: ModelAnswer,
        images: list[Image.Image],
        sampling: Sampling,
    ) -> Iterator[None]:
        try:
            if not model.is_loaded:
                answer.is_loading = True
                yield
                _load(model)
                answer.is_loading = False
            begun, shown = time.perf_counter(), 0.0
            for piece in model.answer(images, answer.turns, sampling):
                if dialogue.stop.is_set():
                    answer.ended = "stopped"
                    break
                answer.written += piece.text
                answer.num_tokens, answer.ended = piece.num_tokens, piece.ended or ""
                answer.seconds = time.perf_counter() - begun
                if piece.text and answer.first_seconds is None:
                    answer.first_seconds = answer.seconds
                if answer.seconds > self.limits.max_seconds_per_answer:
                    answer.ended = answer.ended or "time"
                if answer.ended:
                    break
                if time.monotonic() - shown > _SECONDS_BETWEEN_UPDATES:
                    yield
                    shown = time.monotonic()
        except ExgraMedError as error:
            answer.ended, answer.problem = "failed", str(error)
        # Whatever fails inside a model must not end the page, and its text may quote a question.
        except Exception as error:
            answer.ended, answer.problem = "failed", f"The model failed ({type(error).__name__})."
            report_error(error)
        yield

    def _count(self, client: str) -> None:
        """Count a question of an address.

        Raises:
            DataError: it has asked too many.
        """
        wait = self._rate.wait_seconds(client)
        if wait:
            raise DataError(
                f"This address has asked {self.limits.questions_per_minute} questions within a "
                f"minute.",
                f"Try again in {wait:.0f} seconds.",
            )

    def _close_others(self, asked: Sequence[ChatModel]) -> None:
        """Only models that are asked stay in memory."""
        for model in self.models:
            if model not in asked:
                model.close()

    def vote(self, dialogue: Dialogue, better: int | None) -> None:
        """Keep which answer of the last exchange was better.

        Args:
            better: 0 or 1 for the first or second answer, None where both are as good.

        Raises:
            DataError: there is nothing to vote on.
            WriteError: the file of votes cannot be written.
        """
        exchange = dialogue.exchanges[-1] if dialogue.exchanges else None
        if exchange is None or not exchange.can_be_voted_on:
            raise DataError("There are no two answers to vote on.", "Ask two models.")
        first, second = (answer.model for answer in exchange.answers)
        name = None if better is None else (first, second)[better]
        vote = Vote((first, second), name, exchange.blind)
        self.votes.add(vote)
        exchange.vote = vote

    def look(self, dialogue: Dialogue, client: str) -> Iterator[list[Looked]]:
        """Where the models looked for their last answers; yields whenever there is more to show.

        Raises:
            DataError: there is no answer, not one picture, the names are still hidden, or too many
                questions of this address.
        """
        exchange = dialogue.exchanges[-1] if dialogue.exchanges else None
        answers = exchange.answers if exchange else []
        if exchange is None or not all(each.ended for each in answers):
            raise DataError("There is no answer yet.", "Ask a question about a picture first.")
        if dialogue.hides(exchange):
            raise DataError("The names are still hidden.", "Vote first.")
        images = self.pictures.get(dialogue.pictures) if dialogue.pictures else []
        if len(images) != 1:
            raise DataError("A map is made for a conversation about one picture.")
        self._count(client)
        dialogue.stop.clear()
        known = {model.name: model for model in self.models}
        self._close_others([known[each.model] for each in answers if each.model in known])
        looked = [Looked(answer) for answer in answers]
        yield looked
        for each in looked:
            try:
                for progress in self._occlude(known.get(each.answer.model), each.answer, images):
                    if dialogue.stop.is_set():
                        break
                    each.progress = progress
                    yield looked
            except ExgraMedError as error:
                each.problem = str(error)
            # As in an answer: its text may quote the question.
            except Exception as error:
                each.problem = f"The model failed ({type(error).__name__})."
                report_error(error)
            yield looked

    def _occlude(
        self, model: ChatModel | None, answer: ModelAnswer, images: list[Image.Image]
    ) -> Iterator[Progress]:
        if model is None:
            raise DataError(f"{answer.model} is no longer here.")
        if not answer.written:
            raise DataError(
                f"{answer.model} gave no answer that a part of the picture could change."
            )
        _load(model)
        score = model.scorer(images, answer.turns, answer.written)
        if score is None:
            raise DataError("A model at a server does not say how likely an answer is.")
        begun = time.perf_counter()
        for progress in occlude(images[0], score):
            yield progress
            if time.perf_counter() - begun > self.limits.max_seconds_per_answer:
                return


def _load(model: ChatModel) -> None:
    """Load a model; why it cannot be loaded names a folder of this machine, so that is printed.

    Raises:
        ServiceError: it cannot be loaded.
    """
    try:
        model.load()
    except ExgraMedError as error:
        print(f"exgra-med web: {model.name}: {error}", file=sys.stderr)
        raise ServiceError(
            f"{model.name} cannot be loaded.", "The terminal of this page says why."
        ) from error
