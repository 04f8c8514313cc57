"""Models the page talks to: in this process, or served behind an OpenAI-compatible address.

A model turns a conversation into pieces of an answer, and may know how likely an answer is; the
page knows nothing else of it.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from exgra_med.data.chat_template import answer_start, chat_template, images_by_turn
from exgra_med.data.records import Turn
from exgra_med.errors import DataError, ExgraMedError, ServiceError
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.identifiers import find_identifiers
from exgra_med.llm.request import ChatRequest, Sampling
from exgra_med.web.limits import Limits
from exgra_med.web.run_view import find_runs

if TYPE_CHECKING:
    from exgra_med.evaluation.occlusion import Scorer
    from exgra_med.model.bundle import Bundle


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A further piece of an answer."""

    text: str
    num_tokens: int | None
    """Tokens so far; None where the server does not report them."""
    ended: str | None
    """`stop` or `length` with the last piece."""


Kind = Literal["small", "toy", ""]
"""What is known of a model beside its name: it is the one that comes with the package, or it began
with random weights."""


class ChatModel(ABC):
    """One model of the page. It has to be loaded before it answers."""

    name: str
    kind: Kind
    host: str
    """Where questions and pictures go; empty for this machine."""
    is_loaded: bool = True

    def load(self) -> Any:
        """Take the memory that it needs to answer; a model at a server needs none.

        Raises:
            CheckpointError: its weights cannot be read.
        """
        return None

    def close(self) -> None:
        """Give the memory back; a later `load` takes it again."""
        return

    @abstractmethod
    def answer(
        self, images: Sequence[Image.Image], turns: Sequence[Turn], sampling: Sampling
    ) -> Iterator[TextChunk]:
        """Answer the last turn.

        Args:
            images: of the conversation, in order; none for a text-only one.
            turns: alternating, the last one a question.

        Raises:
            DataError: the conversation is too long for the model, or must not be sent away.
            ServiceError: a server does not answer.
        """

    def scorer(
        self, images: Sequence[Image.Image], turns: Sequence[Turn], answer: str
    ) -> "Scorer | None":
        """How likely its answer is with other pictures; None where that is not known of it."""
        return None


class LocalChatModel(ChatModel):
    """A model of this project in this process; `open_bundle` reads its weights."""

    host = ""

    def __init__(
        self,
        name: str,
        open_bundle: Callable[[], "Bundle"],
        template: str = "exgra",
        kind: Kind = "",
    ) -> None:
        self.name, self.template, self.kind = name, template, kind
        self._open_bundle = open_bundle
        self._bundle: Bundle | None = None
        self._lock = threading.Lock()

    @property
    def is_loaded(self) -> bool:  # pyrefly: ignore
        """See `ChatModel`."""
        return self._bundle is not None

    def load(self) -> "Bundle":
        """See `ChatModel`."""
        with self._lock:
            if self._bundle is None:
                self._bundle = self._open_bundle()
            return self._bundle

    def close(self) -> None:
        """See `ChatModel`. An answer that is being written ends first: it holds the weights."""
        self._bundle = None

    def answer(
        self, images: Sequence[Image.Image], turns: Sequence[Turn], sampling: Sampling
    ) -> Iterator[TextChunk]:
        """See `ChatModel`."""
        from exgra_med.model.generate import stream

        bundle = self.load()
        prompt = bundle.prompt(list(turns), len(images), template=self.template)
        longest, length = bundle.context_length, bundle.num_tokens(prompt, images)
        if length + sampling.max_tokens > longest:
            raise DataError(
                f"The conversation has {length} tokens; with an answer of "
                f"{sampling.max_tokens} it is longer than the {longest} that {self.name} can read.",
                "Clear the conversation, or ask for a shorter answer.",
            )
        for chunk in stream(bundle, prompt, images, sampling):
            yield TextChunk(chunk.text, chunk.num_tokens, chunk.finish_reason)

    def scorer(self, images: Sequence[Image.Image], turns: Sequence[Turn], answer: str) -> "Scorer":
        """See `ChatModel`."""
        from exgra_med.evaluation.occlusion import answer_scorer

        return answer_scorer(self.load(), images, turns, answer, self.template)


