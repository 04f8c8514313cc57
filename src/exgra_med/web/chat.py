"""Conversations of visitors with one model or two about their pictures, held in memory."""

import json
import re
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
from exgra_med.errors import DataError, ExgraMedError
from exgra_med.llm.request import Sampling
from exgra_med.web.chat_models import ChatModel
from exgra_med.web.error_log import report_error
from exgra_med.web.isolated_pictures import PictureProcess
from exgra_med.web.limits import Limits, RateLimiter
from exgra_med.web.pictures import PictureStore

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

    @property
    def text(self) -> str:
        """What is shown, and what the model is told that it said: the answer without thoughts."""
        return answer_of(self.written) if has_thoughts(self.written) else self.written


@dataclass
class Exchange:
    """A question and the answers to it."""

    question: str
    answers: list[ModelAnswer]


@dataclass
class Dialogue:
    """The conversation of one visitor."""

    pictures: str | None = None
    """Their name in the `PictureStore`."""
    exchanges: list[Exchange] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

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
    """Checks, answers and logs the questions of all visitors to one or two models."""

    def __init__(
        self, models: Sequence[ChatModel], limits: Limits, log: ChatLog | None = None
    ) -> None:
        self.models, self.limits, self.log = list(models), limits, log
        self.pictures = PictureStore(limits.max_held_megabytes, limits.forget_after_minutes)
        self.decoder = PictureProcess(limits.max_pixels)
        self._rate = RateLimiter(limits.questions_per_minute)

    def check(
        self, dialogue: Dialogue, question: str, names: Sequence[str], sampling: Sampling
    ) -> list[ChatModel]:
        """The models that are asked.

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
        asked = [model for model in self.models if model.name in names]
        if not asked:
            raise DataError("No model is chosen.", "Choose one or both.")
        return asked

    def ask(
        self,
        dialogue: Dialogue,
        question: str,
        names: Sequence[str],
        sampling: Sampling,
        client: str,
    ) -> Iterator[None]:
        """Answer a question, one model after the other; yields whenever there is more to show.

        One after the other, so that they do not slow each other down and their times can be
        compared. Closing the iterator stops the answer, which stays as far as it was written.

        Raises:
            DataError: see `check`; the picture was forgotten; too many questions of this address.
        """
        asked = self.check(dialogue, question, names, sampling)
        wait = self._rate.wait_seconds(client)
        if wait:
            raise DataError(
                f"This address has asked {self.limits.questions_per_minute} questions within a "
                f"minute.",
                f"Try again in {wait:.0f} seconds.",
            )
        images = self.pictures.get(dialogue.pictures) if dialogue.pictures else []
        dialogue.stop.clear()
        exchange = Exchange(question.strip(), [ModelAnswer(model.name) for model in asked])
        dialogue.exchanges.append(exchange)
        try:
            for model, answer in zip(asked, exchange.answers, strict=True):
                yield from self._answer(dialogue, model, answer, images, exchange, sampling)
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
        exchange: Exchange,
        sampling: Sampling,
    ) -> Iterator[None]:
        turns = [*dialogue.turns_of(model.name), Turn(role="user", text=exchange.question)]
        begun, shown = time.perf_counter(), 0.0
        try:
            for piece in model.answer(images, turns, sampling):
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
