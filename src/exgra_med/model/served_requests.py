"""A request of a chat client, read: what is asked, or a sentence that says why it cannot be.

The form is OpenAI's chat completions. What would change an answer and is not done here is refused,
never left out in silence; a field that has its neutral value, as many clients send it, is taken.
Pictures are base64 in the request and decoded as everywhere else; an address or a path that a
client names is never opened.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from exgra_med.data.chat_template import without_image_tokens
from exgra_med.data.images import decode_image
from exgra_med.data.records import IMAGE_PLACEHOLDER, Turn
from exgra_med.errors import ExgraMedError

MAX_BODY_BYTES = 64 * 2**20
"""Of a request: sixteen pictures of 3 MB, which base64 makes a third longer."""
MAX_PIXELS = 64_000_000
"""Of all pictures of a request, refused before they are decoded: 192 MB as RGB."""
MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 1000
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_SYSTEM = ("system", "developer")
_ROLES = (*_SYSTEM, "user", "assistant")
_NUMBERS: Mapping[str, tuple[int, int, type]] = {
    "max_tokens": (1, 1_000_000, int),
    "max_completion_tokens": (1, 1_000_000, int),
    "temperature": (0, 2, float),
    "top_p": (0, 1, float),
    "seed": (-(2**63), 2**63 - 1, int),
}
"""The least, the most and the kind of a number."""
_READ = {*_NUMBERS, "model", "messages", "stream", "stream_options", "stop", "n"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
"""What is not done here, with the values that ask for nothing."""
_WITHOUT_EFFECT = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
}
"""What is about the client or its bill, and changes no answer."""


class RefusedError(Exception):
    """A request that cannot be answered: a status of HTTP, and why."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def body(self) -> dict[str, Any]:
        """The error as the protocol writes it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        code = "model_not_found" if self.param == "model" else None
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": code}}


@dataclass(frozen=True)
class ChatQuestion:
    """A conversation that waits for its next answer, and how that is wanted."""

    turns: Sequence[Turn]
    """Alternating; the first and the last are the user's. Pictures stand as `<image>`."""
    images: Sequence[Image.Image]
    """In reading order."""
    system: str = ""
    """What system messages say."""
    max_tokens: int | None = None
    """None: as long as answers are by default."""
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stops: Sequence[str] = ()
    """The answer ends before the first of these."""
    streams: bool = False
    with_usage: bool = False
    """Of a stream: the last event counts the tokens."""


def read_question(content: bytes, name: str, pictures_behind: bool) -> ChatQuestion:
    """Read the body of a request to the model of a name.

    Args:
        pictures_behind: pictures that come before the text of a message are put behind it, as the
            model saw them in training; a text that begins with a line break keeps them in front.

    Raises:
        RefusedError: it cannot be answered.
    """
    body = _object(content)
    require_known(body.get("model"), name)
    _check_fields(body)
    numbers = {field: _number(body, field, *bounds) for field, bounds in _NUMBERS.items()}
    if numbers["top_p"] == 0:
        raise RefusedError(400, "top_p is above 0.", "top_p")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RefusedError(400, "stream_options is an object.", "stream_options")
    for field, value in (("stream", body.get("stream")), ("stream_options", _usage_of(options))):
        if not isinstance(value, bool | None):
            raise RefusedError(400, f"{field} is given as true or false.", field)
    stops = _stops(body.get("stop"))
    turns, images, system = _conversation(body.get("messages"), pictures_behind)
    return ChatQuestion(
        turns,
        images,
        system,
        max_tokens=numbers["max_completion_tokens"] or numbers["max_tokens"],
        temperature=float(numbers["temperature"] or 0),
        top_p=numbers["top_p"],
        seed=numbers["seed"],
        stops=stops,
        streams=bool(body.get("stream")),
        with_usage=bool(_usage_of(options)),
    )


def require_known(model: Any, name: str) -> None:
    """Refuse a model that is not the one that is served; one need not be named.

    Raises:
        RefusedError: another one is named.
    """
    if model not in (None, name):
        raise RefusedError(404, f"The model here is {name!r}.", "model")


def _object(content: bytes) -> dict[str, Any]:
    value = None
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
    if not isinstance(value, dict):
        raise RefusedError(400, "The request is no JSON object.")
    return value


