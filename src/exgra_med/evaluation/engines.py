"""Engines answer: a checkpoint in this process, an OpenAI-compatible service, vLLM, or another's.

An engine is opened from `EngineOptions` and answers batches of records; `answer_all` brings its
answers to disk, resumable to the single answer. An engine of another package is an entry point of
the group `exgra_med.engines` that names a function from `EngineOptions` to an `Engine`.
"""

import asyncio
import base64
import io
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from exgra_med.data.chat_template import question_pieces, question_text
from exgra_med.data.images import ImageFolder
from exgra_med.data.on_demand import Picked
from exgra_med.data.records import Met, Record, file_sha256
from exgra_med.digests import read_document, write_document
from exgra_med.errors import DataError, RunError, ServiceError
from exgra_med.evaluation.answers import (
    Prediction,
    PredictionWriter,
    answered_ids,
    read_predictions,
)
from exgra_med.files import disk_errors
from exgra_med.llm.endpoint import Endpoint, require_allowed
from exgra_med.llm.identifiers import find_identifiers
from exgra_med.llm.request import CompletionError, Message, StoppedError
from exgra_med.llm.service import ChatService, ServiceSettings
from exgra_med.plugins import Registry
from exgra_med.recipe.run_folder import check_checkpoint
from exgra_med.terminal import waiting_for

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle

CHECKPOINT = "checkpoint"
ENGINES = Registry(
    "engine",
    "exgra_med.engines",
    {
        CHECKPOINT: "exgra_med.evaluation.engines:CheckpointEngine",
        "openai": "exgra_med.evaluation.engines:ServiceEngine",
        "vllm": "exgra_med.evaluation.engines:ServiceEngine",
    },
    RunError,
)
"""Name on the command line -> what opens the engine."""

_MOST_IDS = 5
_ADAPTED = "adapted"
_ASK_AGAIN = "Copy it again from where it is whole, or remove it and the answers to evaluate again."
"""Of the facts about answers the one that is found out while they are made."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine is opened with."""

    model: str
    """A checkpoint folder, or the name of a model as the engine knows it."""
    template: str = "exgra"
    """Chat template of a checkpoint; a service has its own."""
    max_length: int = 2048
    """Longest conversation in tokens, of a checkpoint."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    batch_size: int = 32
    """Questions answered at once by a checkpoint."""
    precision: str = "float32"
    """Type of the weights of a checkpoint on a CPU."""
    service: ServiceSettings | None = None
    """Address, limits and permissions, of an engine that asks a service."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says about one question."""

    text: str
    """The answer, without an end marker."""
    num_tokens: int | None = None
    """New tokens it took."""
    finish_reason: str | None = None
    """`stop`, or `length` where the token limit ended it."""


