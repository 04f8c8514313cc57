"""Records to tensors: one example per record, one batch per forward pass.

Shapes: B records, T tokens of the longest conversation, N images in the batch, A and X tokens of
the longest answer and extended answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from exgra_med.data.encode import alignment_text, encode_conversation, encode_text
from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.errors import DataError, TrainingError
from exgra_med.model.bundle import Bundle, pixel_values
from exgra_med.recipe.schema import TextSettings

IGNORED = -100
Batch = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One record as token ids and pixels."""

    id: str
    input_ids: list[int]
    labels: list[int]
    pixels: Tensor | None
    """[images of the record, 3, H, W], or none for a text-only record."""
    answer_ids: list[int]
    extended_ids: list[int]


class StageDataset(Dataset[Example]):
    """The records of a stage, decoded when they are asked for.

    Args:
        records: what to learn from.
        images: where their images lie.
        bundle: tokenizer and image processor.
        text: template and length.
        with_alignment: also encode answers and extended answers.

    Raises:
        DataError: an image file is missing, or a record lacks the extended answers it needs.
    """

    def __init__(
        self,
        records: Sequence[Record],
        images: ImageFolder,
        bundle: Bundle,
        text: TextSettings,
        with_alignment: bool,
    ) -> None:
        self.records = records
        self.images = images
        self.bundle = bundle
        self.text = text
        self.with_alignment = with_alignment
        for record in records:
            for name in record.images:
                images.locate(name, record.id)
            if with_alignment and record.extended is None:
                raise DataError(
                    f"Record {record.id!r} has no extended answers, which alignment needs.",
                    "Generate them, or set the stage's `alignment` to null.",
                )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        encoded = encode_conversation(
            self.bundle.tokenizer,
            record,
            self.text.template,
            self.bundle.num_image_tokens,
            self.text.max_length,
        )
        if all(label == IGNORED for label in encoded.labels):
            raise TrainingError(
                f"Record {record.id!r} has nothing supervised in {self.text.max_length} tokens.",
                "Raise text.max_length, or leave the record out.",
            )
        images = [self.images.open(name, record.id) for name in record.images]
        extended = record.extended if self.with_alignment else None
        tokenizer, longest = self.bundle.tokenizer, self.text.max_length
        return Example(
            id=record.id,
            input_ids=encoded.input_ids,
            labels=encoded.labels,
            pixels=pixel_values(self.bundle, images) if images else None,
            answer_ids=encode_text(tokenizer, alignment_text(record.answers), longest)
            if extended
            else [],
            extended_ids=encode_text(tokenizer, alignment_text(extended), longest)
            if extended
            else [],
        )


def collate(examples: Sequence[Example], padding_id: int) -> Batch:
    """Put examples together, padded on the right.

    Returns:
        `ids` (B names), `input_ids` [B, T], `labels` [B, T], `attention_mask` [B, T],
        `pixel_values` [N, 3, H, W] or none, `sample_of_image` [N]; and, where every example has
        them, `answer_ids` [B, A], `answer_mask` [B, A], `extended_ids` [B, X],
        `extended_mask` [B, X]. Masks are 1 on real tokens.
    """
    pixels = [example.pixels for example in examples]
    counts = [0 if each is None else len(each) for each in pixels]
    present = [each for each in pixels if each is not None]
    input_ids, attention_mask = _pad([example.input_ids for example in examples], padding_id)
    labels, _ = _pad([example.labels for example in examples], IGNORED)
    batch: Batch = {
        "ids": [example.id for example in examples],
        "input_ids": input_ids,
        "labels": labels,
        "attention_mask": attention_mask,
        "pixel_values": torch.cat(present) if present else None,
        "sample_of_image": torch.arange(len(examples)).repeat_interleave(torch.tensor(counts)),
    }
    if all(example.extended_ids for example in examples):
        batch["answer_ids"], batch["answer_mask"] = _pad(
            [example.answer_ids for example in examples], padding_id
        )
        batch["extended_ids"], batch["extended_mask"] = _pad(
            [example.extended_ids for example in examples], padding_id
        )
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def _pad(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    padded = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    return padded, mask
