"""Prompts as files with a version, and the JSON object in a reply to them.

A prompt is `prompts/NAME.md`: a header between `---` lines, then the text.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from exgra_med.data.chat_template import answer_of
from exgra_med.llm.request import ReplyError
from exgra_med.reading import value_in

_FOLDER = Path(__file__).parent / "prompts"

MAX_CHARACTERS = 100_000
"""Longer replies are refused: no answer of ours needs them, and parsing is not linear."""
_MAX_STARTS = 50
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Prompt:
    """A prompt of the package.

    Args:
        version: raised whenever the text changes, since answers change with it.
    """

    name: str
    version: int
    text: str

    @property
    def label(self) -> str:
        """Name, version and the start of the text's hash: what a record says about its origin."""
        digest = hashlib.sha256(self.text.encode("utf-8")).hexdigest()
        return f"{self.name}/{self.version}-{digest[:12]}"


def load_prompt(name: str) -> Prompt:
    """A prompt that comes with the package."""
    _, header, text = (_FOLDER / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    return Prompt(name, yaml.safe_load(header)["version"], text.strip())


def object_with(text: str, key: str) -> dict[str, Any]:
    """The one JSON object of a reply that has `key`: bare, fenced, quoted, or with prose around.

    Args:
        text: the reply. Thoughts are no part of it (`answer_of`); a Python literal with single
            quotes is understood; a list is no object, even if it holds one.

    Raises:
        ReplyError: there is none, or there are several with different values.
    """
    if len(text) > MAX_CHARACTERS:
        raise ReplyError(f"longer than {MAX_CHARACTERS} characters")
    text = answer_of(text)
    if not text:
        raise ReplyError("empty")
    found = [value for value in _objects(text) if key in value]
    if not found:
        raise ReplyError(f"no JSON object with {key!r}")
    if any(value[key] != found[0][key] for value in found):
        raise ReplyError(f"several values of {key!r}")
    return found[0]


def reply_fault(kind: str, detail: str) -> Literal["empty", "cut", "unparsed", "failed"]:
    """What became of a reply of no use, by kind and detail of its `CompletionError`.

    It was empty (thoughts alone are), cut at the token limit, or held nothing that could be read;
    or none came.
    """
    if kind != "invalid reply":
        return "failed"
    if "length" in detail:
        return "cut"
    return "empty" if detail in ("empty", "thoughts and no answer") else "unparsed"


def faults_text(counts: Mapping[str, int]) -> str:
    """Counts by `reply_fault` as a clause.

    >>> faults_text({"empty": 1, "cut": 2})
    '1 empty, 2 cut at the token limit, 0 that could not be read, 0 without a reply'
    """
    return (
        f"{counts.get('empty', 0)} empty, {counts.get('cut', 0)} cut at the token limit, "
        f"{counts.get('unparsed', 0)} that could not be read, {counts.get('failed', 0)} without a "
        "reply"
    )


def _objects(text: str) -> Iterator[dict[str, Any]]:
    whole = value_in(text, (json.loads,))
    if isinstance(whole, str):
        # Some models answer with a JSON string that holds the JSON document.
        whole = value_in(whole.strip())
    if isinstance(whole, dict):
        yield whole
    elif whole is None:
        yield from _embedded(text)


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