class Engine(Protocol):
    """Who answers. Making one is cheap: a model is loaded when the first question comes."""

    batch_size: int
    """Records of one call of `answer`."""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides its answers, JSON-ready: model, weights, decoding. Answers made under other
        facts are never mixed into one file."""

    def begin(self, records: Sequence[Record]) -> None:
        """See all that will be asked before anything of it is, and refuse what may not be."""

    def answer(self, records: Sequence[Record], images: ImageFolder) -> Sequence[Answer | None]:
        """One answer a record, by its first question, options and images.

        Returns:
            None in the place of an answer that cannot be had, which is asked again another time.
        """

    def end(self) -> str:
        """Let go of connections; says why questions stayed without an answer, or nothing."""


@runtime_checkable
class ScoresOptions(Protocol):
    """An engine that also tells how likely each option is as the answer."""

    def option_scores(self, record: Record, images: ImageFolder) -> list[float]:
        """Mean log-likelihood a token (natural logarithm) of each of `meta["options"]`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device and the type of weights on it, by their names in torch."""

    device: str
    dtype: str


def best_place(cpu_precision: str = "float32") -> Place:
    """An accelerator in bfloat16 where there is one; under `accelerate launch` one a process."""
    import torch

    if not torch.accelerator.is_available():
        return Place("cpu", cpu_precision)
    device = torch.accelerator.current_accelerator()
    if launched_processes().count > 1:
        from accelerate import PartialState

        device = PartialState().device
    return Place(str(device), "bfloat16")


class CheckpointEngine:
    """A checkpoint of this project (its folder is `options.model`), which answers greedily."""

    def __init__(self, options: EngineOptions) -> None:
        self.options, self.batch_size = options, options.batch_size
        self._place = best_place(options.precision)

    @cached_property
    def bundle(self) -> "Bundle":
        """Model and processor, loaded at the first use.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        import torch

        from exgra_med.model.bundle import load_bundle

        dtype = getattr(torch, self._place.dtype)
        return load_bundle(Path(self.options.model), dtype, self._place.device)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """See `Engine`: hashes and type of the weights, template and decoding. Only this project's
        own model has a template that can be chosen."""
        from exgra_med.model.bundle import CONFIG, is_native

        folder = Path(self.options.model)
        with waiting_for("Hashing the weights"):
            # Before its hash makes it another checkpoint than the one that gave the stored answers.
            check_checkpoint(folder)
            native = not (folder / CONFIG).is_file() or is_native(folder)
            files = sorted(folder.glob("model*.safetensors"))
            hashes = {path.name: file_sha256(path) for path in files}
        return {
            "name": CHECKPOINT,
            "checkpoint": hashes,
            "dtype": self._place.dtype,
            "template": self.options.template if native else None,
            "decoding": "greedy",
            "max_new_tokens": self.options.max_new_tokens,
        }

    def begin(self, records: Sequence[Record]) -> None:
        """See `Engine`; nothing leaves this process.

        Raises:
            DataError: the images of a record alone are longer than what the model can read.
        """
        from exgra_med.model.bundle import is_native, local_folder, read_config

        most = max(records, key=lambda record: len(record.question_images), default=None)
        if most is None or len(most.question_images) < 2:
            return
        folder = local_folder(self.options.model)
        if not is_native(folder):
            return  # How many tokens an image has is known when the processor sees it.
        config = read_config(folder)
        needed = len(most.question_images) * config.image_seq_length
        longest = config.text_config.max_position_embeddings
        if needed >= longest:
            raise DataError(
                f"Record {most.id!r} has {len(most.question_images)} images, which are {needed} "
                f"tokens, and {self.options.model} reads {longest} in all.",
                "Leave the record out, or give it fewer images.",
            )

    def answer(self, records: Sequence[Record], images: ImageFolder) -> Sequence[Answer | None]:
        """See `Engine`."""
        template, tokens = self.options.template, self.options.max_new_tokens
        return greedy_answers(self.bundle, records, images, template, tokens)

    def option_scores(self, record: Record, images: ImageFolder) -> list[float]:
        """See `ScoresOptions`."""
        from exgra_med.evaluation.likelihood import option_scores

        options = self.options
        return option_scores(self.bundle, record, images, options.template, options.max_length)

    def end(self) -> str:
        """See `Engine`."""
        return ""


def greedy_answers(
    bundle: "Bundle",
    records: Sequence[Record],
    images: ImageFolder,
    template: str,
    max_new_tokens: int,
) -> Sequence[Answer]:
    """Answers of a model, loaded and in evaluation mode, to a batch of records.

    An image that several records share is opened once.

    Raises:
        DataError: an image cannot be read, or a question is too long for the model.
    """
    from exgra_med.model.generate import generate

    prompts = [
        bundle.prompt(
            record.turns[:1], len(record.question_images), record.meta.get("options"), template
        )
        for record in records
    ]
    opened: dict[str, Image.Image] = {}
    for record in records:
        for name in record.question_images:
            if name not in opened:
                opened[name] = images.open(name, record.id)
    pictures = [[opened[name] for name in record.question_images] for record in records]
    for record, prompt, own in zip(records, prompts, pictures, strict=True):
        try:
            length = bundle.num_tokens(prompt, own)
        except DataError as error:
            raise DataError(f"Record {record.id!r}: {error.message}", error.hint) from error
        if length >= bundle.context_length:
            raise DataError(
                f"Record {record.id!r}: question and images have {length} tokens, and the "
                f"model reads {bundle.context_length} in all.",
                "Leave the record out, or shorten it.",
            )
    return [
        Answer(each.text, each.num_tokens, each.finish_reason)
        for each in generate(bundle, prompts, pictures, max_new_tokens)
    ]


