"""Questions about one image joined into a conversation, the shape of the paper's stage-2 data."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from exgra_med.data.on_demand import OnDemand
from exgra_med.data.records import Record
from exgra_med.data.subset import nested_subset


def choose_conversations(
    records: Sequence[Record],
    num_questions: int,
    fraction: float,
    seed: int,
    group: str | None = None,
) -> Sequence[Record]:
    """A share of the conversations of a split, see `nested_subset`."""
    kept = [] if group is None else [group]
    return nested_subset(join_by_image(records, num_questions, kept), fraction, seed, group)


def join_by_image(
    records: Sequence[Record], num_questions: int, kept: Sequence[str] = ()
) -> Sequence[Record]:
    """Join records of the same image, in their order, into conversations.

    Args:
        records: each with one or more questions; those without an image, or with questions that
            place their images, stay alone.
        num_questions: most records in one conversation; 1 leaves everything as it is.
        kept: further fields of `meta` that a conversation has, those of its first record.

    Returns:
        Records named after the first one they hold, with the number of the others added. Extended
        answers are kept where every joined record has them; the answer type of a conversation of
        several questions is open to neither kind and left out. They are joined when they are read.
    """
    if num_questions == 1:
        return records
    groups: dict[str, array[int]] = {}
    joined: list[array[int]] = []
    for number, record in enumerate(records):
        key = "\n".join(record.images)
        group = groups.get(key)
        alone = not record.images or record.places_images
        if alone or group is None or len(group) == num_questions:
            group = array("q")
            joined.append(group)
            if not alone:
                groups[key] = group
        group.append(number)
    return _Conversations(records, joined, kept)


@dataclass(frozen=True, eq=False)
class _Conversations(OnDemand[Record]):
    """Records joined when they are read: about 100 bytes a conversation in memory."""

    records: Sequence[Record]
    joined: "list[array[int]]"
    """Numbers of the records of each."""
    kept: Sequence[str]

    def __len__(self) -> int:
        return len(self.joined)

    def _at(self, row: int) -> Record:
        return _join([self.records[each] for each in self.joined[row]], self.kept)


def with_extended_answers(record: Record) -> Record:
    """The record with its extended answers, which it must have, in place of its answers."""
    longer = iter(record.extended or [])
    turns = [
        turn.model_copy(update={"text": next(longer)}) if turn.role == "assistant" else turn
        for turn in record.turns
    ]
    return record.model_copy(update={"turns": turns})


_OF_PICTURES = ("organ", "modality", "split")


def _join(group: list[Record], kept: Sequence[str]) -> Record:
    if len(group) == 1:
        return group[0]
    first = group[0]
    extended = [text for record in group for text in record.extended or []]
    complete = all(record.extended is not None for record in group)
    return Record(
        id=f"{first.id}+{len(group) - 1}",
        image=first.image,
        turns=[turn for record in group for turn in record.turns],
        extended=extended if complete else None,
        # Others are about one question, such as the options it is asked with.
        meta={key: first.meta[key] for key in (*_OF_PICTURES, *kept) if key in first.meta},
    )
