"""Chat text -> token ids and labels.

The text of a conversation is tokenised once; labels follow from character offsets, so they cannot
drift. (The original tokenises header and messages separately and drifts by a token per message.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exgra_med.data.chat_template import (
    IMAGE_PATCH,
    Segment,
    conversation_segments,
    prompt_text,
    without_image_tokens,
)
from exgra_med.data.record import Record, Turn
from exgra_med.errors import DataError

IGNORE_INDEX = -100
"""Label of a position that is not learned from: torch's `ignore_index`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as token ids.

    `labels` equals `input_ids` where the text is supervised and is -100 elsewhere; both have the
    same length. `truncated` says that the end was cut off.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool

    @property
    def num_supervised(self) -> int:
        """Tokens that are learned from; zero makes a batch of this record useless."""
        return sum(label != IGNORE_INDEX for label in self.labels)


def encode_segments(
    tokenizer: Any, segments: Sequence[Segment], num_image_tokens: int
) -> tuple[list[int], list[int]]:
    """Tokenise the joined segments once.

    Args:
        tokenizer: a fast Hugging Face tokenizer that knows the image tokens.
        segments: text with single image placeholders.
        num_image_tokens: visual tokens of one image; each placeholder becomes so many.

    Returns:
        Ids (beginning-of-sequence token first) and labels.
    """
    text = "".join(segment.text for segment in segments)
    supervised: list[bool] = []
    for segment in segments:
        supervised += [segment.supervised] * len(segment.text)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    patch = tokenizer.convert_tokens_to_ids(IMAGE_PATCH)
    ids = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    labels = [IGNORE_INDEX] * len(ids)
    for token, (start, _) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        repeat = num_image_tokens if token == patch else 1
        ids += [token] * repeat
        labels += [token if supervised[start] else IGNORE_INDEX] * repeat
    return ids, labels


def encode_conversation(
    tokenizer: Any, record: Record, template: str, num_image_tokens: int, max_length: int
) -> Encoded:
    """The training sequence of a record; the answers and their end markers are supervised.

    Args:
        tokenizer: a fast Hugging Face tokenizer that knows the image tokens.
        record: what to encode.
        template: name of the chat template.
        num_image_tokens: visual tokens of one image.
        max_length: longest sequence in tokens; longer ones are cut at the end.

    Raises:
        DataError: the images of the record do not fit into `max_length` tokens.
    """
    ids, labels = encode_segments(
        tokenizer, conversation_segments(record, template), num_image_tokens
    )
    cut = ids[max_length:]
    if tokenizer.convert_tokens_to_ids(IMAGE_PATCH) in cut:
        raise DataError(
            f"Record {record.id!r}: question and image need more than {max_length} tokens.",
            "Raise `text.max_length` or shorten the question.",
        )
    return Encoded(ids[:max_length], labels[:max_length], truncated=bool(cut))


def encode_prompt(
    tokenizer: Any,
    turns: Sequence[Turn],
    template: str,
    num_image_tokens: int,
    num_images: int,
    options: Sequence[str] | None = None,
) -> list[int]:
    """The ids after which the model answers the last user turn.

    They are the beginning of `encode_conversation` of the same turns.

    Args:
        tokenizer: a fast Hugging Face tokenizer that knows the image tokens.
        turns: alternating turns, the first and the last by the user.
        template: name of the chat template.
        num_image_tokens: visual tokens of one image.
        num_images: images of the first user turn.
        options: the answers a closed question allows.
    """
    text = prompt_text(turns, template, num_images, options)
    return encode_segments(tokenizer, [Segment(text, False)], num_image_tokens)[0]


def alignment_text(answers: Sequence[str]) -> str:
    """All answers of a conversation as the one text that is pooled for alignment (original)."""
    return without_image_tokens(". ".join(answers).replace("\n", ""))


def encode_text(tokenizer: Any, text: str, max_length: int) -> list[int]:
    """A text alone, beginning-of-sequence token first, cut after `max_length` tokens."""
    return encode_segments(tokenizer, [Segment(text, False)], 0)[0][:max_length]