class ServiceEngine:
    """Asks a service, many questions at once; it keeps its connections until `end`.

    Raises:
        ServiceError: no service, no address, or a remote one without permission.
    """

    def __init__(self, options: EngineOptions) -> None:
        if options.service is None:
            raise ServiceError(
                "Nothing says how the service is asked.",
                "Give --base-url http://localhost:8000/v1.",
            )
        self.settings = options.service
        self.batch_size = self.settings.concurrency
        self.endpoint = None if self.settings.engine == "vllm" else allowed_endpoint(self.settings)
        self._num_answered = self._num_failed = 0
        self._last_failure: CompletionError | None = None
        self._stopped: StoppedError | None = None
        self.adapted: dict[str, str | None] = {}
        """Parameters that the service does not take as they were asked for; see `Names`."""
        self._runner: asyncio.Runner | None = None
        self._service: Any = None

    @property
    def facts(self) -> dict[str, Any]:
        """See `Engine`: the model, its host and the sampling; the service writes the prompt."""
        return {
            "name": "vllm" if self.endpoint is None else "openai",
            "model": self.settings.served_name(self.endpoint),
            "host": None if self.endpoint is None else self.endpoint.host,
            "template": None,
            "decoding": self.settings.sampling.given(),
        }

    def begin(self, records: Sequence[Record]) -> None:
        """See `Engine`.

        Raises:
            DataError: text that seems to identify patients would leave this machine.
        """
        texts = {record.id: record.question for record in records}
        refuse_identifying(texts, self.settings, self.endpoint)

    def answer(self, records: Sequence[Record], images: ImageFolder) -> Sequence[Answer | None]:
        """See `Engine`. Images are sent as PNG, without anything else of their files.

        Raises:
            StoppedError: no answer can be had any more; those before it were returned.
            DataError: an image cannot be read.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._service = self._runner.run(self._open())
        if self._stopped is not None:
            raise self._stopped
        try:
            return self._runner.run(self._ask_all(records, images))
        finally:
            self.adapted |= self._service.usage.adapted

    def end(self) -> str:
        """See `Engine`.

        Raises:
            ServiceError: not one question was answered, or no further one can be.
        """
        if self._runner is not None:
            self._runner.run(self._service.close())
            self._runner.close()
            self._runner = None
        if self._stopped is not None:
            raise self._stopped
        failure = self._last_failure
        if failure is None:
            return ""
        if not self._num_answered:
            raise ServiceError(
                f"The service answered no question: {failure.message}",
                failure.hint or "The same call asks again.",
            )
        return (
            f"{self._num_failed} questions have no answer; the last failure: {failure.message} "
            "The same call asks them again."
        )

    async def _open(self) -> Any:
        return ChatService(self.settings, self.endpoint)

    async def _ask_all(self, records: Sequence[Record], images: ImageFolder) -> list[Answer | None]:
        tasks = [asyncio.create_task(self._ask(record, images)) for record in records]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, record: Record, images: ImageFolder) -> Answer | None:
        try:
            reply = await self._service.complete(question_messages(record, images), keep_cut=True)
        except CompletionError as error:
            self._num_failed, self._last_failure = self._num_failed + 1, error
            return None
        except StoppedError as error:
            # What others of this batch were answered is paid, and is written first.
            self._stopped = error
            return None
        self._num_answered += 1
        # A served export of this project ends a turn inside its marker `###`; a heading stays.
        text = reply.text.strip().rstrip("#").rstrip()
        return Answer(text, reply.completion_tokens, reply.finish_reason)


def allowed_endpoint(settings: ServiceSettings) -> Endpoint:
    """The service, which text and images of the data may be sent to.

    Raises:
        ServiceError: no address, or a remote one without permission.
    """
    endpoint = settings.endpoint()
    if endpoint is None:
        raise ServiceError("Answers come from a server.", "vLLM serves one: `vllm serve MODEL`.")
    require_allowed(endpoint, settings.allow_remote)
    return endpoint


def question_messages(record: Record, images: ImageFolder) -> list[Message]:
    """The question with its options and images as one message of a user."""
    shown = [images.open(name, record.id) for name in record.question_images]
    return [{"role": "user", "content": message_parts(shown_question(record), shown)}]


def message_parts(question: str, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """The parts of a user's message in the format of OpenAI.

    Images stand in the places of the question's placeholders, or else all before it.
    """
    urls = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    head, *rest = question_pieces(question)
    if not rest:
        return [*urls, {"type": "text", "text": head}]
    parts: list[dict[str, Any]] = [{"type": "text", "text": head}] if head else []
    for url, piece in zip(urls, rest, strict=True):
        parts.append(url)
        if piece.strip():
            # Exports of this project move images that come first behind the text, but for this.
            begins = not any(part["type"] == "text" for part in parts)
            text = f"\n{piece.lstrip()}" if begins else piece
            parts.append({"type": "text", "text": text})
    return parts


def data_url(image: Image.Image) -> str:
    """The pixels of an image, and nothing else of its file, as a PNG data URL."""
    stream = io.BytesIO()
    Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def refuse_identifying(
    texts: dict[str, str], settings: ServiceSettings, endpoint: Endpoint | None
) -> None:
    """Refuse texts, by record id, that seem to name patients, where they would leave this machine.

    A service on this machine, or none, may read anything; `settings.force` allows it.

    Raises:
        DataError: identifiers were found; the message has kinds and ids, never the words.
    """
    if settings.force or endpoint is None or endpoint.is_local:
        return
    found = {name: kinds for name, text in texts.items() if (kinds := find_identifiers(text))}
    if found:
        kinds = sorted({kind for each in found.values() for kind in each})
        raise DataError(
            f"The text of {len(found)} records seems to identify patients ({', '.join(kinds)}); "
            f"first records: {', '.join(map(repr, list(found)[:_MOST_IDS]))}.",
            "Remove what identifies, or give --force if you have looked and may send it.",
        )


# Answers on disk. Several processes may answer one file: each writes a part, the first one joins
# the parts. Started by `accelerate launch`, every process takes every n-th open question. A part
# that a killed process left is joined before anything else, so no answer is lost, whatever the
# number of processes.

Progress = Callable[[int, int], None]
"""Called with (done, all)."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of one launch."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one looks after the common file."""
        return self.index == 0

    def part(self, out: Path) -> Path:
        """The file this process writes: the common one where it is alone."""
        return out if self.count == 1 else out.with_name(f"{out.stem}.part-{self.index}.jsonl")

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            _state().wait_for_everyone()


def launched_processes() -> Processes:
    """The processes of `accelerate launch` or `torchrun`; one where there was no launch."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    state = _state()
    return Processes(state.process_index, state.num_processes)


