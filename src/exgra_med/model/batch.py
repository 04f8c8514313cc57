"""Records to tensors: one example per record, one batch per micro-batch.

A `Batch` holds `ids` (names of the records); `calls`, a list of `Rows`, the first ones of which
hold the conversations; what else the model takes; `num_images`; `num_nodes` M, the records with an
image and texts to align, 0 where the stage does not align; `has_extended`, whether every node has
extended answers; and `node_of_image` [K], the node of every image vector, or -1. Segments 0..M-1
are answers, M..2M-1 extended answers.

The sequences of a batch are packed into rows, several in each, or padded to rows of their own. In
packed rows positions count from 0 in every sequence: without a mask and without a cache, that is
how the language model tells sequences apart.

Shapes: R rows of L tokens, N images in the batch, M nodes of its graphs.
"""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from accelerate.utils import send_to_device
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from exgra_med.data.chat_template import alignment_text
from exgra_med.data.conversation import choose_conversations, with_extended_answers
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.errors import CheckpointError, DataError
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import DataSettings, TextSettings
from exgra_med.terminal import Reporter, Silent

if TYPE_CHECKING:
    from exgra_med.model.feature_cache import FeatureCache

IGNORED = -100
"""Target of a position that the loss leaves out."""
FEATURES = "features"
"""What a stand-in of a picture carries the features of a frozen tower as."""
NUM_DECODED = 4
"""Records whose labels are decoded at the start of a stage."""
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


def dummy_call(calls: Sequence[Rows]) -> Rows:
    """A call of one token, which has no loss."""
    token = calls[0]["input_ids"][:1, :1]
    mask = calls[0]["attention_mask"]
    return {
        "input_ids": token,
        "position_ids": torch.zeros_like(token),
        "targets": torch.full_like(token, IGNORED),
        "segment": torch.full_like(token, NOT_POOLED),
        "attention_mask": None if mask is None else torch.ones_like(token),
    }


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
    """One record, read for a stage."""

    id: str
    conversations: list[Any]
    """From `Bundle.conversation`: one, or two where both kinds of answers are trained on."""
    has_image: bool
    answer_ids: list[int]
    """Text of the answers alone, where the stage aligns."""
    extended_ids: list[int]

    @property
    def is_node(self) -> bool:
        """Whether the record takes part in the graphs: it has an image and texts to align."""
        return self.has_image and bool(self.answer_ids)


@dataclass(frozen=True)
class Views:
    """The graphs of a micro-batch before the model has run: who is a node, and its texts."""

    nodes: list[int]
    """Numbers of the examples that are nodes, in their order."""
    texts: list[TokenSequence]
    """Answers, then extended answers; segments 0..M-1 and M..2M-1 for M nodes."""
    has_extended: bool
    """Whether every node has extended answers."""

    def node_of(self, example: int) -> int:
        """The node that an example is, or -1."""
        return self.nodes.index(example) if example in self.nodes else -1


def views_of(examples: Sequence[TrainingExample]) -> Views:
    """The nodes of a micro-batch and their texts."""
    nodes = [number for number, each in enumerate(examples) if each.is_node]
    has_extended = all(examples[n].extended_ids for n in nodes)
    texts = [TokenSequence(examples[n].answer_ids, segment=node) for node, n in enumerate(nodes)]
    texts += [
        TokenSequence(examples[n].extended_ids, segment=len(nodes) + node)
        for node, n in enumerate(nodes)
        if has_extended
    ]
    return Views(nodes, texts, has_extended)


def stand_in(size: tuple[int, int], features: Sequence[Tensor]) -> Image.Image:
    """A blank picture of a size, which carries the features of the picture it stands for."""
    blank = Image.new("RGB", size)
    blank.info[FEATURES] = list(features)
    return blank


def carried_features(images: Sequence[Image.Image]) -> list[Tensor] | None:
    """The features that pictures carry, joined along the rows; none where they are pictures."""
    own = [image.info[FEATURES] for image in images if FEATURES in image.info]
    return [torch.cat(parts) for parts in zip(*own, strict=True)] if own else None


