"""Any OpenAI-compatible server through the openai SDK: whole replies, or as they are written."""

import asyncio
import email.utils
import json
import time
from collections.abc import Generator, Mapping
from itertools import cycle
from typing import Any

from exgra_med.errors import ServiceError
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.request import ChatRequest, Reply, ReplyError, TransportError, estimate_tokens
from exgra_med.plugins import import_extra

_FATAL = {
    401: "the key was refused",
    402: "the account has no credit",
    403: "access was refused",
    404: "the address or the model is unknown",
}
CONNECTIONS_PER_POOL = 8
_TRANSIENT = {408, 409, 425, 429}


class OpenAITransport:
    """A few pools of connections for a whole run.

    Redirects are not followed and, for a local address, no proxy is used: what was allowed to go
    to one machine goes to no other.

    Args:
        timeout_seconds: for one request, from connecting to the last byte.

    Raises:
        MissingExtraError: the openai SDK is not installed.
    """

    def __init__(
        self, endpoint: Endpoint, timeout_seconds: float = 120.0, concurrency: int = 64
    ) -> None:
        self._openai = import_extra("openai", "A language-model service", "llm")
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        # A pool looks at each of its connections twice for every request; small pools keep the
        # processor time of a request independent of how many are under way.
        num_pools = -(-concurrency // CONNECTIONS_PER_POOL)
        kinds = self._openai.AsyncOpenAI, self._openai.DefaultAsyncHttpxClient
        self._pools = [_client(*kinds, endpoint, timeout_seconds) for _ in range(num_pools)]
        self._next_pool = cycle(self._pools)
        self._knows_schema: bool | None = None

    async def send(self, request: ChatRequest) -> Reply:
        """Ask once; a server that refuses the schema is asked without it, then and afterwards.

        Raises:
            TransportError: no reply came.
            ReplyError: a reply came that holds no text.
        """
        with_schema = request.schema is not None and self._knows_schema is not False
        try:
            reply = await self._post(request, with_schema)
            self._knows_schema = with_schema or self._knows_schema
        except TransportError as error:
            if not with_schema or self._knows_schema or error.status not in (400, 422):
                raise
            reply = await self._post(request, with_schema=False)
            self._knows_schema = False
        return reply

    async def close(self) -> None:
        """Close the connections."""
        for client in self._pools:
            await client.close()

    async def _post(self, request: ChatRequest, with_schema: bool) -> Reply:
        body = request_body(request, with_schema, self.endpoint.host)
        openai = self._openai
        try:
            # The SDK's timeout restarts with every byte; this one does not.
            async with asyncio.timeout(self.timeout_seconds):
                # The SDK's typed call walks every field of request and reply, which costs more
                # processor time than all the rest of a request.
                text = await next(self._next_pool).post("/chat/completions", body=body, cast_to=str)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise TransportError("timeout", f"{self.timeout_seconds:g} s") from error
        except openai.APIStatusError as error:
            raise _status_error(error.status_code, error.response.headers, error.body) from error
        except openai.APIConnectionError as error:
            raise TransportError("connection", type(error.__cause__ or error).__name__) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReplyError("the server's answer is not JSON") from error
        return reply_of(value, request.prompt_tokens, request.keep_cut)


def request_body(request: ChatRequest, with_schema: bool, host: str = "") -> dict[str, Any]:
    """The arguments of a chat completion, in the wire's names.

    Args:
        host: of the service; some names differ between services.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        **request.sampling.given(),
    }
    if host == "api.openai.com":
        body["max_completion_tokens"] = body.pop("max_tokens")
    if with_schema and request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if host == "openrouter.ai":
        body["usage"] = {"include": True}
    return body


def reply_of(value: Any, prompt_tokens: int, keep_cut: bool = False) -> Reply:
    """The reply in a decoded chat completion.

    Args:
        prompt_tokens: an estimate, for servers that do not count.
        keep_cut: see `ChatRequest`.

    Raises:
        ReplyError: no choice, no text, cut at the token limit, or refused by the model.
    """
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(choice, dict):
        raise ReplyError("the server's answer holds no message")
    ended = choice.get("finish_reason")
    content = message.get("content")
    if keep_cut:
        content = content or message.get("refusal") or ""
    elif message.get("refusal"):
        raise ReplyError("the model refused")
    elif ended in ("length", "content_filter"):
        raise ReplyError(f"the reply ended early ({ended})")
    if isinstance(content, list):
        content = "".join(
            str(part.get("text", "")) for part in content if isinstance(part, Mapping)
        )
    if not isinstance(content, str) or not (keep_cut or content.strip()):
        raise ReplyError("empty")
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    cost = usage.get("cost")
    return Reply(
        content,
        _count(usage.get("prompt_tokens"), prompt_tokens),
        _count(usage.get("completion_tokens"), estimate_tokens(content)),
        float(cost) if isinstance(cost, (int, float)) else None,
        ended if ended in ("length", "content_filter") else "stop",
    )


def _count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise


def _status_error(status: int, headers: Mapping[str, str], body: Any) -> TransportError:
    code = body.get("code") or body.get("type") if isinstance(body, dict) else None
    # Only a short word: a message may quote the prompt or a part of the key.
    code = str(code) if isinstance(code, (str, int)) and str(code).isidentifier() else ""
    detail = f"HTTP {status} {code}".strip()
    if status in _FATAL or code == "insufficient_quota":
        reason = _FATAL.get(status, "the quota is used up")
        return TransportError("rejected", f"{detail}: {reason}", fatal=True, status=status)
    if status in _TRANSIENT or status >= 500:
        kind = "rate limit" if status == 429 else "server"
        wait = retry_after_seconds(headers)
        return TransportError(kind, detail, retry_after_seconds=wait, status=status)
    return TransportError("rejected", detail, retryable=False, status=status)


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
        except ValueError:
            return None
    return None


Chunk = tuple[str, str | None]
"""Text, and `stop` or `length` where the server says why it ends."""


def stream_reply(
    endpoint: Endpoint, request: ChatRequest, timeout_seconds: float
) -> Generator[Chunk, None, None]:
    """Ask once and yield the reply as it is written, for a person who waits for it.

    Unlike `ChatService` it stores nothing. Closing the iterator closes the connection, and the
    server stops writing. Redirects are not followed, and a local address is asked without a proxy.

    Args:
        timeout_seconds: from connecting to the last word.

    Raises:
        ServiceError: no reply, or it took too long; what had come has been yielded.
        MissingExtraError: the openai SDK is not installed.
    """
    openai = import_extra("openai", "A language-model service", "llm")
    body = request_body(request, with_schema=False, host=endpoint.host)
    deadline = time.monotonic() + timeout_seconds
    try:
        with (
            _client(openai.OpenAI, openai.DefaultHttpxClient, endpoint, timeout_seconds) as client,
            client.chat.completions.create(**body, stream=True) as chunks,
        ):
            for chunk in chunks:
                if time.monotonic() > deadline:
                    raise _failure(endpoint, f"it took longer than {timeout_seconds:g} s")
                # A chunk without choices counts tokens; servers send it at the end.
                for choice in (getattr(chunk, "choices", None) or [])[:1]:
                    ended = choice.finish_reason
                    yield str(choice.delta.content or ""), None if ended is None else str(ended)
    except openai.APITimeoutError as error:
        raise _failure(endpoint, f"it was silent for {timeout_seconds:g} s") from error
    except openai.APIStatusError as error:
        # The body may quote the question.
        raise _failure(endpoint, f"HTTP {error.status_code}") from None
    except openai.APIConnectionError as error:
        raise _failure(endpoint, "there is no connection") from error
    except openai.OpenAIError as error:
        raise _failure(endpoint, type(error).__name__) from None


def _client(kind: Any, http_kind: Any, endpoint: Endpoint, timeout_seconds: float) -> Any:
    """A client of the SDK that goes to this endpoint and nowhere else."""
    return kind(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key,
        timeout=timeout_seconds,
        max_retries=0,
        http_client=http_kind(
            follow_redirects=False,
            trust_env=not endpoint.is_local,
            # Reading the certificates costs 50 ms; plain http has none.
            verify=endpoint.base_url.startswith("https:"),
        ),
    )


def _failure(endpoint: Endpoint, why: str) -> ServiceError:
    return ServiceError(f"The model at {endpoint.host} gave no complete answer: {why}.")
