"""JSON objects in a model's reply: bare, fenced, quoted as a string, or with prose around."""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from exgra_med.llm.failures import ReplyError

MAX_CHARACTERS = 100_000
"""Longer replies are refused: no answer of ours needs them, and parsing is not linear."""
_MAX_STARTS = 50
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_DECODER = json.JSONDecoder()


def object_with(text: str, key: str) -> dict[str, Any]:
    """The one JSON object of a reply that has `key`.

    Args:
        text: the reply. Thoughts in `<think>` are ignored; a Python literal with single quotes
            is understood; a list is no object, even if it holds one.
        key: what the object must have.

    Raises:
        ReplyError: there is none, or there are several with different values.
    """
    if len(text) > MAX_CHARACTERS:
        raise ReplyError(f"longer than {MAX_CHARACTERS} characters")
    text = _THOUGHT.sub("", text).strip()
    if not text:
        raise ReplyError("empty")
    found = [value for value in _objects(text) if key in value]
    if not found:
        raise ReplyError(f"no JSON object with {key!r}")
    if any(value[key] != found[0][key] for value in found):
        raise ReplyError(f"several values of {key!r}")
    return found[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    whole = _whole(text)
    if isinstance(whole, str):
        # Some models answer with a JSON string that holds the JSON document.
        inner = whole.strip()
        whole = _whole(inner)
        if whole is None:
            whole = _python_literal(inner)
    if whole is not None:
        if isinstance(whole, dict):
            yield whole
        return
    yield from _embedded(text)


def _whole(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _python_literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _embedded(text: str) -> Iterator[dict[str, Any]]:
    """Outermost objects between other text, left to right."""
    position = 0
    for _ in range(_MAX_STARTS):
        position = text.find("{", position)
        if position < 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        if isinstance(value, dict):
            yield value
        position = end
