"""Extended answers without a language model: the answer, and what else is published of its picture.

    answer            "Left"
    a caption         "An X-ray of the chest; an effusion is marked at the lower left."
    other questions   "Is the heart enlarged? No."
    extended answer   all of them, one after the other

In a conversation nothing is said twice: a caption stands with one answer, and no question is added
that the conversation asks itself.

Only training records are read, so nothing of a test question gets into them.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from exgra_med.data.records import IMAGE_PLACEHOLDER, Record, open_prepared, write_records
from exgra_med.data.subset import seeded_key
from exgra_med.errors import DataError

Item = TypeVar("Item", str, tuple[str, str])


def compose_captions(
    data: str, captions: Sequence[str], out: Path, num_questions: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Write the training records of a prepared folder with extended answers, as `captions generate`
    does.

    Args:
        data: prepared folder.
        captions: prepared folders whose training answers describe pictures of the same names.
        out: JSON Lines of records.
        num_questions: most other questions of the same picture that are added to an answer.
        seed: which of them.

    Returns:
        `answers`, how many were extended; of these `with_caption` and `with_question`; and `bare`,
        of whose pictures nothing else is published, so that they stay as they are.

    Raises:
        DataError: nothing else is published of any picture of the training split.
        WriteError: the disk is full.
    """
    records = list(open_prepared(data).records("train"))
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in records:
        asked[record.image_group] += _questions(record)
    described: dict[str, list[str]] = defaultdict(list)
    folders = [open_prepared(folder) for folder in captions]
    for folder in folders:
        for record in folder.records("train"):
            described[record.image_group] += record.answers
    origin = {"composed_from": ["training questions", *(each.path.name for each in folders)]}
    counts = dict.fromkeys(("answers", "with_caption", "with_question", "bare"), 0)
    made = []
    for record in records:
        own = _questions(record)
        # Nothing is said twice in a conversation: a graph's node is the mean over all of its text.
        told = _shared_out(described[record.image_group], len(own), 1, seed, record.id)
        others = [each for each in asked[record.image_group] if each not in own]
        chosen = _shared_out(others, len(own), num_questions, seed, record.id)
        extended = []
        for (_, answer), caption, pairs in zip(own, told, chosen, strict=True):
            counts["answers"] += 1
            counts["with_caption"] += bool(caption)
            counts["with_question"] += bool(pairs)
            counts["bare"] += not caption and not pairs
            more = [*caption, *(f"{question} {other}" for question, other in pairs)]
            extended.append(" ".join(map(_ended, [answer, *more])) if more else answer)
        meta = record.meta | {"extended_by": origin}
        made.append(record.model_copy(update={"extended": extended, "meta": meta}))
    if counts["bare"] == counts["answers"]:
        raise DataError(
            f"{data}: nothing else is published of any picture of its training split.",
            "Give --captions a prepared folder about the same pictures.",
        )
    write_records(out, made, stands_alone=True)
    return {"out": str(out), **counts}


def _questions(record: Record) -> list[tuple[str, str]]:
    texts = [turn.text.replace(IMAGE_PLACEHOLDER, "").strip() for turn in record.turns]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _shared_out(
    items: Sequence[Item], num_shares: int, most: int, seed: int, key: str
) -> list[list[Item]]:
    """The different items, at most so many a share, each in one share; which of them and in what
    order depends on seed and key alone. As even as can be, the first shares before the last."""
    ranked = sorted(set(items), key=lambda item: seeded_key(seed, f"{key}:{item}"))
    return [ranked[share::num_shares][:most] for share in range(num_shares)]


def _ended(text: str) -> str:
    """The text with a full stop, where it ends in none."""
    return text if text.rstrip()[-1:] in tuple(".!?") else f"{text.rstrip()}."
