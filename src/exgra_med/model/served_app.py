"""What stands before `transformers serve`: checks, stop strings, a short name, whole characters.

    python -m exgra_med.model.served_app NAME serve FOLDER --port 8000

runs the stock server in this process, with the same arguments. Requests are read here first, so
that what cannot be answered is an error that says why; what the model reads is what this project
decodes: base64 pictures alone, as PNG, and never a file or an address that a client names.
"""

import asyncio
import base64
import json
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from io import BytesIO
from typing import Any

from exgra_med.data.images import decode_image
from exgra_med.errors import ExgraMedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 2**20
"""Of a request: sixteen pictures of 3 MB, which base64 makes a third longer."""
MAX_PIXELS = 64_000_000
"""Of one picture, refused before it is decoded."""
MAX_STOPS = 16
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_ROLES = ("system", "developer", "user", "assistant", "tool")
_NUMBERS = {
    "max_tokens": (1, 1_000_000, int),
    "max_completion_tokens": (1, 1_000_000, int),
    "temperature": (0, 2, float),
    "top_p": (0, 1, float),
    "frequency_penalty": (-2, 2, float),
    "seed": (-(2**63), 2**63 - 1, int),
    "n": (1, 1, int),
}
"""Of a request: the least, the most and the kind of a number."""
_HALF_CHARACTER_TOKENS = 4
"""A character of UTF-8 has at most so many bytes, and a token at least one."""


