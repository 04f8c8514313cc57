"""Extended answers without a language model: the answer, and what else is published of its picture.

    answer            "Left"
    a caption         "An X-ray of the chest; an effusion is marked at the lower left."
    other questions   "Is the heart enlarged? No."
    extended answer   all of them, one after the other

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
        num_questions: most other questions of the same picture that are added.
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
        extended = []
        for number, own in enumerate(_questions(record)):
            others = [each for each in asked[record.image_group] if each != own]
            key = f"{record.id}:{number}"
            caption = _drawn(described[record.image_group], 1, seed, key)
            chosen = _drawn(others, num_questions, seed, key)
            counts["answers"] += 1
            counts["with_caption"] += bool(caption)
            counts["with_question"] += bool(chosen)
            counts["bare"] += not caption and not chosen
            told = [own[1], *caption, *(f"{question} {answer}" for question, answer in chosen)]
            extended.append(" ".join(map(_ended, told)) if len(told) > 1 else own[1])
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


def _drawn(items: Sequence[Item], most: int, seed: int, key: str) -> list[Item]:
    """Some of the different items, in an order that depends on seed and key alone."""
    ranked = sorted(set(items), key=lambda item: seeded_key(seed, f"{key}:{item}"))
    return ranked[:most]


def _ended(text: str) -> str:
    """The text with a full stop, where it ends in none."""
    return text if text.rstrip()[-1:] in tuple(".!?") else f"{text.rstrip()}."