class ServedChatModel(ChatModel):
    """A model behind an address; whether text may be sent there was checked before."""

    kind: Kind = ""

    def __init__(self, model: str, endpoint: Endpoint, limits: Limits) -> None:
        self.name, self.endpoint, self.limits = model, endpoint, limits
        self.host = "" if endpoint.is_local else endpoint.host
        self._names: dict[str, str | None] = {}

    def answer(
        self, images: Sequence[Image.Image], turns: Sequence[Turn], sampling: Sampling
    ) -> Iterator[TextChunk]:
        """See `ChatModel`; the end marker of a served export is cut off.

        While the server is silent, pieces without a word come, so that the page can stop.
        """
        from exgra_med.llm.openai_transport import stream_reply

        kinds = find_identifiers("\n".join(turn.text for turn in turns)) if self.host else []
        if kinds:
            raise DataError(
                f"The conversation seems to identify a patient ({', '.join(kinds)}); it was not "
                f"sent to {self.host}.",
                "Leave that out and ask again.",
            )
        request = ChatRequest(self.name, messages(images, turns), sampling)
        text = shown = ""
        ended = None
        seconds = self.limits.max_seconds_per_answer
        chunks = stream_reply(self.endpoint, request, seconds, self._names)
        try:
            for words, reason in _in_growing_steps(chunks):
                text += words
                ended = ended or reason
                # A thought may have headings; only behind it is the marker the end.
                start = answer_start(text)
                whole = "###" in text[start:]
                text = text[:start] + text[start:].split("###")[0]
                text = text[: self.limits.max_answer_characters]
                safe = text.rstrip("#").rstrip()
                if len(safe) > len(shown):
                    yield TextChunk(safe[len(shown) :], None, None)
                    shown = safe
                elif not words:
                    yield TextChunk("", None, None)
                if whole or len(text) == self.limits.max_answer_characters:
                    ended = "stop" if whole else "length"
                    break
        finally:
            chunks.close()
        yield TextChunk("", None, "length" if ended == "length" else "stop")


