"""A server that chat clients take: OpenAI's chat completions over a loaded model.

    GET  /v1/models             the model, by a short name
    POST /v1/chat/completions   an answer, whole or streamed; `served_requests.py` reads it
    GET  /health

Answers are written one after the other, in a thread; a few requests wait for their turn. A client
that goes away ends its answer.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from exgra_med.errors import ExgraMedError, ServiceError
from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import FinishReason, stream
from exgra_med.model.native import NativeBundle
from exgra_med.model.served_requests import (
    MAX_BODY_BYTES,
    ChatQuestion,
    RefusedError,
    read_question,
    require_known,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_WAITING = 16
"""Requests that are answered or wait; a further one is told to come again. Their pictures are in
memory, so it bounds that too."""
MAX_TOKENS = 1024
"""Of an answer, where the request does not say."""
_RETRY_SECONDS = 5
_CLOSING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """A further piece of an answer."""

    text: str
    num_prompt_tokens: int
    num_tokens: int
    """Of the answer so far."""
    finish_reason: FinishReason | None = None
    """Set with the last piece."""


class Answers(Protocol):
    """Who answers."""

    @property
    def pictures_behind(self) -> bool:
        """See `read_question`."""

    def stream(self, question: ChatQuestion) -> Generator[Piece, None, None]:
        """The answer in pieces, in whole characters; closing the iterator ends it.

        Raises:
            RefusedError: the model cannot read the question.
            ExgraMedError: likewise.
        """


@dataclass(frozen=True)
class ModelAnswers:
    """Answers of a loaded model."""

    bundle: Bundle
    template: str
    """Of a native model."""

    @property
    def pictures_behind(self) -> bool:
        """See `Answers`. Only a native model saw them there."""
        return isinstance(self.bundle, NativeBundle)

    def stream(self, question: ChatQuestion) -> Generator[Piece, None, None]:
        """See `Answers`. Without a temperature the likeliest words are written."""
        turns = list(question.turns)
        # A native model was trained with one system text, which its template writes.
        if question.system and not isinstance(self.bundle, NativeBundle):
            turns[0] = turns[0].model_copy(update={"text": f"{question.system}\n\n{turns[0].text}"})
        prompt = self.bundle.prompt(turns, len(question.images), template=self.template)
        num_prompt = self.bundle.num_tokens(prompt, question.images)
        room = self.bundle.context_length - num_prompt
        if room < 1:
            raise RefusedError(
                400,
                f"The conversation has {num_prompt} tokens, and the model reads "
                f"{self.bundle.context_length} with its answer.",
                "messages",
            )
        sampling = Sampling(
            max_tokens=min(question.max_tokens or MAX_TOKENS, room),
            temperature=question.temperature,
            top_p=question.top_p,
            # Equal seeds give equal answers, so another one is drawn where none is given.
            seed=secrets.randbelow(2**31) if question.seed is None else question.seed,
        )
        with closing(stream(self.bundle, prompt, question.images, sampling)) as chunks:
            for chunk in chunks:
                yield Piece(chunk.text, num_prompt, chunk.num_tokens, chunk.finish_reason)


class ServedApp:
    """ASGI: answers to the requests of chat clients.

    Args:
        answers: who answers.
        name: what requests call the model.
    """

    def __init__(self, answers: Answers, name: str) -> None:
        self.answers, self.name = answers, name
        self.card = {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "exgra-med",
        }
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._num_waiting = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"].rstrip("/")
        try:
            if method in ("GET", "HEAD") and path == "/v1/models":
                await _send_json(send, 200, {"object": "list", "data": [self.card]})
            elif method in ("GET", "HEAD") and path.startswith("/v1/models/"):
                require_known(path.removeprefix("/v1/models/"), self.name)
                await _send_json(send, 200, self.card)
            elif method in ("GET", "HEAD") and path == "/health":
                await _send_json(send, 200, {"status": "ok"})
            elif method == "POST" and path == "/v1/chat/completions":
                await self._complete(receive, send)
            else:
                raise RefusedError(404, "There is no such address here.")
        except RefusedError as error:
            await _send_json(send, error.status, error.body())

    async def _complete(self, receive: Receive, send: Send) -> None:
        content = await _body(receive)
        if self._num_waiting >= MAX_WAITING:
            raise RefusedError(429, f"{self._num_waiting} requests wait already; ask again later.")
        self._num_waiting += 1
        try:
            # Pictures take a while to decode; others are answered meanwhile.
            question = await asyncio.to_thread(
                read_question, content, self.name, self.answers.pictures_behind
            )
            await self._answer(question, receive, send)
        finally:
            self._num_waiting -= 1

    async def _answer(self, question: ChatQuestion, receive: Receive, send: Send) -> None:
        gone = threading.Event()
        written = _Written(self.answers, question, gone, asyncio.get_running_loop())
        job = self._worker.submit(written.write)
        left = asyncio.ensure_future(_until_gone(receive))
        reply = _Reply(self.name, question, send)
        try:
            while not reply.is_over:
                piece = asyncio.ensure_future(written.pieces.get())
                await asyncio.wait({piece, left}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    return
                await reply.add(piece.result())
        finally:
            gone.set()
            job.cancel()
            left.cancel()


class _Written:
    """One answer on its way from the thread that writes it."""

    def __init__(
        self,
        answers: Answers,
        question: ChatQuestion,
        gone: threading.Event,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.answers, self.question, self.gone, self.loop = answers, question, gone, loop
        self.pieces: asyncio.Queue[Piece | RefusedError] = asyncio.Queue()

    def write(self) -> None:
        """Write the answer to its end, or until nobody waits for it."""
        try:
            with closing(cut_at(self.answers.stream(self.question), self.question.stops)) as cut:
                for piece in cut:
                    if self.gone.is_set():
                        return
                    self._put(piece)
        except RefusedError as error:
            self._put(error)
        except ExgraMedError as error:
            self._put(RefusedError(400, str(error), "messages"))
        except Exception as error:
            # Its words may quote the question.
            print(f"exgra-med serve: {type(error).__name__} in a request", file=sys.stderr)
            self._put(RefusedError(500, f"The model failed ({type(error).__name__})."))

    def _put(self, piece: Piece | RefusedError) -> None:
        with suppress(RuntimeError):  # the server is closing
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class _Reply:
    """What a client is sent of an answer."""

    def __init__(self, name: str, question: ChatQuestion, send: Send) -> None:
        self.question, self._send = question, send
        self.is_over = False
        self._is_begun = False
        self._text = ""
        kind = "chat.completion.chunk" if question.streams else "chat.completion"
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": name,
        }

    async def add(self, piece: Piece | RefusedError) -> None:
        """Take a further piece, the last one, or why there is none.

        Raises:
            RefusedError: nothing was sent yet.
        """
        if isinstance(piece, RefusedError):
            self.is_over = True
            if not self._is_begun:
                raise piece
            await self._events([piece.body()])
            return
        self._text += piece.text
        self.is_over = piece.finish_reason is not None
        if self.question.streams:
            await self._events(self._chunks(piece))
        elif self.is_over:
            message = {"role": "assistant", "content": self._text}
            choice = {"index": 0, "message": message, "finish_reason": piece.finish_reason}
            await _send_json(
                self._send, 200, self._head | {"choices": [choice], "usage": _usage(piece)}
            )

    def _chunks(self, piece: Piece) -> list[dict[str, Any]]:
        deltas: list[tuple[dict[str, str], str | None]] = []
        if not self._is_begun:
            deltas.append(({"role": "assistant", "content": ""}, None))
        if piece.text:
            deltas.append(({"content": piece.text}, None))
        if piece.finish_reason is not None:
            deltas.append(({}, piece.finish_reason))
        chunks = [
            self._head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in deltas
        ]
        if piece.finish_reason is not None and self.question.with_usage:
            chunks.append(self._head | {"choices": [], "usage": _usage(piece)})
        return chunks

    async def _events(self, values: Sequence[dict[str, Any]]) -> None:
        if not self._is_begun:
            self._is_begun = True
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        said = b"".join(f"data: {json.dumps(value)}\n\n".encode() for value in values)
        if self.is_over:
            said += b"data: [DONE]\n\n"
        await self._send(
            {"type": "http.response.body", "body": said, "more_body": not self.is_over}
        )


def cut_at(
    pieces: Generator[Piece, None, None], stops: Sequence[str]
) -> Generator[Piece, None, None]:
    """The pieces up to the first of some texts; what might be the begin of one is held back."""
    cutter = StopCutter(stops)
    with closing(pieces):
        for piece in pieces:
            text = cutter.add(piece.text)
            if cutter.is_stopped:
                yield replace(piece, text=text, finish_reason="stop")
                return
            if piece.finish_reason is not None:
                text += cutter.end()
            yield replace(piece, text=text)


class StopCutter:
    """Text that comes in pieces, up to the first of some strings.

    >>> cut = StopCutter(["END"])
    >>> cut.add("a E"), cut.add("N"), cut.add("D b"), cut.is_stopped
    ('a ', '', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.is_stopped = False
        self._held = ""

    def add(self, text: str) -> str:
        """What of the text so far is surely no part of a stop string."""
        if self.is_stopped:
            return ""
        text = self._held + text
        places = [text.find(stop) for stop in self.stops]
        found = min((place for place in places if place >= 0), default=None)
        if found is not None:
            self.is_stopped, self._held = True, ""
            return text[:found]
        held = max(
            (
                length
                for stop in self.stops
                for length in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:length])
            ),
            default=0,
        )
        self._held = text[len(text) - held :] if held else ""
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back, when no further piece comes."""
        held, self._held = self._held, ""
        return held


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ServiceError: it cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address, which the sentence has.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ServiceError(
            f"Port {port} of {host} cannot be opened: {reason}.",
            "Choose another --port, or an address of this machine with --host.",
        ) from error


def run_app(app: ServedApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; answers under way get a few seconds. Nothing is logged."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _usage(piece: Piece) -> dict[str, int]:
    return {
        "prompt_tokens": piece.num_prompt_tokens,
        "completion_tokens": piece.num_tokens,
        "total_tokens": piece.num_prompt_tokens + piece.num_tokens,
    }


async def _body(receive: Receive) -> bytes:
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError(400, "The request ended early.")
        content += message.get("body", b"")
        if len(content) > MAX_BODY_BYTES:
            raise RefusedError(413, f"The request is longer than {MAX_BODY_BYTES} bytes.")
        if not message.get("more_body", False):
            return bytes(content)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_json(send: Send, status: int, value: Any) -> None:
    content = json.dumps(value).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    if status == 429:
        headers.append((b"retry-after", str(_RETRY_SECONDS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
