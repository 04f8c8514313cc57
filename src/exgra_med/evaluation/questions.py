"""The reference side of a score: questions with their answers, and what was odd about the file.

Scoring is more lenient than training: an empty or numeric reference, or a type such as "CLOSED ",
is counted and reported here instead of refused, because a published file cannot be mended by the
person who scores it.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exgra_med.data.json_files import decode_json, iterate_lines, read_json_list, read_text
from exgra_med.data.llava_format import CONVERSATION_KEYS, strip_placeholder
from exgra_med.data.record import Record, parse_record
from exgra_med.errors import DataError

# The three types of PathVQA beside the two of VQA-RAD and SLAKE.
_TYPES: dict[str, Literal["OPEN", "CLOSED"]] = {
    "OPEN": "OPEN",
    "CLOSED": "CLOSED",
    "YES/NO": "CLOSED",
    "OTHER": "OPEN",
    "NUMBER": "OPEN",
}
_YES_NO = {"yes", "no", "是", "不是"}


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its reference answer, free of everything a model needs."""

    id: str
    text: str
    answer: str
    answer_type: Literal["OPEN", "CLOSED"]
    images: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    type_had_blanks: bool = False
    """Whether the file said "CLOSED " for CLOSED; the published scripts skip such a question."""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What resampling draws: the images; a question without an image stands alone."""
        return "\n".join(self.images) or f"question {self.id}"


@dataclass(frozen=True, slots=True)
class Reference:
    """The questions of a file and how often something in it was out of order."""

    questions: list[Question]
    oddities: Counter[str]


def read_reference(path: Path) -> Reference:
    """Read records of this project (JSON Lines) or a JSON file of the original.

    Raises:
        DataError: the file is neither, or an item has no question and answer; names the item.
    """
    oddities: Counter[str] = Counter()
    if read_text(path).lstrip().startswith("["):
        questions = [
            _original_question(item, f"{path}: item {number}", oddities)
            for number, item in enumerate(read_json_list(path))
        ]
    else:
        questions = [
            question_of(parse_record(decode_json(text, where), where), oddities)
            for where, text in iterate_lines(path)
        ]
    return Reference(questions, oddities)


def question_of(record: Record, oddities: Counter[str] | None = None) -> Question:
    """The question of a record; a record without a type gets one by its answer.

    Args:
        record: one VQA record; its first question and answer count.
        oddities: receives what was out of order.
    """
    oddities = Counter() if oddities is None else oddities
    answer_type = record.answer_type
    if answer_type is None:
        answer_type = _guess_type(record.answer, oddities)
    if len(record.answers) > 1:
        oddities["only_first_turn_scored"] += 1
    options = record.meta.get("options") or ()
    return Question(
        id=record.id,
        text=record.question,
        answer=record.answer,
        answer_type=answer_type,
        images=tuple(record.images),
        options=tuple(str(option) for option in options),
        meta=record.meta,
    )


def as_questions(items: Iterable[Record | Question], oddities: Counter[str]) -> list[Question]:
    """Questions of records; questions pass."""
    return [item if isinstance(item, Question) else question_of(item, oddities) for item in items]


def read_candidates(path: Path) -> list[str | int]:
    """Known open answers: the original's `{"0": [...]}`, a JSON list, or records to train on.

    Raises:
        DataError: the file is none of these.
    """
    try:
        value = json.loads(read_text(path))
    except ValueError:
        value = None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return value
    questions = read_reference(path).questions
    return sorted({each.answer for each in questions if each.answer_type == "OPEN"})


def _original_question(item: Any, where: str, oddities: Counter[str]) -> Question:
    if not isinstance(item, dict) or "id" not in item:
        raise DataError(
            f"{where}: not an object with an id.", "Give records or the original's JSON."
        )
    talk = next((item[key] for key in CONVERSATION_KEYS if key in item), None)
    if not isinstance(talk, list) or len(talk) < 2:
        raise DataError(f"{where} (id {item['id']!r}): no question with an answer.")
    if len(talk) > 2:
        oddities["only_first_turn_scored"] += 1
    question, answer = (_text(turn, where, oddities) for turn in talk[:2])
    if not answer.strip():
        oddities["empty_reference"] += 1
    image = item.get("image")
    raw_type = item.get("answer_type")
    type_had_blanks = raw_type is not None and str(raw_type) != str(raw_type).strip()
    oddities["answer_type_with_blanks"] += type_had_blanks
    return Question(
        id=str(item["id"]),
        text=strip_placeholder(question),
        answer=answer,
        answer_type=_original_type(raw_type, answer, where, oddities),
        images=tuple(image) if isinstance(image, list) else (image,) if image else (),
        type_had_blanks=type_had_blanks,
        meta={
            key: item[key] for key in ("modality", "image_organ", "question_type") if key in item
        },
    )


def _text(turn: Any, where: str, oddities: Counter[str]) -> str:
    value = turn.get("value") if isinstance(turn, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: a turn has no text.")
    if not isinstance(value, str):
        oddities["reference_not_text"] += 1
    return str(value)


def _original_type(
    value: Any, answer: str, where: str, oddities: Counter[str]
) -> Literal["OPEN", "CLOSED"]:
    if value is None:
        return _guess_type(answer, oddities)
    cleaned = str(value).strip().upper()
    if cleaned not in _TYPES:
        raise DataError(
            f"{where}: unknown answer_type {value!r}.",
            "Known are OPEN, CLOSED and PathVQA's types.",
        )
    if cleaned not in ("OPEN", "CLOSED"):
        oddities["pathvqa_answer_type"] += 1
    return _TYPES[cleaned]


def _guess_type(answer: str, oddities: Counter[str]) -> Literal["OPEN", "CLOSED"]:
    oddities["answer_type_guessed"] += 1
    return "CLOSED" if answer.strip().strip(".").casefold() in _YES_NO else "OPEN"
