"""A reply of an OpenAI-compatible server, word by word, for a person who waits for it.

Unlike `ChatService` it asks once, stores nothing and can be left at any moment: closing the
iterator closes the connection, and the server stops writing.
"""

import time
from collections.abc import Generator, Iterator
from typing import Any

from exgra_med.errors import MissingExtraError, ServiceError
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.openai_transport import request_body
from exgra_med.llm.request import ChatRequest

Chunk = tuple[str, str | None]
"""Text, and `stop` or `length` where the server says why it ends."""


def stream_reply(
    endpoint: Endpoint, request: ChatRequest, timeout_seconds: float
) -> Generator[Chunk, None, None]:
    """Ask once; redirects are not followed, and a local address is asked without a proxy.

    Args:
        endpoint: address and key.
        request: what to ask.
        timeout_seconds: from connecting to the last word.

    Raises:
        ServiceError: no reply, or it took too long; what had come has been yielded.
        MissingExtraError: the openai SDK is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError("A language-model service", "llm") from error
    body = request_body(request, with_schema=False, host=endpoint.host)
    deadline = time.monotonic() + timeout_seconds
    try:
        with (
            _client(openai, endpoint, timeout_seconds) as client,
            client.chat.completions.create(**body, stream=True) as chunks,
        ):
            for chunk in chunks:
                if time.monotonic() > deadline:
                    raise _failure(endpoint, f"it took longer than {timeout_seconds:g} s")
                yield from _chunks(chunk)
    except openai.APITimeoutError as error:
        raise _failure(endpoint, f"it was silent for {timeout_seconds:g} s") from error
    except openai.APIStatusError as error:
        # The body may quote the question.
        raise _failure(endpoint, f"HTTP {error.status_code}") from None
    except openai.APIConnectionError as error:
        raise _failure(endpoint, "there is no connection") from error
    except openai.OpenAIError as error:
        raise _failure(endpoint, type(error).__name__) from None


def _client(openai: Any, endpoint: Endpoint, timeout_seconds: float) -> Any:
    return openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key,
        timeout=timeout_seconds,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(
            follow_redirects=False, trust_env=not endpoint.is_local
        ),
    )


def _chunks(chunk: Any) -> Iterator[Chunk]:
    # A chunk without choices counts tokens; servers send it at the end.
    for choice in (getattr(chunk, "choices", None) or [])[:1]:
        ended = choice.finish_reason
        yield str(choice.delta.content or ""), None if ended is None else str(ended)


def _failure(endpoint: Endpoint, why: str) -> ServiceError:
    return ServiceError(f"The model at {endpoint.host} gave no whole answer: {why}.")