class RefusedError(Exception):
    """A request that cannot be answered: a status of HTTP, and why."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


class ServedApp:
    """ASGI: the stock server behind checks.

    Args:
        app: the stock server.
        name: of the model, for requests and answers.
        folder: what the stock server calls it; requests may give that, too.
    """

    def __init__(self, app: Any, name: str, folder: str) -> None:
        self.app, self.name, self.folder = app, name, folder
        self.card = {"id": name, "object": "model", "created": 0, "owned_by": "exgra-med"}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request here, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"].rstrip("/")
        try:
            if method in ("GET", "HEAD", "OPTIONS") and path == "/v1/models":
                await _answer(send, 200, {"object": "list", "data": [self.card]})
            elif method in ("GET", "HEAD") and path.startswith("/v1/models/"):
                self._require_known(path.removeprefix("/v1/models/"))
                await _answer(send, 200, self.card)
            elif method == "GET" and path == "/health":
                await self.app(scope, receive, send)
            elif method == "POST" and path in (_CHAT, _TEXT):
                await self._complete(scope, receive, send)
            else:
                raise RefusedError(404, "There is no such address here.")
        except RefusedError as error:
            await _answer(send, error.status, _error(error.status, error.message, error.param))

    def _require_known(self, model: Any) -> None:
        if model not in (None, self.name, self.folder):
            raise RefusedError(404, f"The model here is {self.name!r}.", "model")

    async def _complete(self, scope: Any, receive: Receive, send: Send) -> None:
        body = _object(await _body(receive))
        self._require_known(body.get("model"))
        _check_numbers(body)
        stops = _stops(body.pop("stop", None))
        if scope["path"].rstrip("/") == _CHAT:
            # Pictures take a while to decode; others are answered meanwhile.
            body["messages"] = await asyncio.to_thread(_messages, body.get("messages"))
        elif not isinstance(body.get("prompt"), str):
            raise RefusedError(400, "The prompt is one text.", "prompt")
        body["model"] = self.folder
        content = json.dumps(body).encode()
        kept = [each for each in scope["headers"] if each[0].lower() != b"content-length"]
        kept.append((b"content-length", str(len(content)).encode()))
        exchange = _Exchange(self.name, stops, bool(body.get("stream")), content, receive, send)
        try:
            await self.app({**scope, "headers": kept}, exchange.receive, exchange.send)
        # The stock server answers with 500 and raises its error once more, with a traceback.
        except Exception as error:
            print(f"exgra-med serve: {type(error).__name__} in a request", file=sys.stderr)
            if not exchange.is_begun:
                what = "The model cannot read this request, or failed."
                is_request = isinstance(error, ValueError | KeyError | TypeError | IndexError)
                raise RefusedError(400 if is_request else 500, what) from None
        if not exchange.is_begun:
            raise RefusedError(500, "The model failed.")


class _Exchange:
    """One answer of the stock server on its way to the client."""

    def __init__(
        self,
        name: str,
        stops: list[str],
        streams: bool,
        content: bytes,
        receive: Receive,
        send: Send,
    ) -> None:
        self.name, self.stops, self.streams = name, stops, streams
        self._content: bytes | None = content
        self._client_receive, self._client_send = receive, send
        self._status, self._whole, self._left = 0, bytearray(), b""
        self._cut = StopCutter(stops)
        self._ended = asyncio.Event()
        self.is_begun = False

    async def receive(self) -> Message:
        """The checked request, and the end of the connection: the client's, or after a stop."""
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        left = asyncio.ensure_future(self._client_receive())
        ended = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait({left, ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (left, ended):
            task.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self.streams and self._status == 200:
                self.is_begun = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
                await self._client_send({**message, "headers": headers})
            return
        if self._ended.is_set():
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.is_begun:
            await self._stream(body, more)
            return
        self._whole += body
        # Of a failure the error itself says more, which the stock server raises after its answer.
        if not more and self._status < 500:
            self.is_begun = True
            await _answer(self._client_send, self._status, self._finished())

    def _finished(self) -> Any:
        """A whole answer, renamed and cut; or an error in the words of the protocol."""
        value = _decoded(bytes(self._whole))
        if self._status != 200:
            detail = value.get("detail") if isinstance(value, dict) else None
            said = detail if isinstance(detail, str) else "The request cannot be read."
            return _error(self._status, said)
        value["model"] = self.name
        for choice in value.get("choices", []):
            holder, key = _text_place(choice)
            text = holder.get(key) if holder is not None else None
            cut = StopCutter(self.stops)
            if holder is not None and isinstance(text, str):
                kept = cut.add(text)
                if cut.is_stopped:
                    holder[key], choice["finish_reason"] = kept, "stop"
        return value

    async def _stream(self, body: bytes, more: bool) -> None:
        *events, self._left = (self._left + body).split(b"\n\n")
        said = b"".join([self._event(event) for event in events if event and not self._cut.is_over])
        if self._cut.is_stopped or not more:
            self._ended.set()
            said += b"data: [DONE]\n\n"
        await self._client_send(
            {"type": "http.response.body", "body": said, "more_body": not self._ended.is_set()}
        )

    def _event(self, event: bytes) -> bytes:
        value = _decoded(event.removeprefix(b"data:"))
        if not isinstance(value, dict) or "choices" not in value:
            self._cut.is_over = True
            value = _error(500, "The model failed.")
            return f"data: {json.dumps(value)}\n\n".encode()
        value["model"] = self.name
        made = b""
        for choice in value["choices"][:1]:
            holder, key = _text_place(choice)
            text = holder.get(key) if holder is not None else None
            if holder is not None and isinstance(text, str):
                holder[key] = self._cut.add(text)
                if self._cut.is_stopped:
                    choice["finish_reason"] = "stop"
                    self._cut.is_over = True
            elif choice.get("finish_reason") and (held := self._cut.end()):
                made = self._event_of(value, held)
        return made + f"data: {json.dumps(value)}\n\n".encode()

    @staticmethod
    def _event_of(last: dict[str, Any], held: str) -> bytes:
        """The text that was held back, before the event that says the end."""
        place = {"delta": {"content": held}} if "delta" in last["choices"][0] else {"text": held}
        value = {**last, "choices": [{"index": 0, "finish_reason": None, **place}]}
        return f"data: {json.dumps(value)}\n\n".encode()


class StopCutter:
    """Text that comes in pieces, up to the first of some strings.

    >>> cut = StopCutter(["END"])
    >>> cut.add("a E"), cut.add("N"), cut.add("D b"), cut.is_stopped
    ('a ', '', '', True)
    """

    def __init__(self, stops: list[str]) -> None:
        self.stops = stops
        self.is_stopped = self.is_over = False
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


def _text_place(choice: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Where the text of a choice stands: of a message, of a piece of one, or of a completion."""
    for key in ("message", "delta"):
        if isinstance(choice.get(key), dict):
            return choice[key], "content"
    return (choice, "text") if "text" in choice else (None, "")


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


def _decoded(content: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(content)
    return None


def _object(content: bytes) -> dict[str, Any]:
    value = _decoded(content)
    if not isinstance(value, dict):
        raise RefusedError(400, "The request is no JSON object.")
    return value


def _check_numbers(body: dict[str, Any]) -> None:
    for name, (least, most, kind) in _NUMBERS.items():
        value = body.get(name)
        if value is None:
            body.pop(name, None)
            continue
        is_number = isinstance(value, int if kind is int else int | float)
        if not is_number or isinstance(value, bool) or not least <= value <= most:
            raise RefusedError(400, f"{name} is a number from {least} to {most}.", name)
    if body.get("top_p") == 0:
        raise RefusedError(400, "top_p is above 0.", "top_p")
    if not isinstance(body.get("stream", False) or False, bool):
        raise RefusedError(400, "stream is true or false.", "stream")


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    is_list = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not is_list or not all(isinstance(each, str) and 0 < len(each) <= 1000 for each in stops):
        raise RefusedError(400, f"stop is a text, or a list of up to {MAX_STOPS}.", "stop")
    return stops


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise RefusedError(400, "messages is a list with a message or more.", "messages")
    return [_message(each) for each in value]


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("role") not in _ROLES:
        raise RefusedError(400, f"A message has a role: {', '.join(_ROLES)}.", "messages")
    content = value.get("content")
    if isinstance(content, list):
        content = [_part(each) for each in content]
    elif not isinstance(content, str) and not (content is None and value.get("tool_calls")):
        raise RefusedError(400, "The content of a message is a text or a list.", "messages")
    return {**value, "content": content}


def _part(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text" and isinstance(value.get("text"), str):
        return {"type": "text", "text": value["text"]}
    if kind != "image_url":
        raise RefusedError(400, "A part of a message is a text or an image_url.", "messages")
    url = value.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    url = url if isinstance(url, str) else ""
    found = _DATA_URL.match(url)
    if found is None:
        raise RefusedError(
            400,
            "Pictures are not fetched: send them as data:image/png;base64,... in the request.",
            "messages",
        )
    try:
        content = base64.b64decode(url[found.end() :], validate=True)
        picture = decode_image(BytesIO(content), MAX_PIXELS, "picture")
    except ExgraMedError as error:
        raise RefusedError(400, str(error), "messages") from None
    except ValueError:
        raise RefusedError(400, "The picture is no base64.", "messages") from None
    stream = BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    made = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{made}"}}


def _error(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = "model_not_found" if param == "model" else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def _answer(send: Send, status: int, value: Any) -> None:
    content = json.dumps(value).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class WholeWords:
    """Tokens -> text as they come, in place of the tokenizers' own: that one ends with an error
    where tokens are half a character and stay it. Here such a half is U+FFFD.
    """

    def __init__(self, ids: list[int] | None = None, skip_special_tokens: bool = True) -> None:
        self._ids, self._skips = list(ids or []), skip_special_tokens
        self._begin = self._read = 0

    def step(self, tokenizer: Any, token: int) -> str | None:
        """The text that a further token adds; None where it is half a character so far."""
        self._ids.append(token)
        # The last words before it are decoded again, as a token can begin with a space or not.
        before = tokenizer.decode(self._ids[self._begin : self._read], self._skips)
        now = tokenizer.decode(self._ids[self._begin :], self._skips)
        is_half = now.endswith("\ufffd") and len(self._ids) - self._read < _HALF_CHARACTER_TOKENS
        if len(now) <= len(before) or is_half:
            return None
        self._begin, self._read = self._read, len(self._ids)
        return now[len(before) :]


def main() -> None:
    """Run the stock server behind these checks."""
    import tokenizers.decoders
    from transformers.cli import transformers
    from transformers.cli.serving import server as stock_server

    server: Any = stock_server
    decoders: Any = tokenizers.decoders
    name, folder = sys.argv[1], sys.argv[3]
    stock = server.build_server
    # Both are looked up when the server starts. There is no option for either.
    server.build_server = lambda *given, **named: ServedApp(stock(*given, **named), name, folder)
    decoders.DecodeStream = WholeWords
    sys.argv = ["transformers", *sys.argv[2:]]
    transformers.app()


if __name__ == "__main__":
    main()
