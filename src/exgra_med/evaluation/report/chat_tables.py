"""Gradings of chat answers as rows and sentences."""

from dataclasses import dataclass
from typing import Any

from exgra_med.evaluation.chat.wording import habit_sentences
from exgra_med.evaluation.report.tables import Cell


@dataclass(frozen=True, slots=True)
class ChatRow:
    """Scores by one judge, of all questions or of a group."""

    judge: str
    dataset: str
    label: str
    relative: Cell
    published_order: Cell
    win_rate: Cell
    num: int


def chat_rows(results: dict[str, Any]) -> list[ChatRow]:
    """Rows by judge: all questions, then types, then domains; empty where nothing was graded."""
    rows = []
    for dataset, judges in (results.get("chat") or {}).items():
        for judge, section in judges.items():
            parts = {"all questions": section, **section["by_type"], **section["by_domain"]}
            rows += [
                ChatRow(
                    judge,
                    dataset,
                    label.replace("_", " "),
                    _cell(part, "relative_score"),
                    _cell(part, "relative_score_published_order"),
                    _cell(part, "win_rate"),
                    part["num"],
                )
                for label, part in parts.items()
            ]
    return rows


def chat_sentences(results: dict[str, Any]) -> list[str]:
    """What each judge's habits are worth, what was left out, and what it cost."""
    return [
        f"{judge}, {section['date']}: {sentence}"
        for judges in (results.get("chat") or {}).values()
        for judge, section in judges.items()
        for sentence in habit_sentences(section)
    ]


def _cell(part: dict[str, Any], name: str) -> Cell:
    return Cell(part[name], *(part["intervals"][name] or (None, None)))
