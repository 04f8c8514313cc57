"""Answers by any OpenAI-compatible service, so that models of other families meet our scorers."""

import asyncio
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.errors import DataError, ServiceError
from exgra_med.evaluation.predict import Answer, shown_question
from exgra_med.llm.endpoint import Endpoint, require_allowed
from exgra_med.llm.identifiers import find_identifiers
from exgra_med.llm.request import CompletionError, Message
from exgra_med.llm.service import ServiceSettings

_MOST_IDS = 5


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What a service said."""

    text: str
    num_tokens: int
    finish_reason: str


class ServiceAnswerer:
    """Asks a service, a batch of records at once; a context, since it keeps its connections.

    Args:
        settings: model, address and limits.
        images: where the records' images lie; sent as PNG without any metadata.

    Raises:
        ServiceError: no address, or a remote one without permission.
    """

    def __init__(self, settings: ServiceSettings, images: ImageFolder) -> None:
        self.settings, self.images = settings, images
        self.endpoint = allowed_endpoint(settings)
        self.num_failed = 0
        """Questions without an answer so far; they count as missing, and are asked again."""
        self.last_failure: CompletionError | None = None
        """Why the last of them has none."""
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self._service = self._runner.run(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._service.close())
        self._runner.__exit__(kind, error, trace)

    def __call__(self, records: Sequence[Record]) -> Sequence[Answer | None]:
        """One answer a record, None where the service gave none.

        Raises:
            StoppedError: no answer can be had any more.
            DataError: an image cannot be read.
        """
        return self._runner.run(self._ask_all(records))

    async def _open(self) -> Any:
        return self.settings.service(self.endpoint, cache=None)

    async def _ask_all(self, records: Sequence[Record]) -> list[Answer | None]:
        tasks = [asyncio.create_task(self._ask(record)) for record in records]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, record: Record) -> Answer | None:
        try:
            said = await self._service.complete(
                question_messages(record, self.images), keep_cut=True
            )
        except CompletionError as error:
            self.num_failed, self.last_failure = self.num_failed + 1, error
            return None
        # A served export of this project ends a turn inside its marker `###`; a heading stays.
        text = said.text.strip().rstrip("#").rstrip()
        return ServiceAnswer(text, said.completion_tokens, said.finish_reason)


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
    """The question with its options, images first, as one message of a user."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(images.open(name, record.id))}}
        for name in record.images
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": shown_question(record)}]}]


def data_url(image: Image.Image) -> str:
    """The pixels of an image, and nothing else of its file, as a PNG data URL."""
    stream = io.BytesIO()
    Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def refuse_identifying(
    texts: dict[str, str], settings: ServiceSettings, endpoint: Endpoint
) -> None:
    """Refuse texts that seem to name patients, where they would leave this machine.

    Args:
        texts: what would be sent, by record id.
        settings: `force` allows it.
        endpoint: a service on this machine may read anything.

    Raises:
        DataError: identifiers were found; the message has kinds and ids, never the words.
    """
    if settings.force or endpoint.is_local:
        return
    found = {name: kinds for name, text in texts.items() if (kinds := find_identifiers(text))}
    if found:
        kinds = sorted({kind for each in found.values() for kind in each})
        raise DataError(
            f"The text of {len(found)} records seems to identify patients ({', '.join(kinds)}); "
            f"first records: {', '.join(map(repr, list(found)[:_MOST_IDS]))}.",
            "Remove what identifies, or give --force if you have looked and may send it.",
        )