def join_parts(out: Path) -> int:
    """Append to `out` what parts hold and it does not, remove the parts, and count what was new."""
    added = 0
    # Only the parts' own names: "vqa.part-0.jsonl" belongs to "vqa.jsonl" alone.
    for part in sorted(out.parent.glob(f"{out.stem}.part-*.jsonl")):
        with PredictionWriter(out) as writer:
            parts = read_predictions(part).predictions
            new = [each for each in parts if each.id not in writer.done]
            if new:
                writer.append(new)
        added += len(new)
        part.unlink()
    return added


def answer_all(
    engine: Engine,
    records: Sequence[Record],
    images: ImageFolder,
    out: Path,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> str:
    """Answer every record that has no answer on disk yet; see `predict_all`.

    `about`: what decides the answers beside the engine, such as the data.

    Returns:
        Why questions stayed without an answer; empty where none did.
    """

    def predictions(batch: Sequence[Record]) -> list[Prediction]:
        return [
            Prediction(
                id=record.id,
                text=each.text,
                finish_reason=each.finish_reason,
                prompt=shown_question(record),
                num_tokens=each.num_tokens,
            )
            for record, each in zip(batch, engine.answer(batch, images), strict=True)
            if each is not None
        ]

    engine.begin(records)
    try:
        predict_all(predictions, records, out, engine.batch_size, engine.facts | about, progress)
    except BaseException:
        # What stopped it says more than what the engine complains of at its end.
        with suppress(Exception):
            engine.end()
        raise
    finally:
        if isinstance(engine, ServiceEngine) and engine.adapted and launched_processes().is_first:
            _store_adapted(out, engine.adapted)
    return engine.end()


def predict_all(
    make: Callable[[Sequence[Record]], list[Prediction]],
    records: Sequence[Record],
    out: Path,
    batch_size: int,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> int:
    """Make every prediction that is not on disk yet.

    Records of one image, else of similar length, share a batch. Each batch is on disk before the
    next one begins. Under `accelerate launch` the processes share the work. A file from an earlier,
    unfinished call is continued. `about`: JSON-ready facts that decide the predictions (checkpoint,
    template, decoding, data); kept beside `out`, and a file made under other facts is refused.

    Returns:
        Predictions that this process made now.

    Raises:
        RunError: `out` holds predictions made under other facts.
        DataError: two records have the same id.
        WriteError: the disk is full; whole lines are kept.
    """
    met = Met()
    if not all(met.add(record.id) for record in records):
        raise DataError(f"{out.name}: record ids repeat.", "Every question needs its own id.")
    processes = launched_processes()
    if processes.is_first:
        _same_facts(out, about)
        join_parts(out)
    processes.wait()
    pending = _in_order_of_batches(records, answered_ids(out))
    own = Picked(records, pending[processes.index :: processes.count])
    num_done = len(records) - len(pending)
    if progress:
        progress(num_done, len(records))
    with PredictionWriter(processes.part(out)) as writer:
        for start in range(0, len(own), batch_size):
            batch = own[start : start + batch_size]
            writer.append(make(batch))
            num_done += len(batch) * processes.count
            if progress:
                progress(min(num_done, len(records)), len(records))
    processes.wait()
    if processes.is_first:
        join_parts(out)
    processes.wait()
    return len(own)


def _in_order_of_batches(records: Sequence[Record], done: Met) -> list[int]:
    """The rows of records that are not done, so that those of a batch follow one another.

    An image is hundreds of tokens: with and without do not share a batch where it can be helped.
    Questions about one image share one, so that the image is looked at once. Else they are sorted
    by length.
    """
    rows, num_images, pictures, lengths = (array("q") for _ in range(4))
    codes: dict[str, int] = {"": 0}
    for row, record in enumerate(records):
        if record.id in done:
            continue
        rows.append(row)
        num_images.append(len(record.question_images))
        picture = record.image_group if record.images else ""
        pictures.append(codes.setdefault(picture, len(codes)))
        lengths.append(len(shown_question(record)))
    if not rows:
        return []
    names = sorted(codes)
    rank = np.empty(len(names), np.int64)
    rank[[codes[name] for name in names]] = range(len(names))
    asked = np.bincount(pictures, minlength=len(names))
    rank[asked == 1] = 0
    order = np.lexsort([np.asarray(lengths), rank[pictures], np.asarray(num_images)])
    return np.asarray(rows)[order].tolist()


def shown_question(record: Record) -> str:
    """The question as the model reads it, options included; `<image>` where it places images."""
    return question_text(record.question, record.meta.get("options"))


def facts_path(out: Path) -> Path:
    """The file beside an answer file that says how its answers were made."""
    return out.with_suffix(".about.json")


def read_facts(out: Path) -> dict[str, Any]:
    """How the answers of a file were made; nothing where that was not written.

    Raises:
        DamagedFileError: it is not what was written.
    """
    facts = facts_path(out)
    return read_document(facts, _ASK_AGAIN) if os.path.lexists(facts) else {}


def stored_template(out: Path) -> str | None:
    """The chat template that stored answers were asked with; None where a server chose it."""
    return read_facts(out).get("template")


def stored_adapted(out: Path) -> dict[str, str | None]:
    """What a service did not take of the parameters when it gave some of the stored answers."""
    return read_facts(out).get(_ADAPTED, {})


def _store_adapted(out: Path, adapted: dict[str, str | None]) -> None:
    facts = read_facts(out)
    facts[_ADAPTED] = facts.get(_ADAPTED, {}) | adapted
    write_document(facts_path(out), facts)


def check_facts(out: Path, about: dict[str, Any]) -> None:
    """Refuse to add to answers that were made under other facts; without answers anything fits.

    Raises:
        RunError: the facts differ, or nothing says how the answers were made.
    """
    if not (out.exists() and out.stat().st_size):
        return
    path = facts_path(out)
    if not path.exists():
        raise RunError(
            f"{out}: there are answers, but nothing says how they were made.",
            "Score them as they are, or remove them to answer again.",
        )
    earlier = read_document(path, _ASK_AGAIN)
    differing = sorted(
        key
        for key in (earlier.keys() | about.keys()) - {_ADAPTED}
        if earlier.get(key) != about.get(key)
    )
    if differing:
        raise RunError(
            f"{out}: its answers were made with another {', '.join(differing)}.",
            "Use another run folder, or remove the file to answer again.",
        )


def _same_facts(out: Path, about: dict[str, Any]) -> None:
    check_facts(out, about)
    if out.exists() and out.stat().st_size:
        return
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_document(facts_path(out), about)


def _state() -> Any:
    from exgra_med.training.distributed import process_state

    return process_state()