def _in_growing_steps(chunks: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    """Pieces of a reply, put together the more the longer it is; at its end nothing is held back.

    Each piece makes the page read the whole reply anew. Thousands of pieces of one character would
    take longer than the model.
    """
    length, held = 0, ""
    try:
        for words, reason in chunks:
            held += words
            if words and not reason and len(held) < length // 50:
                continue
            yield held, reason
            length, held = length + len(held), ""
    except ServiceError:
        if held:
            yield held, None
        raise
    if held:
        yield held, None


def messages(images: Sequence[Image.Image], turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """A conversation as an OpenAI-compatible request has it.

    Pictures stand where the questions place them, or else before the first one.

    Raises:
        DataError: the placeholders do not fit the pictures.
    """
    from exgra_med.evaluation.engines import message_parts

    left = iter(images)
    made: list[dict[str, Any]] = []
    for turn, count in zip(turns, images_by_turn(turns, len(images)), strict=True):
        own = list(islice(left, count))
        content = message_parts(turn.text, own) if own else turn.text
        made.append({"role": turn.role, "content": content})
    return made


def open_chat_model(
    source: str,
    device: str,
    template: str | None,
    allow_remote: bool,
    limits: Limits,
    name: str | None = None,
) -> ChatModel:
    """A model by its name on the command line; its weights are not loaded yet.

    Args:
        source: a checkpoint folder, a run folder (its last checkpoint), a hub name, or
            `NAME@http://HOST/v1` for a model at a server.
        template: chat template of a local model, where it is not the model's own.
        allow_remote: questions and pictures may leave this machine.
        name: how the page calls it, where not by `display_name`.

    Raises:
        CheckpointError, RunError: there is no such local model.
        DataError: there is no such template.
        ServiceError: a server is elsewhere and that was not allowed, or its address is malformed.
    """
    served, at, address = source.partition("@http")
    if at:
        from exgra_med.llm.endpoint import environment_with_file, find_endpoint, require_allowed

        address = f"http{address}"
        if not served:
            raise ServiceError(
                f"No model is named at {address}.", "Write NAME@http://HOST:PORT/v1."
            )
        endpoint = find_endpoint(address, environment_with_file(os.environ, Path.cwd()))
        require_allowed(endpoint, allow_remote)
        return ServedChatModel(served, endpoint, limits)
    import torch

    from exgra_med.model.bundle import load_bundle, local_folder
    from exgra_med.model.small_model import is_small
    from exgra_med.recipe.run_folder import is_run_folder, is_toy, last_checkpoint_of, own_template

    if template is not None:
        chat_template(template)
    named = last_checkpoint_of(source) if is_run_folder(source) else source
    folder = local_folder(named)
    # Half precision is slow or missing on CPUs, and what an accelerator is for.
    dtype = torch.float32 if device == "cpu" else "auto"
    kind: Kind = "small" if is_small(folder) else "toy" if is_toy(folder) else ""
    return LocalChatModel(
        name or display_name(named),
        lambda: load_bundle(folder, dtype, device),
        template or own_template(folder),
        kind,
    )


def is_looked_at(source: str) -> bool:
    """Whether a name on the command line is no model, but runs to look at: a folder of them, or one
    that has no finished checkpoint yet."""
    from exgra_med.recipe.run_folder import is_run_folder

    folder = Path(source)
    if "@http" in source or not folder.is_dir() or (folder / "config.json").is_file():
        return False
    if is_run_folder(folder):
        return _finished_checkpoint(folder) is None
    return bool(find_runs([folder]))


def _finished_checkpoint(run: Path) -> Path | None:
    """The last checkpoint of a run that lies in it, or None."""
    from exgra_med.recipe.run_folder import last_checkpoint_of

    # Cheap, and enough for most runs of a study, which keep no weights.
    if not any((run / "checkpoints").glob("*/final")):
        return None
    try:
        found = last_checkpoint_of(run)
    except ExgraMedError:
        return None
    return found if found.is_dir() else None


class RunModels:
    """Finished runs under some folders, as models; a run that ends later is found then.

    `open_model` is given the source and the name of each.
    """

    def __init__(
        self, folders: Sequence[Path], open_model: Callable[[str, str], ChatModel]
    ) -> None:
        self._folders, self._open_model = list(folders), open_model
        self._known: dict[Path, ChatModel] = {}

    def __call__(self) -> list[ChatModel]:
        """All that are there now, those that were there before as the same objects."""
        known: dict[Path, ChatModel] = {}
        for place in find_runs(self._folders).values():
            checkpoint = _finished_checkpoint(place.path) if place.kind == "run" else None
            if checkpoint is None:
                continue
            model = self._known.get(checkpoint)
            try:
                known[checkpoint] = model or self._open_model(str(checkpoint), place.name)
            except ExgraMedError:
                continue  # which `exgra-med doctor` and `checkpoint verify` explain
        self._known = known
        return list(known.values())


def display_name(folder: str | Path) -> str:
    """A short name for a checkpoint, without its path on this machine."""
    left_out = ("checkpoints", "final", "/")
    parts = [part for part in Path(folder).resolve().parts if part not in left_out]
    inside_run = "checkpoints" in Path(folder).parts
    if not Path(folder).exists():
        return str(folder)
    return " · ".join(parts[-2:] if inside_run else parts[-1:])


def number_equal_names(models: Sequence[ChatModel]) -> None:
    """Append a number to models of the same name."""
    for number, model in enumerate(models):
        if any(model.name == other.name for other in models[:number]):
            model.name = f"{model.name} ({number + 1})"
