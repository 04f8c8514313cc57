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
Names = Mapping[str, str | None]
"""Our name of a parameter -> the service's name of it; None where it is left out."""
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
    names: Names = field(default_factory=dict, compare=False)
    """Of parameters at this service, where they are not ours."""

    @cached_property
    def key(self) -> str:
        """Content hash: model, every word of the messages (so the prompt too), sampling as sent.

        A parameter that is left out is not in it, so an answer that was drawn by chance never
        stands for a greedy one.
        """
        sampling = self.sampling.given()
        content = {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            "sampling": {
                name: value
                for name, value in sampling.items()
                if self.names.get(name, name) is not None
            },
        }
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def prompt_tokens(self) -> int:
        """Estimate of the prompt's tokens."""
        return sum(_content_tokens(message["content"]) + 4 for message in self.messages)

    @property
    def texts(self) -> list[str]:
        """What is asked: every text of the messages but the system's, which is ours."""
        contents = [each["content"] for each in self.messages if each["role"] != "system"]
        return [
            text
            for content in contents
            for text in ([content] if isinstance(content, str) else _texts(content))
        ]

    @property
    def has_images(self) -> bool:
        """Whether a message holds an image."""
        return any(
            part["type"] == "image_url"
            for message in self.messages
            if not isinstance(message["content"], str)
            for part in message["content"]
        )


@dataclass(frozen=True)
class Reply:
    """What a server sent: text, and what it says that cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None
    """US dollars where the server says so."""
    finish_reason: str = "stop"
    """`length` where the token limit ended it, `content_filter` where a filter did."""
    reasoning: str = ""
    """Thoughts that the service sent apart from the text."""


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


def _texts(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [part["text"] for part in parts if part["type"] == "text"]


def estimate_tokens(text: str) -> int:
    """Tokens of a text, without a tokenizer: four ASCII characters each, others one each."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 4) + len(text) - ascii_characters


def adapted_sentence(adapted: Names, model: str) -> str:
    """What a service did not take of the parameters, and what follows; empty where nothing."""
    said = [f"{ours} is called {theirs}" for ours, theirs in adapted.items() if theirs is not None]
    left_out = [ours for ours, theirs in adapted.items() if theirs is None]
    if left_out:
        by_chance = "temperature" in left_out
        so = ", so its answers may differ from call to call" if by_chance else ""
        said.append(f"{' and '.join(left_out)} had to be left out{so}")
    return f"{model} does not take every parameter: {'; '.join(said)}." if said else ""


class CompletionError(ServiceError):
    """One request failed for good; others may still succeed.

    Args:
        kind: what failed last: `invalid reply`, `rate limit`, `server`, `timeout`, `connection`,
            `content filter` or `rejected`.
        detail: one clause without any text of the data.
        hint: how to mend it, where that is known.
    """

    def __init__(self, kind: str, detail: str, attempts: int, hint: str = "") -> None:
        super().__init__(f"no answer after {attempts} attempts: {kind} ({detail}).", hint)
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
        detail: one clause without any text of the data.
        hint: how to mend it, where that is known.
        retryable: another try may succeed.
        fatal: no request of this run can succeed.
        names: of parameters, with which the same may be asked again.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        hint: str = "",
        retryable: bool = True,
        fatal: bool = False,
        retry_after_seconds: float | None = None,
        status: int | None = None,
        names: Names | None = None,
    ) -> None:
        super().__init__(f"{kind} ({detail})")
        self.hint = hint
        self.names = names
        self.kind = kind
        self.detail = detail
        self.retryable = retryable
        self.fatal = fatal
        self.retry_after_seconds = retry_after_seconds
        self.status = status
