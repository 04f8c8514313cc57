"""Conversations of any public shape -> turns of a record, and the places of its images.

Read are LLaVA and LLaMA-Factory's `sharegpt` (`conversations`, `from` / `value`), `messages` of
OpenAI and ms-swift (`role` / `content`, the content a text or a list of parts), ms-swift's pairs
(`conversation`, `human` / `assistant`), and one question with its history: `instruction`, `input`,
`output` (alpaca) or `query`, `response`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exgra_med.data.records import IMAGE_PLACEHOLDER
from exgra_med.data.sources.values import is_null, plain_text
from exgra_med.errors import DataError

MESSAGE_LISTS = ("conversations", "conversatons", "conversation", "messages")
"""Keys of a list of messages; LLaVA-Med's own files have the misspelt one too."""
LONG_KEYS = ("conversations_long", "conversatons_long")
"""The same conversation with longer answers, in the files of the original."""
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ROLES |= {"model": "assistant", "bot": "assistant", "chatgpt": "assistant", "system": "system"}
_ONE_QUESTION = (("instruction", "input", "output"), ("query", None, "response"))
"""Keys of the question, of what is added to it, and of the answer."""
_NOT_TRAINED_ON = {
    "videos": "videos", "video": "videos", "audios": "sound", "audio": "sound", "tools": "tools",
    "objects": "boxes", "chosen": "preferences", "rejected": "preferences",
    "rejected_response": "preferences",
}  # fmt: skip
TALK_KEYS = (
    *MESSAGE_LISTS, *LONG_KEYS, "instruction", "input", "output", "query", "response", "history",
    "system", *_NOT_TRAINED_ON,
)  # fmt: skip
"""Columns that `read_talk` has looked at; they are no further facts about a row."""

# How other tools spell the place of an image; none of them is ever prose.
_SPELLINGS = re.compile(
    r"<\|vision_start\|>\s*<\|image_pad\|>\s*<\|vision_end\|>"
    r"|<\|image(?:_pad)?\|>|<start_of_image>|<ImageHere>|<image>",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"<\|?image[ _]?(\d+)\|?>", re.IGNORECASE)
_PATH_INSIDE = re.compile(r"<img>.*?</img>", re.IGNORECASE | re.DOTALL)
_LEADING = re.compile(rf"\s*(?:{IMAGE_PLACEHOLDER}\s*)+")
_TRAILING = re.compile(rf"(?:\s*{IMAGE_PLACEHOLDER})+\s*$")


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says, and the images that its parts bring along."""

    role: str
    """`user` or `assistant`."""
    text: Any
    """As it stands in the file; a text or a number, None where there is none."""
    images: tuple[Any, ...] = ()
    """Paths, or bytes as text; None for "the next of the row's images"."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The messages of a row, and the system prompt that it brings."""

    messages: list[Message]
    system: str


def read_talk(row: Mapping[str, Any], where: str) -> Talk | None:
    """The conversation of a row; None for a row that is none of the shapes.

    Raises:
        DataError: two shapes at once, a message that cannot be understood, a role other than user,
            assistant or a first system message, or content that is no text and no image.
    """
    lists = [key for key in MESSAGE_LISTS if not is_null(row.get(key))]
    single = [keys for keys in _ONE_QUESTION if keys[0] in row and keys[2] in row]
    found = [*lists, *(keys[0] for keys in single)]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{where}: both {found[0]!r} and {found[1]!r} are there.")
    for key, what in _NOT_TRAINED_ON.items():
        if not is_null(row.get(key)) and row[key] not in ("", [], {}, "[]", "{}"):
            raise DataError(
                f"{where}: {key!r} is there, and {what} are not understood.",
                "Give texts and images alone.",
            )
    system = [plain_text(row.get("system"), f"{where}: 'system'")]
    if lists:
        messages = _messages(row[lists[0]], f"{where}: {lists[0]!r}", system)
    else:
        messages = _one_question(row, single[0], where)
    if len(messages) < 2:
        raise DataError(f"{where}: a conversation has at least a question and an answer.")
    return Talk(messages, "\n".join(text for text in system if text))


def _messages(value: Any, where: str, system: list[str]) -> list[Message]:
    if not isinstance(value, list):
        raise DataError(
            f"{where} is not a list.", "Write conversations as JSON, JSON Lines or parquet."
        )
    if not value:
        raise DataError(f"{where} has no turns.")
    messages: list[Message] = []
    for position, each in enumerate(value):
        here = f"{where}: message {position}"
        if not isinstance(each, dict):
            raise DataError(f"{here} is not an object.")
        said = [key for key in ("from", "role") if key in each]
        if not said and each and set(each) <= ROLES.keys() - {"system"}:
            # ms-swift's pairs: {"human": question, "assistant": answer}.
            pair = sorted(each.items(), key=lambda item: ROLES[item[0]] == "assistant")
            messages += [Message(ROLES[key], text) for key, text in pair]
            continue
        content = [key for key in ("value", "content") if key in each]
        if len(said) != 1 or len(content) != 1:
            raise DataError(
                f"{here} lacks 'from' or 'value'.",
                "A message has 'from' and 'value', or 'role' and 'content'.",
            )
        role = ROLES.get(str(each[said[0]]).strip().lower())
        if role is None:
            raise DataError(
                f"{here}: unknown role {each[said[0]]!r}.", "Known: user, assistant, system."
            )
        if each.get("tool_calls") or each.get("loss") is False or each.get("weight") == 0:
            raise DataError(
                f"{here} has tool calls, or an answer that is not to be learned.",
                "Every answer of a record is learned; leave the message out.",
            )
        text, images = _content(each[content[0]], here)
        if role == "system":
            if messages or images:
                raise DataError(f"{here}: a system message stands first and holds text alone.")
            system.append(plain_text(text, here))
        else:
            messages.append(Message(role, text, images))
    return messages