def chosen_records(records: Sequence[Record], settings: DataSettings) -> Sequence[Record]:
    """The conversations of a split that a stage uses."""
    return choose_conversations(
        records,
        settings.questions_per_record,
        settings.fraction,
        settings.subset_seed,
        settings.subset_group,
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
    features: "FeatureCache | None" = None
    """Of the pictures, in their place, once they are kept; see `training.features`."""

    reporter: InitVar[Reporter | None] = None
    """Told how many records were looked at, where that takes a while: some models have to see the
    size of each picture."""

    def __post_init__(self, reporter: Reporter | None) -> None:
        needed = (self.with_alignment and self.with_extended) or self.answers != "original"
        reporter = reporter or Silent()
        reporter.start("measuring pictures", len(self.records), 0, "records", patient=True)
        try:
            for done, record in enumerate(self.records, start=1):
                self._check(record, needed)
                reporter.advance(done, "")
        finally:
            reporter.finish()

    def _check(self, record: Record, needed: bool) -> None:
        for name in record.images:
            self.images.locate(name, record.id)
        if needed and record.extended is None:
            raise DataError(
                f"Record {record.id!r} has no extended answers, which the stage needs.",
                "Generate them, or set the stage's `alignment` to null and `answers` to original.",
            )
        for each in conversations_of(record, self.answers):
            self.bundle.check_images_fit(each, self.images, self.text)

    def __len__(self) -> int:
        return len(self.records)

    def collate(self, examples: Sequence[TrainingExample]) -> Batch:
        """A micro-batch of examples of this data set."""
        return self.bundle.collate(examples, self.layout)

    def lengths(self) -> list[int]:
        """About how long each record is: characters of its texts, four for a visual token."""
        return [
            sum(len(turn.text) for turn in record.turns)
            + (sum(map(len, [*record.answers, *(record.extended or [])])) * self.with_alignment)
            + 4 * self.bundle.image_tokens(record, self.images)
            for record in self.records
        ]

    def __getitem__(self, index: int) -> TrainingExample:
        record = self.records[index]
        pictures = self.images if self.features is None else self.features
        images = [pictures.open(name, record.id) for name in record.images]
        conversations = [
            self.bundle.conversation(each, images, self.text, self.train_on_prompts)
            for each in conversations_of(record, self.answers)
        ]
        extended = (record.extended or []) if self.with_extended else []
        return TrainingExample(
            id=record.id,
            conversations=conversations,
            has_image=bool(images),
            answer_ids=self._text(record.answers) if self.with_alignment else [],
            extended_ids=self._text(extended) if self.with_alignment and extended else [],
        )

    def check_learnt(self) -> None:
        """Decode the labels of the first records, with an image and without: they have to be the
        answers and their ends.

        Raises:
            CheckpointError: they are not, as with a processor that rewrites texts.
        """
        if self.train_on_prompts:
            return
        decoded: dict[bool, list[int]] = {True: [], False: []}
        for number, each in enumerate(self.records):
            if len(of_kind := decoded[bool(each.images)]) < NUM_DECODED:
                of_kind.append(number)
        for number in decoded[True] + decoded[False]:
            record, example = self.records[number], self[number]
            for each, told in zip(
                conversations_of(record, self.answers), example.conversations, strict=True
            ):
                learnt, written = self.bundle.learnt(told, each, self.text)
                if not _letters(written).startswith(_letters(learnt)):
                    raise CheckpointError(
                        f"Of record {record.id!r} would be learnt {learnt[:80]!r}, and its "
                        f"answers with their ends are {written[:80]!r}: the tokenizer or processor "
                        "does not write texts as they are.",
                        "Start from another model; please report this one.",
                    )

    def _text(self, answers: Sequence[str]) -> list[int]:
        return self.bundle.text_ids(alignment_text(answers), self.text.max_length)


def _letters(text: str) -> str:
    """A text without its blanks, which some tokenizers do not keep."""
    return "".join(text.split())


def num_supervised(batch: Batch) -> int:
    """Tokens that the language-model loss of a batch counts."""
    return sum(int((rows["targets"] != IGNORED).sum()) for rows in batch["calls"])


def num_tokens(batch: Batch) -> int:
    """Positions that the language model computes for a batch, padding included."""
    return sum(rows["input_ids"].numel() for rows in batch["calls"])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return send_to_device(batch, device, non_blocking=True)  # type: ignore
