"""The original's token ids and its drifting label mask, for comparison only.

The original tokenises header and messages one by one to learn their lengths, each with a
beginning-of-sequence token of its own, and so counts every message a token too long: the mask moves
by one token with each message. `exgra_med/data/encode.py` does it right.
"""

from collections.abc import Sequence
from typing import Any, Literal

from exgra_med.data.chat_template import (
    IGNORE_INDEX,
    IMAGE_END,
    IMAGE_PATCH,
    IMAGE_START,
    Encoded,
    chat_template,
)
from exgra_med.data.records import IMAGE_PLACEHOLDER

Layout = Literal["train", "validation"]
_SIGNAL = {"train": "### ", "validation": "###"}
_NAMES = {"human": "Human", "gpt": "Assistant"}


def original_pieces(
    messages: Sequence[tuple[str, str]], layout: Layout, image_block: str
) -> list[str]:
    """Header and messages as the original writes them; the last piece is the trailing signal.

    Args:
        messages: `(from, value)` of the original's files.
        layout: `train`, or `validation` for the items of its fine-tuning's evaluation.
        image_block: what `<image>` becomes.
    """
    signal = _SIGNAL[layout]
    header = chat_template(f"original-{layout}").opening.removesuffix("###")
    pieces = [header]
    for role, value in messages:
        text = value.replace(IMAGE_PLACEHOLDER, image_block)
        pieces.append(f"{signal}{_NAMES.get(role.lower(), 'unknown')}: {text}\n")
    return [*pieces, signal]


def encode_conversation_compat(
    tokenizer: Any,
    messages: Sequence[tuple[str, str]],
    num_image_tokens: int,
    max_length: int,
    layout: Layout = "train",
    with_start_end: bool = True,
) -> Encoded:
    """Ids and labels bit for bit as the original makes them, its drift included.

    Args:
        tokenizer: its beginning-of-sequence token is the checkpoint's (`</s>` where the original
            was started from a path with "llama" in it).
        messages: `(from, value)` of the original's files, `<image>` in the value.
        num_image_tokens: visual tokens of one image.
        max_length: every tokenised text is cut after so many tokens.
        layout: which of the original's two layouts.
        with_start_end: write `<im_start>` and `<im_end>` around an image.
    """
    block = IMAGE_PATCH * num_image_tokens
    if with_start_end:
        block = IMAGE_START + block + IMAGE_END
    pieces = original_pieces(messages, layout, block)

    def encode(text: str) -> list[int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [tokenizer.bos_token_id, *ids][:max_length]

    ids = encode("".join(pieces))
    labels = list(ids)
    position = len(encode(pieces[0]))
    labels[:position] = [IGNORE_INDEX] * min(position, len(labels))
    for (role, _), piece in zip(messages, pieces[1:], strict=False):
        length = len(encode(piece))
        if role == "human":
            for i in range(position + 2, min(position + length, len(labels))):
                labels[i] = IGNORE_INDEX
        position += length
    return Encoded(ids, labels, truncated=len(ids) == max_length)
