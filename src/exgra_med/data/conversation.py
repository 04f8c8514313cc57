"""Questions about one image joined into a conversation, the shape of the paper's stage-2 data."""

from collections.abc import Sequence

from exgra_med.data.records import Record
from exgra_med.data.subset import nested_subset


def choose_conversations(
    records: Sequence[Record],
    num_questions: int,
    fraction: float,
    seed: int,
    group: str | None = None,
) -> list[Record]:
    """A share of the conversations of a split, see `nested_subset`."""
    return nested_subset(join_by_image(records, num_questions), fraction, seed, group)


def join_by_image(records: Sequence[Record], num_questions: int) -> list[Record]:
    """Join records of the same image, in their order, into conversations.

    Args:
        records: each with one or more questions; those without an image, or with questions that
            place their images, stay alone.
        num_questions: most records in one conversation; 1 leaves everything as it is.

    Returns:
        Records named after the first one they hold, with the number of the others added. Extended
        answers are kept where every joined record has them; the answer type of a conversation of
        several questions is open to neither kind and left out. Of `meta` stays what they agree in.
    """
    groups: dict[str, list[Record]] = {}
    joined: list[list[Record]] = []
    for record in records:
        key = "\n".join(record.images)
        group = groups.get(key)
        alone = not record.images or record.places_images
        if alone or group is None or len(group) == num_questions:
            group = []
            joined.append(group)
            if not alone:
                groups[key] = group
        group.append(record)
    return [_join(group) for group in joined]


def with_extended_answers(record: Record) -> Record:
    """The record with its extended answers, which it must have, in place of its answers."""
    longer = iter(record.extended or [])
    turns = [
        turn.model_copy(update={"text": next(longer)}) if turn.role == "assistant" else turn
        for turn in record.turns
    ]
    return record.model_copy(update={"turns": turns})


def _join(group: list[Record]) -> Record:
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
        meta={
            key: value
            for key, value in first.meta.items()
            if all(key in record.meta and record.meta[key] == value for record in group)
        },
    )
