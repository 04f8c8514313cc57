"""Any OpenAI-compatible server: whole replies, or as they are written.

Requests go through the HTTP client of the openai SDK, and not through its calls: those read what a
server sends without a bound.
"""

import asyncio
import email.utils
import json
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any

from exgra_med.errors import ServiceError
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.exchange import (
    MAX_REPLY_CHARACTERS,
    WholeCharacters,
    count,
    dollars,
    exchange,
    open_client,
    whole_characters,
)
from exgra_med.llm.fault import (
    CUT,
    Fault,
    Kind,
    kind_of,
    read_fault,
    refused_parameters,
    shown,
    wait_in,
)
from exgra_med.llm.request import (
    ChatRequest,
    Names,
    Reply,
    ReplyError,
    TransportError,
    estimate_tokens,
)
from exgra_med.plugins import import_extra

CONNECTIONS_PER_POOL = 8
_LENGTH = ("max_tokens", "max_completion_tokens")
"""The two names of the longest answer. It bounds what a request costs, so it is never left out."""
_ENDS = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
}
_NO_ROOM = "the reply ended early (length), before an answer: more tokens are needed"
_TOOLS = {"tool_calls", "function_call"}
_ADDRESS = "Check the address, which mostly ends in /v1, and the name of the model."
_FATAL: dict[Kind, tuple[str, str]] = {
    "permission": ("the key was refused", "Check the key and what it may do."),
    "quota": (
        "the account has no credit",
        "What was finished is kept; go on when the account has credit.",
    ),
    "model": ("the model is unknown", "Check the name of the model."),
    "address": ("the address or the model is unknown", _ADDRESS),
    "images": (
        "the model reads no images",
        "Take a model that reads images, or start its server with them.",
    ),
}
"""Faults that end a run: what to say where the service says nothing, and how to mend it."""


class OpenAITransport:
    """A few pools of connections for a whole run.

    Args:
        timeout_seconds: for one request, from connecting to the last byte.

    Raises:
        MissingExtraError: the openai SDK is not installed.
    """

    def __init__(
        self, endpoint: Endpoint, timeout_seconds: float = 120.0, concurrency: int = 64
    ) -> None:
        kind = import_extra("openai", "A language-model service", "llm").DefaultAsyncHttpxClient
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        # A pool looks at each of its connections twice for every request; small pools keep the
        # processor time of a request independent of how many are under way.
        num_pools = -(-concurrency // CONNECTIONS_PER_POOL)
        self._pools = [open_client(kind, endpoint) for _ in range(num_pools)]
        self._next_pool = cycle(self._pools)
        self._knows_schema = False

    async def send(self, request: ChatRequest) -> Reply:
        """Ask once.

        Raises:
            TransportError: no reply came. Where the service does not take a parameter, the error
                has the `names` to ask again with.
            ReplyError: a reply came that holds no text, or more than a reply may.
        """
        body = request_body(request, self.endpoint.host)
        fault = partial(fault_error, self.endpoint, request, body, schema_known=self._knows_schema)
        try:
            async with (
                asyncio.timeout(self.timeout_seconds),
                exchange(next(self._next_pool), self.endpoint, body) as answer,
            ):
                text = await answer.text()
        except TimeoutError as error:
            raise TransportError("timeout", f"{self.timeout_seconds:g} s") from error
        if not answer.is_good:
            said = read_fault(text)
            if said.says(CUT) and request.keep_cut:
                return Reply("", request.prompt_tokens, request.sampling.max_tokens, None, "length")
            if said.says(CUT):
                raise ReplyError(_NO_ROOM)
            raise fault(said, answer.status, answer.headers)
        try:
            reply = reply_of(_json(text), request.prompt_tokens, request.keep_cut)
        except FaultError as error:
            raise fault(error.fault, error.fault.status, {}) from error
        except RecursionError as error:
            raise ReplyError("the server's answer is nested too deep") from error
        self._knows_schema |= "response_format" in body
        return reply

    async def close(self) -> None:
        """Close the connections."""
        for client in self._pools:
            await client.aclose()


def _json(text: str) -> Any:
    if text.lstrip()[:1] == "<":
        why = "a web page came in place of an answer"
        raise TransportError("rejected", why, hint=_ADDRESS, retryable=False, status=200)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplyError("the server's answer is not JSON") from error


def request_body(request: ChatRequest, host: str = "") -> dict[str, Any]:
    """The arguments of a chat completion, in the wire's names.

    Args:
        host: of the service; some names differ between services.
    """
    names: Names = {"max_tokens": _LENGTH[host == "api.openai.com"]} | dict(request.names)
    parameters = request.sampling.given()
    if request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
    }
    for ours, value in parameters.items():
        name = names.get(ours, ours)
        if name is not None:
            body[name] = value
    if host == "openrouter.ai":
        body["usage"] = {"include": True}
    return body


