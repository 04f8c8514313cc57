"""Invented answers to the 451 test questions of VQA-RAD: every form in which an answer can differ.

They are a function of the row and the reference, so that anyone can write the same file again.
"""

import json
from pathlib import Path
from typing import Any

from exgra_med.evaluation.answers import Prediction, Question


def _wrong(reference: str) -> str:
    return {"yes": "no", "no": "yes"}.get(reference.lower(), "spleen")


FORMS = (
    lambda said: said,
    lambda said: said.upper(),
    lambda said: f"{said}.",
    lambda said: f"The answer is {said}.",
    _wrong,
    lambda said: "normal",
    lambda said: "It is not seen.",
    lambda said: f"Yes and no, perhaps {said}",
    lambda said: "",
    lambda said: said.split()[0],
    lambda said: f"{said} {said} {said}",
    lambda said: f"<answer>{said}</answer>",
    lambda said: f"So it is \\boxed{{{said}}}",
    lambda said: "There is no evidence of it in the left lung; nothing is boxed.",
    lambda said: {"yes": "True!", "no": "Nope"}.get(said.lower(), f"{said} (see the image)"),
    lambda said: f"Yes, the lung is normal, {said}",
    lambda said: f"Final answer:\n\n{said}",
    lambda said: said[::-1],
    lambda said: f"I cannot tell, 1,5 or ten, a {said}'s",
)
"""Answers of which a stored file holds some: right, wrong, verbose, empty, or in both ways."""


def questions(file: Path) -> list[Question]:
    """The test rows of the official release, in their order."""
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [
        Question(
            id=str(row["qid"]),
            text=row["question"],
            answer=str(row["answer"]),
            answer_type="CLOSED" if row["answer_type"].strip() == "CLOSED" else "OPEN",
            images=(row["image_name"],),
        )
        for row in rows
        if row["phrase_type"].startswith("test")
    ]


def candidates(file: Path) -> list[str]:
    """Open answers of the training rows, lower-cased, each once in the order of the file."""
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    known = [
        str(row["answer"]).lower()
        for row in rows
        if not row["phrase_type"].startswith("test") and row["answer_type"].strip() == "OPEN"
    ]
    return list(dict.fromkeys(known))


def answers(asked: list[Question]) -> list[Prediction]:
    """One invented answer to each question."""
    return [
        Prediction(each.id, FORMS[7 * row % len(FORMS)](each.answer.strip()))
        for row, each in enumerate(asked)
    ]
