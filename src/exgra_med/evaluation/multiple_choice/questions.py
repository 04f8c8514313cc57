"""Multiple-choice questions: options, right option, and the text that asks for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exgra_med.data.chat_template import multiple_choice_question
from exgra_med.data.record import Record, Turn
from exgra_med.errors import DataError


@dataclass(frozen=True, slots=True)
class Choice:
    """One question with its options."""

    id: str
    options: tuple[str, ...]
    right: int
    """Place of the right option."""
    cluster: str
    """The image, which resampling draws."""
    meta: dict[str, Any]


def choice_of(record: Record) -> Choice:
    """The multiple-choice question of a record.

    Raises:
        DataError: the record has fewer than two options, or its answer is none of them.
    """
    options = tuple(str(option) for option in record.meta.get("options") or ())
    if len(options) < 2:
        raise DataError(
            f"Record {record.id!r} has {len(options)} options.",
            "Multiple choice needs a data set with `options`, such as OmniMedVQA.",
        )
    right = record.meta.get("answer_index")
    if right is None:
        plain = [_plain(option) for option in options]
        if _plain(record.answer) not in plain:
            raise DataError(f"Record {record.id!r}: the answer is none of the options.")
        right = plain.index(_plain(record.answer))
    cluster = "\n".join(record.images) or f"question {record.id}"
    return Choice(record.id, options, int(right), cluster, record.meta)


def asked_with_options(record: Record, rotation: int = 0) -> Record:
    """The record as it is asked: question and list of options in the original's words.

    Args:
        record: with `meta["options"]`.
        rotation: by how many places the options are moved round; goes into the id.
    """
    options = rotated(choice_of(record).options, rotation)
    question = Turn(role="user", text=multiple_choice_question(record.question, options))
    meta = {key: value for key, value in record.meta.items() if key != "options"}
    return record.model_copy(
        update={
            "id": rotated_id(record.id, rotation),
            "turns": [question, *record.turns[1:]],
            "meta": meta,
        }
    )


def rotated(options: Sequence[str], rotation: int) -> tuple[str, ...]:
    """Options moved round: the first `rotation` of them go to the end."""
    shift = rotation % len(options)
    return tuple(options[shift:]) + tuple(options[:shift])


def rotated_id(name: str, rotation: int) -> str:
    """The id of a question whose options are moved round."""
    return f"{name}@{rotation}" if rotation else name


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".").rstrip()