class FaultError(Exception):
    """A reply that is an error of the service, although it came with status 200."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.sentence)
        self.fault = fault


def reply_of(value: Any, prompt_tokens: int, keep_cut: bool = False) -> Reply:
    """The reply in a decoded chat completion.

    Args:
        prompt_tokens: an estimate, for servers that do not count.
        keep_cut: see `ChatRequest`.

    Raises:
        FaultError: it is an error of the service.
        ReplyError: no choice, no text, cut at the token limit, or refused by the model.
    """
    value = value if isinstance(value, dict) else {"error": value}
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    # Some servers send an error without words beside every good answer.
    fault = read_fault(value if choice is None else value.get("error"))
    if fault.sentence or (choice is None and value.get("error")):
        raise FaultError(fault)
    if choice is None:
        raise ReplyError("the server's answer holds no choice")
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and (choice.get("error") or choice.get("finish_reason") == "error"):
        raise FaultError(read_fault(choice.get("error") or "the server stopped with an error"))
    if not isinstance(message, dict) or not isinstance(choice, dict):
        raise ReplyError("the server's answer holds no message")
    said = str(choice.get("finish_reason")).lower()
    ended = _ENDS.get(said, "stop")
    text, reasoning = _text_of(message)
    refusal = message.get("refusal")
    if not text.strip() and (said in _TOOLS or message.get("tool_calls")):
        raise ReplyError("the model called a tool in place of an answer")
    if keep_cut:
        text = text or (refusal if isinstance(refusal, str) else "")
    elif refusal:
        raise ReplyError("the model refused")
    elif ended == "length" and not text.strip():
        raise ReplyError(_NO_ROOM)
    elif ended != "stop":
        raise ReplyError(f"the reply ended early ({ended})")
    elif not text.strip():
        raise ReplyError("thoughts and no answer" if reasoning else "empty")
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text,
        count(usage.get("prompt_tokens"), prompt_tokens),
        count(usage.get("completion_tokens"), estimate_tokens(text + reasoning)),
        dollars(usage.get("cost")),
        ended,
        reasoning,
    )


def _text_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """Text and thoughts of a message, whose content is text or a list of parts.

    Raises:
        ReplyError: the content is neither.
    """
    thoughts = [message.get("reasoning_content") or message.get("reasoning")]
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        thoughts += [_flat(part) for part in parts if part.get("type") in ("thinking", "reasoning")]
        content = "".join(
            str(part.get("text") or "")
            for part in parts
            if part.get("type") in ("text", "output_text", None)
        )
    if content is not None and not isinstance(content, str):
        raise ReplyError(f"the answer is no text but of type {type(content).__name__}")
    content = whole_characters(content or "")
    reasoning = "\n".join(each for each in thoughts if isinstance(each, str) and each)
    if len(content) + len(reasoning) > MAX_REPLY_CHARACTERS:
        raise ReplyError(f"the answer is longer than {MAX_REPLY_CHARACTERS} characters")
    return content, whole_characters(reasoning)


def _flat(part: Mapping[str, Any]) -> str:
    inner = part.get("thinking") or part.get("reasoning") or part.get("text") or ""
    if isinstance(inner, list):
        inner = "".join(str(each.get("text", "")) for each in inner if isinstance(each, Mapping))
    return str(inner)


def fault_error(
    endpoint: Endpoint,
    request: ChatRequest,
    body: Mapping[str, Any],
    fault: Fault,
    status: int | None,
    headers: Mapping[str, str],
    *,
    schema_known: bool = False,
) -> TransportError:
    """What an error of a service means for the request and for the run.

    Args:
        body: of the request.
        status: None where the error came with status 200 and names none.
        schema_known: the service has taken a schema, so that an error is about something else.
    """
    wait = retry_after_seconds(headers)
    said = shown(fault, request, endpoint.api_key)
    fault = fault.without(request.model)
    kind = kind_of(status, fault, request.has_images, wait is not None)
    http = "" if status is None else f"HTTP {status}"
    detail = f"{http} {_short_code(fault, said)}".strip()
    if kind in ("rejected", "server", "images", "model"):
        # An error that names a parameter is about that, whatever else it speaks of.
        known = schema_known or kind in ("images", "model")
        names = _other_names(request, body, fault, status or 200, known)
        if names is not None:
            return TransportError(kind, said, retryable=False, status=status or 200, names=names)
    if kind in _FATAL:
        reason, hint = _FATAL[kind]
        detail = f"{detail}: {said or reason}".removeprefix(": ")
        return TransportError("rejected", detail, hint=hint, fatal=True, status=status or 200)
    detail = f"{detail}: {said}".removeprefix(": ") if said else detail or "an error without words"
    status = status or 200
    if kind in ("rate limit", "server"):
        wait = wait_in(fault) if wait is None else wait
        return TransportError(kind, detail, retry_after_seconds=wait, status=status)
    # Where a service says nothing, a wrong address or name is the likeliest cause.
    hint = "" if said else _ADDRESS.replace("the model", f"the model, {request.model!r}")
    return TransportError(kind, detail, hint=hint, retryable=False, status=status)


def _other_names(
    request: ChatRequest, body: Mapping[str, Any], fault: Fault, status: int, schema_known: bool
) -> Names | None:
    """The names to ask again with, where the error is about a parameter; None where it is not."""
    names = dict(request.names)
    for name in refused_parameters(fault, body, request.texts):
        if name != "max_tokens":
            names[name] = None
        elif name not in names:
            names[name] = _LENGTH[_LENGTH[0] in body]
    is_unclear = names == request.names and status in (400, 422)
    if is_unclear and "response_format" in body and not schema_known:
        # Servers that know no schemas say so in many ways, or only that something is invalid.
        names["response_format"] = None
    return names if names != request.names else None


def _short_code(fault: Fault, said: str) -> str:
    """A word for the error where it has no sentence; a sentence may quote, so a word is checked."""
    words = [code for code in fault.codes if code.isidentifier() and len(code) <= 40]
    return "" if said or not words else words[0]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a server asks to wait: as seconds, milliseconds or date; else None."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * scale)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        # A date may be none, or lie beyond what a clock can say.
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    return None


Chunk = tuple[str, str | None]
"""Text, and `stop` or `length` where the server says why it ends."""
SECONDS_OF_SILENCE = 1.0
"""After so long without a word the caller is asked whether it still wants one."""


def stream_reply(
    endpoint: Endpoint,
    request: ChatRequest,
    timeout_seconds: float,
    names: dict[str, str | None] | None = None,
) -> Generator[Chunk, None, None]:
    """Ask once and yield the reply as it is written, for a person who waits for it.

    Unlike `ChatService` it stores nothing. While nothing comes it yields an empty text now and
    then. Closing the iterator closes the connection, and the server stops writing. Redirects are
    not followed, and a local address is asked without a proxy. A parameter that the service does
    not take is given up, and the same is asked again.

    Args:
        timeout_seconds: from connecting to the last word, all attempts together.
        names: of parameters; what is found out about them is added, for the next call.

    Raises:
        ServiceError: no reply, or it took too long, or was too long; what had come has been
            yielded.
        MissingExtraError: the openai SDK is not installed.
    """
    kind = import_extra("openai", "A language-model service", "llm").DefaultAsyncHttpxClient
    names = {} if names is None else names
    # An event loop of its own: only there can a deadline cut whatever a server does.
    come: queue.SimpleQueue[Chunk | Exception | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        client = open_client(kind, endpoint)
        try:
            async with asyncio.timeout(timeout_seconds):
                await _write(client, endpoint, request, names, come.put)
            come.put(None)
        except TimeoutError:
            come.put(TransportError("timeout", f"it took longer than {timeout_seconds:g} s"))
        except Exception as error:
            come.put(error)
        finally:
            await client.aclose()

    task = loop.create_task(ask())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    threading.Thread(target=run, name="exgra-med-stream", daemon=True).start()
    try:
        while True:
            try:
                chunk = come.get(timeout=SECONDS_OF_SILENCE)
            except queue.Empty:
                chunk = "", None
            if chunk is None:
                return
            if isinstance(chunk, Exception):
                raise _told(chunk, endpoint) from None
            yield chunk
    finally:
        # The loop may have ended by itself.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)


def _told(error: Exception, endpoint: Endpoint) -> Exception:
    """The error of an answer that is being written, as a person is told it."""
    failed = f"The model at {endpoint.host} gave no complete answer: "
    if isinstance(error, TransportError):
        no_connection = error.kind == "connection"
        detail = "there is no connection, or it broke" if no_connection else error.detail
        return ServiceError(f"{failed}{detail}.", error.hint)
    return ServiceError(f"{failed}{error}.") if isinstance(error, ReplyError) else error


async def _write(
    client: Any,
    endpoint: Endpoint,
    request: ChatRequest,
    names: dict[str, str | None],
    put: Callable[[Chunk], None],
) -> None:
    """Hand on the pieces of a reply, asking again where a parameter is not taken."""
    while True:
        request = replace(request, names=dict(names))
        try:
            async with aclosing(_pieces(client, endpoint, request)) as pieces:
                async for chunk in pieces:
                    put(chunk)
            return
        except TransportError as error:
            if error.names is None:
                raise
            names |= error.names


async def _pieces(
    client: Any, endpoint: Endpoint, request: ChatRequest
) -> AsyncGenerator[Chunk, None]:
    body = request_body(request, endpoint.host) | {"stream": True}
    fault = partial(fault_error, endpoint, request, body)
    async with exchange(client, endpoint, body) as answer, aclosing(answer.events()) as events:
        if not answer.is_good:
            said = read_fault(await answer.text())
            raise fault(said, answer.status, answer.headers)
        whole = WholeCharacters()
        num_characters = 0
        async for value in events:
            if isinstance(value, dict) and value.get("error"):
                said = read_fault(value["error"])
                raise fault(said, said.status, {})
            text, ended = _piece(value)
            num_characters += len(text)
            if num_characters > MAX_REPLY_CHARACTERS:
                raise ReplyError(f"the answer is longer than {MAX_REPLY_CHARACTERS} characters")
            if text or ended:
                yield whole.add(text) + (whole.end() if ended else ""), ended
        if left := whole.end():
            yield left, None


def _piece(value: Any) -> Chunk:
    """Text and end of one event; one without choices counts tokens, as servers do at the end."""
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "", None
    delta, ended = choice.get("delta"), choice.get("finish_reason")
    content = delta.get("content") if isinstance(delta, dict) else None
    text = content if isinstance(content, str) else ""
    return text, None if ended is None else _ENDS.get(str(ended).lower(), "stop")