def _check_fields(body: dict[str, Any]) -> None:
    if body.get("n") not in (None, 1) or isinstance(body.get("n"), bool):
        raise RefusedError(400, "n is 1: one answer for a request, so ask again for more.", "n")
    for field, value in body.items():
        if value is None or field in _READ or field in _WITHOUT_EFFECT:
            continue
        shown = field if len(field) <= 40 else f"{field[:40]}..."
        if field not in _NEUTRAL:
            raise RefusedError(400, f"Unknown field {shown!r}; leave it out.", field[:100])
        if value not in _NEUTRAL[field]:
            raise RefusedError(400, f"{shown} is not supported here; leave it out.", field)


def _number(body: dict[str, Any], name: str, least: int, most: int, kind: type) -> Any:
    value = body.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int if kind is int else int | float)
    if not is_number or isinstance(value, bool) or not least <= value <= most:
        word = "a whole number" if kind is int else "a number"
        raise RefusedError(400, f"{name} is {word} from {least} to {most}.", name)
    return value


def _usage_of(options: dict[str, Any]) -> Any:
    return options.get("include_usage")


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    is_list = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not is_list or not all(
        isinstance(each, str) and len(each) <= _MAX_STOP_CHARACTERS for each in stops
    ):
        raise RefusedError(
            400,
            f"stop is a text or a list of up to {MAX_STOPS}, of {_MAX_STOP_CHARACTERS} characters "
            "at most.",
            "stop",
        )
    # Clients with an empty field for it send an empty text.
    return [each for each in stops if each]


def _conversation(value: Any, pictures_behind: bool) -> tuple[list[Turn], list[Image.Image], str]:
    if not isinstance(value, list) or not value:
        raise RefusedError(400, "messages is a list with a message or more.", "messages")
    images: list[Image.Image] = []
    system: list[str] = []
    said: list[tuple[str, str]] = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise RefusedError(400, f"A message has a role: {', '.join(_ROLES)}.", "messages")
        before = len(images)
        text = _text(message.get("content"), images, pictures_behind)
        if role != "user" and len(images) > before:
            raise RefusedError(400, "Only a message of the user has pictures.", "messages")
        if role in _SYSTEM:
            system.append(text)
        elif said and said[-1][0] == role:
            # Turns alternate; two messages of one role in a row are one turn.
            said[-1] = (role, f"{said[-1][1]}\n{text}")
        else:
            said.append((role, text))
    if not said or said[0][0] != "user" or said[-1][0] != "user":
        raise RefusedError(400, "A conversation begins and ends with the user.", "messages")
    # An answer without a word is left as the shortest one, so that the conversation can go on.
    turns = [Turn(role=role, text=text.strip() or "-") for role, text in said]  # pyrefly: ignore
    if not said[-1][1].strip() and not images:
        raise RefusedError(400, "The question is empty.", "messages")
    return turns, images, "\n".join(filter(None, system))


def _text(content: Any, images: list[Image.Image], pictures_behind: bool) -> str:
    """The text of a message with its pictures as `<image>`; they are added to `images`."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(parts, list):
        raise RefusedError(400, "The content of a message is a text or a list.", "messages")
    in_front, said, is_behind_text = "", "", False
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            said += "\n" * is_behind_text + without_image_tokens(part["text"])
            is_behind_text = True
        elif kind == "image_url":
            images.append(_picture(part.get("image_url"), images))
            is_behind_text = False
            if said:
                said += IMAGE_PLACEHOLDER
            else:
                in_front += IMAGE_PLACEHOLDER
        else:
            raise RefusedError(400, "A part of a message is a text or an image_url.", "messages")
    is_moved = pictures_behind and IMAGE_PLACEHOLDER not in said and not said.startswith("\n")
    return said + in_front if is_moved else in_front + said


def _picture(value: Any, before: Sequence[Image.Image]) -> Image.Image:
    url = value.get("url") if isinstance(value, dict) else value
    url = url if isinstance(url, str) else ""
    found = _DATA_URL.match(url)
    if found is None:
        raise RefusedError(
            400,
            "Pictures are not fetched: send them as data:image/png;base64,... in the request.",
            "messages",
        )
    pixels = sum(image.width * image.height for image in before)
    try:
        content = base64.b64decode(url[found.end() :], validate=True)
        return decode_image(BytesIO(content), MAX_PIXELS - pixels, "picture")
    except ExgraMedError as error:
        raise RefusedError(400, str(error), "messages") from None
    except ValueError:
        raise RefusedError(400, "The picture is no base64.", "messages") from None
