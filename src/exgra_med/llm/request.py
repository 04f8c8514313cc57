"""One request to a language model: what is sent, what comes back, and what can go wrong."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from exgra_med.errors import ServiceError

Message = Mapping[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": text}`; with images, `content` is a list of
parts `{"type": "text" | "image_url", ...}`."""
IMAGE_TOKENS = 1000
"""Estimate of what a service counts for one image."""


@dataclass(frozen=True)
class Sampling:
    """How a model draws its answer; None leaves the choice to the server.

    Args:
        max_tokens: longest answer, in tokens; it bounds what one request can cost.
        temperature: 0 for the likeliest words.
        top_p: share of probability that is drawn from.
        seed: for servers that know it.
    """

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """The settings that were chosen, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class ChatRequest:
    """Everything that decides an answer, and the schema it should have."""

    model: str
    messages: Sequence[Message]
    sampling: Sampling = Sampling()
    schema: Mapping[str, Any] | None = field(default=None, compare=False)
    keep_cut: bool = field(default=False, compare=False)
    """Take a reply as it is, cut at the token limit, empty or a refusal; else these are errors."""

    @cached_property
    def key(self) -> str:
        """Content hash: model, every word of the messages (so the prompt too), sampling."""
        content = {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            "sampling": self.sampling.given(),
        }
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def prompt_tokens(self) -> int:
        """Estimate of the prompt's tokens."""
        return sum(_content_tokens(message["content"]) + 4 for message in self.messages)


@dataclass(frozen=True)
class Reply:
    """What a server sent: text, and what it says that cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None
    """US dollars where the server says so."""
    finish_reason: str = "stop"
    """`length` where the token limit ended it."""


class Transport(Protocol):
    """A way to a model: a server, or one in this process."""

    async def send(self, request: ChatRequest) -> Reply:
        """Ask once.

        Raises:
            TransportError: no reply came.
            ReplyError: a reply came that holds no text.
        """
        ...

    async def close(self) -> None:
        """Let go of connections or of the model."""


def _content_tokens(content: str | Sequence[Mapping[str, Any]]) -> int:
    if isinstance(content, str):
        return estimate_tokens(content)
    return sum(
        estimate_tokens(part["text"]) if part["type"] == "text" else IMAGE_TOKENS
        for part in content
    )


def estimate_tokens(text: str) -> int:
    """Tokens of a text, without a tokenizer: four ASCII characters each, others one each."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 4) + len(text) - ascii_characters


class CompletionError(ServiceError):
    """One request failed for good; others may still succeed.

    Args:
        kind: what failed last: `invalid reply`, `rate limit`, `server`, `timeout`, `connection` or
            `rejected`.
        detail: one clause without any text of the data.
    """

    def __init__(self, kind: str, detail: str, attempts: int) -> None:
        super().__init__(f"no answer after {attempts} attempts: {kind} ({detail}).")
        self.kind = kind
        self.detail = detail
        self.attempts = attempts


class StoppedError(ServiceError):
    """No further request makes sense: a key refused, a model unknown, a server gone."""


class BudgetError(StoppedError):
    """The next request could cost more than what is left of the budget."""


class ReplyError(Exception):
    """A reply that arrived whole but cannot be used; says why without quoting it."""


class TransportError(Exception):
    """One request did not bring a reply.

    Args:
        kind: see `CompletionError`.
        retryable: another try may succeed.
        fatal: no request of this run can succeed.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        retryable: bool = True,
        fatal: bool = False,
        retry_after_seconds: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{kind} ({detail})")
        self.kind = kind
        self.detail = detail
        self.retryable = retryable
        self.fatal = fatal
        self.retry_after_seconds = retry_after_seconds
        self.status = status
