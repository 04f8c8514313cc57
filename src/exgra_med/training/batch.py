"""Records to tensors: one example per record, one batch per micro-batch.

The sequences of a batch are packed into rows, several in each, or padded to rows of their own. In
packed rows positions count from 0 in every sequence: without a mask and without a cache, that is
how the language model tells sequences apart.

Shapes: R rows of L tokens, N images in the batch, M nodes of its graphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import Dataset

from exgra_med.data.chat_template import (
    Encoded,
    alignment_text,
    encode_conversation,
    encode_text,
    prompt_text,
)
from exgra_med.data.conversation import choose_conversations, with_extended_answers
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import IMAGE_PLACEHOLDER, Record
from exgra_med.errors import DataError, TrainingError
from exgra_med.model.bundle import Bundle, pixel_values
from exgra_med.recipe.schema import DataSettings, TextSettings

IGNORED = -100
"""Target of a position that the loss leaves out."""
NOT_POOLED = -1
"""Segment of a position that no text vector is the mean of."""
Batch = dict[str, Any]


class Rows(TypedDict):
    """Sequences laid out for one call of the language model, every tensor [R, L]."""

    input_ids: Tensor
    position_ids: Tensor
    """Counting from 0 in every sequence."""
    targets: Tensor
    """The id that the position has to predict, or `IGNORED`."""
    segment: Tensor
    """Which pooled text the position belongs to, or `NOT_POOLED`."""
    attention_mask: Tensor | None
    """None where sequences are packed."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence of token ids.

    `labels` are aligned with `ids`; the shift by one position happens here, so that no target
    leaks from one sequence into the next.
    """

    ids: list[int]
    labels: list[int] | None = None
    segment: int = NOT_POOLED

    @property
    def targets(self) -> list[int]:
        """The next id of every supervised position, none at the end."""
        if self.labels is None:
            return [IGNORED] * len(self.ids)
        return [*self.labels[1:], IGNORED]


def pack(
    sequences: Sequence[TokenSequence], tokens_per_row: int, padding_id: int
) -> tuple[Rows, list[int]]:
    """Pack sequences into as few rows as first-fit finds, longest first.

    What is left of a row becomes a sequence of padding of its own, which nothing reads. One
    sequence longer than `tokens_per_row` makes all rows as long as itself.

    Returns:
        The rows, and the numbers of the sequences in reading order.
    """
    length = max(tokens_per_row, *(len(sequence.ids) for sequence in sequences))
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(sequences)), key=lambda number: -len(sequences[number].ids)):
        size = len(sequences[number].ids)
        row = next((row for row, room in enumerate(left) if room >= size), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(length)
        rows[row].append(number)
        left[row] -= size
    longest = length - min(left)
    packed = []
    for row in rows:
        chosen = [sequences[number] for number in row]
        packed.append([*chosen, _padding(chosen, longest, padding_id)])
    return _tensors(packed, None), [number for row in rows for number in row]


def pad(sequences: Sequence[TokenSequence], padding_id: int, pool_padding: bool) -> Rows:
    """Give each sequence a row of its own, padded on the right and masked.

    `pool_padding` counts padding as part of the text when it is pooled, as the original does.
    """
    longest = max(len(sequence.ids) for sequence in sequences)
    rows = []
    for sequence in sequences:
        padding = _padding([sequence], longest, padding_id)
        segment = sequence.segment if pool_padding else NOT_POOLED
        rows.append([sequence, TokenSequence(padding.ids, segment=segment)])
    mask = [[1] * len(sequence.ids) + [0] * len(padding.ids) for sequence, padding in rows]
    padded = _tensors(rows, torch.tensor(mask))
    # Under a mask, positions run on through the padding, as they do in the original.
    padded["position_ids"] = torch.arange(longest).expand(len(rows), -1)
    return padded


def split_rows(rows: Rows, max_tokens: int | None) -> list[Rows]:
    """The same rows as several calls of at most `max_tokens`, with at least one row each."""
    count, length = rows["input_ids"].shape
    size = count if max_tokens is None else max(1, max_tokens // length)
    tensors: Any = rows.items()
    parts: Any = [
        {name: None if each is None else each[i : i + size] for name, each in tensors}
        for i in range(0, count, size)
    ]
    return parts


def _padding(row: Sequence[TokenSequence], length: int, padding_id: int) -> TokenSequence:
    return TokenSequence([padding_id] * (length - sum(len(sequence.ids) for sequence in row)))


def _tensors(rows: Sequence[Sequence[TokenSequence]], mask: Tensor | None) -> Rows:
    return {
        "input_ids": torch.tensor([[each for p in row for each in p.ids] for row in rows]),
        "position_ids": torch.tensor([[n for p in row for n in range(len(p.ids))] for row in rows]),
        "targets": torch.tensor([[each for p in row for each in p.targets] for row in rows]),
        "segment": torch.tensor([[p.segment for p in row for _ in p.ids] for row in rows]),
        "attention_mask": mask,
    }


@dataclass(frozen=True)
class Layout:
    """How the sequences of a batch are laid out for the language model.

    Packed: all sequences in one call, in rows of `tokens_per_row`. Padded: three calls, one
    sequence a row, as in the original, whose pooling counts the padding. Either way calls of more
    than `max_tokens_per_call` are split.
    """

    packed: bool = True
    tokens_per_row: int = 2048
    max_tokens_per_call: int | None = None


@dataclass(frozen=True)
class TrainingExample:
    """One record as token ids and pixels."""

    id: str
    input_ids: list[int]
    labels: list[int]
    pixels: Tensor | None
    """[images of the record, 3, H, W], or none for a text-only record."""
    answer_ids: list[int]
    """Text of the answers alone, where the stage aligns."""
    extended_ids: list[int]
    second: TokenSequence | None = None
    """The same conversation with its extended answers, where both are trained on."""

    @property
    def is_node(self) -> bool:
        """Whether the record takes part in the graphs: it has an image and texts to align."""
        return self.pixels is not None and bool(self.answer_ids)


def chosen_records(records: Sequence[Record], settings: DataSettings) -> list[Record]:
    """The conversations of a split that a stage uses."""
    return choose_conversations(
        records, settings.questions_per_record, settings.fraction, settings.subset_seed
    )


def conversations_of(record: Record, answers: str) -> list[Record]:
    """The conversations that a record gives, see `StageSettings.answers`."""
    if answers == "original":
        return [record]
    longer = with_extended_answers(record)
    return [longer] if answers == "extended" else [record, longer]


@dataclass(eq=False, repr=False)
class StageDataset(Dataset[TrainingExample]):
    """The records of a stage, tokenised and decoded when they are read.

    Raises:
        DataError: an image file is missing, the images of a record do not fit into `max_length`, or
            a record lacks the extended answers it needs.
    """

    records: Sequence[Record]
    images: ImageFolder
    bundle: Bundle
    text: TextSettings
    with_alignment: bool
    """Also encode answers and extended answers for the graphs."""
    layout: Layout
    with_extended: bool = True
    """Whether the graphs have extended answers."""
    answers: Literal["original", "extended", "both"] = "original"
    """Which answers are trained on, see `StageSettings`."""
    train_on_prompts: bool = False
    """Supervise every token of a conversation but those of its images."""

    def __post_init__(self) -> None:
        needed = (self.with_alignment and self.with_extended) or self.answers != "original"
        for record in self.records:
            for name in record.images:
                self.images.locate(name, record.id)
            if needed and record.extended is None:
                raise DataError(
                    f"Record {record.id!r} has no extended answers, which the stage needs.",
                    "Generate them, or set the stage's `alignment` to null and `answers` to "
                    "original.",
                )
            for each in conversations_of(record, self.answers):
                if self._may_lose_an_image(each):
                    self._encoded(each)

    def __len__(self) -> int:
        return len(self.records)

    def collate(self, examples: Sequence[TrainingExample]) -> Batch:
        """`collate` examples of this data set."""
        return collate(examples, self.bundle.pad_token_id, self.layout)

    def lengths(self) -> list[int]:
        """About how long each record is: characters of its texts, four for a visual token."""
        return [
            sum(len(turn.text) for turn in record.turns)
            + (sum(map(len, [*record.answers, *(record.extended or [])])) * self.with_alignment)
            + 4 * self.bundle.num_image_tokens * len(record.images)
            for record in self.records
        ]

    def __getitem__(self, index: int) -> TrainingExample:
        record = self.records[index]
        images = [self.images.open(name, record.id) for name in record.images]
        first, *second = map(self._conversation, conversations_of(record, self.answers))
        extended = (record.extended or []) if self.with_extended else []
        return TrainingExample(
            id=record.id,
            input_ids=first.ids,
            labels=first.labels or [],
            pixels=pixel_values(self.bundle, images) if images else None,
            answer_ids=self._text(record.answers) if self.with_alignment else [],
            extended_ids=self._text(extended) if self.with_alignment and extended else [],
            second=second[0] if second else None,
        )

    def _may_lose_an_image(self, record: Record) -> bool:
        """Whether the text before an image is so long that only its tokens can tell.

        A text has at most as many tokens as bytes, so hardly any has to be tokenised twice.
        """
        if not record.images:
            return False
        asked = [n for n, turn in enumerate(record.turns) if IMAGE_PLACEHOLDER in turn.text]
        turns, options = record.turns[: max(asked, default=0) + 1], record.meta.get("options")
        text = prompt_text(turns, self.text.template, len(record.images), options)
        visual = len(record.images) * self.bundle.num_image_tokens
        return len(text.encode()) + visual > self.text.max_length

    def _encoded(self, record: Record) -> Encoded:
        return encode_conversation(
            self.bundle.tokenizer,
            record,
            self.text.template,
            self.bundle.num_image_tokens,
            self.text.max_length,
        )

    def _conversation(self, record: Record) -> TokenSequence:
        encoded = self._encoded(record)
        if all(label == IGNORED for label in encoded.labels):
            raise TrainingError(
                f"Record {record.id!r} has nothing supervised in {self.text.max_length} tokens.",
                "Raise text.max_length, or leave the record out.",
            )
        labels = encoded.labels
        if self.train_on_prompts:
            bundle = self.bundle
            image = (bundle.image_token_id, bundle.image_start_id, bundle.image_end_id)
            labels = [IGNORED if token in image else token for token in encoded.input_ids]
        return TokenSequence(encoded.input_ids, labels)

    def _text(self, answers: Sequence[str]) -> list[int]:
        return encode_text(self.bundle.tokenizer, alignment_text(answers), self.text.max_length)


def collate(examples: Sequence[TrainingExample], padding_id: int, layout: Layout) -> Batch:
    """Put the examples of a micro-batch together.

    Returns:
        `ids` (names of the records); `calls`, a list of `Rows`, the first ones of which hold the
        conversations; `pixel_values` [N, 3, H, W] or none, in the reading order of the
        placeholders; `num_nodes` M, the records with an image and texts to align, 0 where the
        stage does not align; `has_extended`, whether every node has extended answers;
        `node_of_image` [N]. Segments 0..M-1 are answers, M..2M-1 extended answers.
    """
    nodes = [number for number, each in enumerate(examples) if each.is_node]
    conversations = [TokenSequence(each.input_ids, each.labels) for each in examples]
    seconds = {n: each.second for n, each in enumerate(examples) if each.second is not None}
    owner = [*range(len(examples)), *seconds]
    conversations += seconds.values()
    answers = [TokenSequence(examples[n].answer_ids, segment=node) for node, n in enumerate(nodes)]
    has_extended = all(examples[n].extended_ids for n in nodes)
    extended = [
        TokenSequence(examples[n].extended_ids, segment=len(nodes) + node)
        for node, n in enumerate(nodes)
        if has_extended
    ]
    if layout.packed:
        rows, order = pack(conversations + answers + extended, layout.tokens_per_row, padding_id)
        calls = [rows]
    else:
        groups = [group for group in (conversations, answers, extended) if group]
        calls = [pad(group, padding_id, pool_padding=True) for group in groups]
        order = range(len(conversations))
    images = [
        (owner[number], image)
        for number in order
        if number < len(conversations)
        if (pixels := examples[owner[number]].pixels) is not None
        for image in pixels
    ]
    node_of = {number: node for node, number in enumerate(nodes)}
    return {
        "ids": [example.id for example in examples],
        "calls": [part for call in calls for part in split_rows(call, layout.max_tokens_per_call)],
        "pixel_values": torch.stack([each for _, each in images]) if images else None,
        "num_nodes": len(nodes),
        "has_extended": has_extended,
        "node_of_image": torch.tensor([node_of.get(n, -1) for n, _ in images], dtype=torch.long),
    }


def num_supervised(batch: Batch) -> int:
    """Tokens that the language-model loss of a batch counts."""
    return sum(int((rows["targets"] != IGNORED).sum()) for rows in batch["calls"])


def num_tokens(batch: Batch) -> int:
    """Positions that the language model computes for a batch, padding included."""
    return sum(rows["input_ids"].numel() for rows in batch["calls"])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return send_to_device(batch, device, non_blocking=True)  # type: ignore
