"""One answer to extend -> messages; a reply -> the extended answer, or why it is refused."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from exgra_med.data.records import IMAGE_PLACEHOLDER, Record, numbered_images
from exgra_med.data.talks import strip_placeholder
from exgra_med.llm.prompt import Prompt, object_with
from exgra_med.llm.request import ChatRequest, Message, ReplyError, Sampling

PROMPT = "extend-answer"
CHECKS = ("helpfulness", "relevance", "accuracy", "level_of_detail", "clarity")
_TEXT = {"type": "string"}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "explanation": {
            "type": "object",
            "properties": dict.fromkeys(CHECKS, _TEXT),
            "required": list(CHECKS),
            "additionalProperties": False,
        },
        "revision": _TEXT,
    },
    "required": ["explanation", "revision"],
    "additionalProperties": False,
}
"""What a reply looks like where the server knows structured output."""


def messages_for(prompt: Prompt, question: str, answer: str) -> list[Message]:
    """The two messages that ask for an extended answer; no image and no id is sent."""
    pair = json.dumps({"instruction": question, "answer": answer}, ensure_ascii=False)
    return [{"role": "system", "content": prompt.text}, {"role": "user", "content": pair}]


def pairs_of(record: Record) -> list[tuple[str, str]]:
    """Question and answer of each exchange of a record; images are named by their number."""
    pairs, shown = [], 1
    for question, answer in zip(record.turns[::2], record.turns[1::2], strict=True):
        pairs.append((numbered_images(question.text, shown), answer.text))
        shown += question.text.count(IMAGE_PLACEHOLDER)
    return pairs


def requests_of(
    records: Iterable[Record], prompt: Prompt, model: str, sampling: Sampling
) -> Iterator[tuple[str, ChatRequest]]:
    """Each answer of the records, with the request to extend it."""
    for record in records:
        for question, answer in pairs_of(record):
            messages = messages_for(prompt, question, answer)
            yield answer, ChatRequest(model, messages, sampling, SCHEMA)


def revision_of(text: str) -> str:
    """The extended answer in a reply.

    Raises:
        ReplyError: there is no JSON object with `revision`, or it is no text, or empty.
    """
    revision = object_with(text, "revision")["revision"]
    if not isinstance(revision, str):
        raise ReplyError(f"'revision' is a {type(revision).__name__}, not a text")
    revision = strip_placeholder(revision.replace("\0", ""))
    if not revision:
        raise ReplyError("'revision' is empty")
    try:
        revision.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReplyError("'revision' holds half a character") from error
    return revision
