"""One grading: question and two answers -> messages; a reply -> two grades, or a refusal."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from exgra_med.evaluation.chat.questions import ChatQuestion
from exgra_med.llm.prompt import Prompt, object_with
from exgra_med.llm.request import Message, ReplyError

PROMPT = "judge-answers"
LOWEST, HIGHEST = 1.0, 10.0
Order = Literal["reference-first", "model-first"]
ORDERS: tuple[Order, ...] = ("reference-first", "model-first")
"""The published script asks in the first order only."""

_GRADE = {"type": "integer", "minimum": 1, "maximum": 10}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score_1": _GRADE, "score_2": _GRADE},
    "required": ["reason", "score_1", "score_2"],
    "additionalProperties": False,
}
_TWO_NUMBERS = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,;/]+(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Grades:
    """What a judge gave, from 1 to 10."""

    reference: float
    model: float


def judge_messages(
    prompt: Prompt, question: ChatQuestion, answer: str, order: Order
) -> list[Message]:
    """The messages that ask for grades; no id, no image and no author is sent."""
    both = [question.reference, answer]
    if order == "model-first":
        both.reverse()
    asked = {
        "caption": question.caption,
        "mentions": question.mentions,
        "question": question.text,
        "answer_1": both[0],
        "answer_2": both[1],
    }
    return [
        {"role": "system", "content": prompt.text},
        {"role": "user", "content": json.dumps(asked, ensure_ascii=False)},
    ]


def read_grades(reply: str, order: Order) -> Grades:
    """The grades in a reply: the JSON object, or two numbers on the first line as judges used to.

    Raises:
        ReplyError: neither is there, or a grade is not from 1 to 10.
    """
    first, second = _two_grades(reply)
    return Grades(first, second) if order == "reference-first" else Grades(second, first)


def _two_grades(reply: str) -> tuple[float, float]:
    line = _TWO_NUMBERS.fullmatch(reply.strip().partition("\n")[0])
    if line:
        return _grade(line[1]), _grade(line[2])
    value = object_with(reply, "score_1")
    return _grade(value["score_1"]), _grade(value.get("score_2"))


def _grade(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ReplyError(f"a grade is a {type(value).__name__}")
    try:
        grade = float(value)
    except ValueError as error:
        raise ReplyError("a grade is no number") from error
    if not LOWEST <= grade <= HIGHEST:
        raise ReplyError("a grade is not from 1 to 10")
    return grade
