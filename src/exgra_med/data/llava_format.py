"""Files of the original and of LLaVA-Med -> records.

A list of `{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}`;
the key may be misspelt `conversatons`, and `conversations_long` or `conversatons_long` has the same
conversation with longer answers. An image placeholder in front of the first question or behind it
is stripped: where a record has an image, the chat template puts it back.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exgra_med.data.records import Record, parse_record, read_json_list, read_records
from exgra_med.data.sources.values import plain_text
from exgra_med.data.talks import LONG_KEYS, place_images, read_talk
from exgra_med.errors import DataError

CONVERSATION_KEYS = ("conversations", "conversatons")


def read_original(
    path: Path, found: Counter[str] | None = None, texts_only: bool = False
) -> list[Record]:
    """Read a JSON file of the original or of LLaVA-Med; arguments as for `parse_items`.

    Raises:
        DataError: the file or one of its items cannot be understood; names the item.
    """
    found = Counter() if found is None else found
    return parse_items(read_json_list(path), str(path), found, texts_only)


def parse_items(
    items: Iterable[dict[str, Any]], where: str, found: Counter[str], texts_only: bool = False
) -> list[Record]:
    """Turn items into records; an id that comes again gets its row number behind a `#`.

    PathVQA's files use the image as id of each of its questions, so repeated ids are no error;
    the published id stays in `meta["published_id"]`.

    Args:
        found: receives how often each spelling of a key was met.
        texts_only: nothing but the texts are wanted, so that items with image placeholders need
            not name their images.

    Raises:
        DataError: an item cannot be understood.
    """
    records: list[Record] = []
    seen: set[str] = set()
    for number, item in enumerate(items):
        record = parse_item(item, number, where, found, texts_only)
        if record.id in seen:
            record = record.model_copy(update={"id": f"{record.id}#{number}"})
        seen.add(record.id)
        records.append(record)
    return records


def parse_item(
    item: dict[str, Any], number: int, where: str, found: Counter[str], texts_only: bool = False
) -> Record:
    """Turn one item of the original's JSON into a record; arguments as for `parse_items`.

    Raises:
        DataError: there is no conversation, a role is unknown, the long one does not fit, or image
            placeholders do not match the images.
    """
    published = item.get("id", item.get("question_id"))
    name = str(number if published is None else published)
    where = f"{where}: item {number} ({name!r})"
    images = item.get("image", item.get("images"))
    if isinstance(images, list) and len(images) < 2:
        images = images[0] if images else None
    num_images = len(images) if isinstance(images, list) else int(bool(images))
    known = None if texts_only else num_images
    turns, system = _turns(item, CONVERSATION_KEYS, known, where, found)
    if turns is None:
        raise DataError(f"{where}: neither {' nor '.join(map(repr, CONVERSATION_KEYS))} is there.")
    long_turns, _ = _turns(item, LONG_KEYS, known, where, found)
    extended = None
    if long_turns is not None:
        extended = [turn["text"] for turn in long_turns if turn["role"] == "assistant"]
    meta = {"published_id": published} if published is not None else {}
    if isinstance(item.get("domain"), dict):
        meta["domain"] = item["domain"]
    if system:
        meta["system"] = system
    given = item.get("answer_type")
    kind = None if given is None else str(given).strip().upper()
    if kind not in ("OPEN", "CLOSED", None):
        raise DataError(f"{where}: unknown answer_type {given!r}.", "Known are OPEN and CLOSED.")
    value = {"id": name, "image": images or None, "turns": turns, "extended": extended}
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


def _turns(
    item: dict[str, Any],
    keys: tuple[str, ...],
    num_images: int | None,
    where: str,
    found: Counter[str],
) -> tuple[list[dict[str, str]] | None, str]:
    """The turns under the one of some keys that is there, and their system prompt."""
    present = [key for key in keys if key in item]
    if len(present) > 1:
        raise DataError(f"{where}: both {present[0]!r} and {present[1]!r} are there.")
    if not present:
        return None, ""
    found[present[0]] += 1
    where += ", long" if present[0] in LONG_KEYS else ""
    talk = read_talk({"conversations": item[present[0]], "system": item.get("system")}, where)
    if talk is None:
        raise DataError(f"{where}: {present[0]!r} is null.")
    turns = []
    for position, message in enumerate(talk.messages):
        text = plain_text(message.text, f"{where}: message {position}")
        if not text:
            raise DataError(f"{where}: message {position} is empty.", "Drop it or give it text.")
        turns.append({"role": message.role, "text": text})
    return place_images(turns, num_images, where), talk.system
