"""Files of the original and of LLaVA-Med -> records.

A list of `{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}`;
the key may be misspelt `conversatons`, and `conversations_long` or `conversatons_long` has the same
conversation with longer answers. The image placeholder is stripped: where a record has an image,
the chat template puts it back.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exgra_med.data.records import (
    IMAGE_PLACEHOLDER,
    Record,
    parse_record,
    read_json_list,
    read_records,
)
from exgra_med.errors import DataError

CONVERSATION_KEYS = ("conversations", "conversatons")
LONG_KEYS = ("conversations_long", "conversatons_long")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read_original(path: Path, found: Counter[str] | None = None) -> list[Record]:
    """Read a JSON file of the original or of LLaVA-Med; `found` as for `parse_items`.

    Raises:
        DataError: the file or one of its items cannot be understood; names the item.
    """
    return parse_items(read_json_list(path), str(path), Counter() if found is None else found)


def parse_items(items: Iterable[dict[str, Any]], where: str, found: Counter[str]) -> list[Record]:
    """Turn items into records; an id that comes again gets its row number behind a `#`.

    `found` receives how often each spelling of a key was met.

    PathVQA's files use the image as id of each of its questions, so repeated ids are no error;
    the published id stays in `meta["published_id"]`.

    Raises:
        DataError: an item cannot be understood.
    """
    records: list[Record] = []
    seen: set[str] = set()
    for number, item in enumerate(items):
        record = parse_item(item, number, where, found)
        if record.id in seen:
            record = record.model_copy(update={"id": f"{record.id}#{number}"})
        seen.add(record.id)
        records.append(record)
    return records


def parse_item(item: dict[str, Any], number: int, where: str, found: Counter[str]) -> Record:
    """Turn one item of the original's JSON into a record.

    Raises:
        DataError: there is no conversation, a role is unknown, or the long one does not fit.
    """
    published = item.get("id", item.get("question_id"))
    name = str(number if published is None else published)
    where = f"{where}: item {number} ({name!r})"
    messages = _only(item, CONVERSATION_KEYS, where, found)
    if messages is None:
        raise DataError(f"{where}: neither {' nor '.join(map(repr, CONVERSATION_KEYS))} is there.")
    long_messages = _only(item, LONG_KEYS, where, found)
    turns = _turns(messages, where)
    extended = None
    if long_messages is not None:
        long_turns = _turns(long_messages, f"{where}, long")
        extended = [turn["text"] for turn in long_turns if turn["role"] == "assistant"]
    meta = {"published_id": published} if published is not None else {}
    if isinstance(item.get("domain"), dict):
        meta["domain"] = item["domain"]
    given = item.get("answer_type")
    kind = None if given is None else str(given).strip().upper()
    if kind not in ("OPEN", "CLOSED", None):
        raise DataError(f"{where}: unknown answer_type {given!r}.", "Known are OPEN and CLOSED.")
    value = {"id": name, "image": item.get("image"), "turns": turns, "extended": extended}
    return parse_record(value | {"answer_type": kind, "meta": meta}, where)


def read_any(path: Path) -> list[Record]:
    """Records of a file, whether it is this project's JSON Lines or the original's JSON.

    Raises:
        DataError: the file is neither.
    """
    try:
        is_original = is_list(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return read_original(path) if is_original else read_records(path)


def is_list(path: Path) -> bool:
    """Whether a file begins as the original's JSON does."""
    with path.open("rb") as stream:
        return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def strip_placeholder(text: str) -> str:
    """Text without the image placeholder and without the blanks that held it apart."""
    parts = [part.strip() for part in text.split(IMAGE_PLACEHOLDER)]
    return " ".join(part for part in parts if part)


def _only(
    item: dict[str, Any], keys: tuple[str, ...], where: str, found: Counter[str]
) -> list[Any] | None:
    present = [key for key in keys if key in item]
    if len(present) > 1:
        raise DataError(f"{where}: both {present[0]!r} and {present[1]!r} are there.")
    if not present:
        return None
    found[present[0]] += 1
    value = item[present[0]]
    if not isinstance(value, list):
        raise DataError(f"{where}: {present[0]!r} is not a list.")
    if not value:
        raise DataError(f"{where}: {present[0]!r} has no turns.")
    return value


def _turns(messages: list[Any], where: str) -> list[dict[str, str]]:
    turns = []
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or "from" not in message or "value" not in message:
            raise DataError(f"{where}: message {position} lacks 'from' or 'value'.")
        role = ROLES.get(str(message["from"]).strip().lower())
        if role is None:
            raise DataError(f"{where}: message {position}: unknown role {message['from']!r}.")
        value = message["value"]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise DataError(f"{where}: message {position} is not text.")
        text = strip_placeholder(str(value))
        if not text:
            raise DataError(f"{where}: message {position} is empty.", "Drop it or give it text.")
        turns.append({"role": role, "text": text})
    return turns