def _content(value: Any, where: str) -> tuple[Any, tuple[Any, ...]]:
    """The text of a message and its images; parts are joined, images at their places."""
    if not isinstance(value, list):
        if isinstance(value, (dict, bool)):
            raise DataError(f"{where} is not text.")
        return value, ()
    texts, images = [], []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str) or kind in ("text", "input_text"):
            texts.append(part if isinstance(part, str) else str(part.get("text") or ""))
        elif isinstance(part, dict) and kind in ("image", "image_url", "input_image"):
            names = ("image_url", "image", "url", "path", "image_path", "bytes")
            source = next((part[key] for key in names if part.get(key) is not None), None)
            if isinstance(source, dict) and "url" in source:
                source = source["url"]
            images.append(source)
            texts.append(IMAGE_PLACEHOLDER)
        else:
            raise DataError(f"{where}: a part is neither text nor an image ({kind!r}).")
    return "\n".join(texts), tuple(images)


def _one_question(
    row: Mapping[str, Any], keys: tuple[str, str | None, str], where: str
) -> list[Message]:
    question, added, answer = keys
    messages = []
    history = row.get("history")
    for pair in [] if is_null(history) else history or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError(f"{where}: 'history' is not a list of [question, answer].")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    text = row[question]
    more = plain_text(row.get(added), f"{where}: {added!r}") if added else ""
    if more:
        text = f"{plain_text(text, f'{where}: {question!r}')}\n{more}".strip()
    return [*messages, Message("user", text), Message("assistant", row[answer])]


def strip_placeholder(text: str) -> str:
    """Text without the image placeholder and without the blanks that held it apart."""
    parts = [part.strip() for part in text.split(IMAGE_PLACEHOLDER)]
    return " ".join(part for part in parts if part)


def place_images(
    turns: Sequence[dict[str, str]], num_images: int | None, where: str
) -> list[dict[str, str]]:
    """Bring the image placeholders of a record into their one form.

    Without a placeholder all images belong to the first question. So they do where all
    placeholders stand in front of it or right behind it, as LLaVA writes them: then they are
    removed. Anywhere else they stay, and an image stands where its placeholder does.

    Args:
        turns: `role` and `text`, other tools' spellings of the placeholder included.
        num_images: of the record; None where it is not known and not wanted.

    Raises:
        DataError: a placeholder in an answer, or not as many as there are images.
    """
    texts = [_spelled(turn["text"], where) for turn in turns]
    asked = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    counts = [text.count(IMAGE_PLACEHOLDER) for text in texts]
    for place in set(range(len(turns))) - set(asked):
        if counts[place]:
            raise DataError(
                f"{where}: the answer in turn {place} holds {IMAGE_PLACEHOLDER}.",
                "Images stand in questions alone.",
            )
    total = sum(counts)
    if total and num_images is not None and total != num_images:
        raise DataError(
            f"{where}: {_number(total, IMAGE_PLACEHOLDER)} for {_number(num_images, 'image')}.",
            f"Write {IMAGE_PLACEHOLDER} once for each image, or nowhere.",
        )
    if total and counts[asked[0]] == total:
        first = texts[asked[0]]
        for edge in (_LEADING.match(first), _TRAILING.search(first)):
            if edge and edge[0].count(IMAGE_PLACEHOLDER) == total:
                # A turn that is nothing but images keeps them: a turn has a text.
                rest = (first[: edge.start()] + first[edge.end() :]).strip()
                texts[asked[0]] = rest or first
                break
    return [{**turn, "text": text.strip()} for turn, text in zip(turns, texts, strict=True)]


def _spelled(text: str, where: str) -> str:
    if _PATH_INSIDE.search(text):
        raise DataError(
            f"{where}: an image is named inside the text (<img>...</img>).",
            f"Name it in 'images', and write {IMAGE_PLACEHOLDER} at its place.",
        )
    numbers = [int(number) for number in _NUMBERED.findall(text)]
    if numbers != list(range(1, len(numbers) + 1)):
        raise DataError(
            f"{where}: numbered images in another order than 1, 2, ... ({numbers}).",
            f"Write {IMAGE_PLACEHOLDER} for each, and list the images in the order of the text.",
        )
    return _SPELLINGS.sub(IMAGE_PLACEHOLDER, _NUMBERED.sub(IMAGE_PLACEHOLDER, text))


def _number(count: int, what: str) -> str:
    plural = "s" if count != 1 and what.isalpha() else ""
    return f"{count} {what}{plural}"
