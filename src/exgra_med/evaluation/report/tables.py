"""Results as rows of text, the same for the page, for Markdown and for CSV."""

from dataclasses import dataclass
from typing import Any

from exgra_med.evaluation.floors import FLOOR_LABELS

MEASURE_LABELS = {
    "average": "Average of open recall and closed accuracy",
    "open_recall": "Open questions: recall",
    "open_f1": "Open questions: F1",
    "open_precision": "Open questions: precision",
    "open_exact_match": "Open questions: exact match",
    "open_accuracy": "Open questions: accuracy over known answers",
    "closed_accuracy": "Closed questions: accuracy",
    "bleu_1": "BLEU-1",
}
_DENOMINATOR = {
    "open_recall": "recall",
    "open_f1": "f1",
    "open_precision": "precision",
    "open_exact_match": "exact_match",
}
_BALANCE_LABELS = {
    "macro_f1": "macro F1 over the answers that occur",
    "balanced_accuracy": "balanced accuracy over the answers that occur",
    "yes_true_rate": "of the questions answered by yes, right",
    "no_true_rate": "of the questions answered by no, right",
    "yes_share": "“yes” among the yes/no answers",
    "abstentions": "abstentions (wrong)",
    "several_options": "several options named (wrong)",
    "parse_failures": "no option recognised or no answer (wrong)",
}
GROUP_LABELS = {
    "modality": "By modality",
    "organ": "By organ",
    "question_type": "By question type",
    "language": "By language",
    "answer_in_training": "By whether the answer occurs in training",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A score in percent with its interval; `value` is None where there is nothing to count."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """`52.3`, or a dash."""
        return "–" if self.value is None else _number(self.value)

    @property
    def signed(self) -> str:
        """`+5.1`, `−0.4` or a dash."""
        return "–" if self.value is None else _number(self.value, "+")

    @property
    def bounds(self) -> str:
        """`45.9 to 58.8`, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"{_number(self.low)} to {_number(self.high)}"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One measure under both scorers."""

    name: str
    label: str
    strict: Cell
    legacy: Cell
    count: str

    @property
    def difference(self) -> str:
        """Legacy minus strict, signed; a dash where either is missing."""
        if self.strict.value is None or self.legacy.value is None:
            return "–"
        return _number(self.legacy.value - self.strict.value, "+")


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """The scores on one of several data sets."""

    name: str
    average: Cell
    recall: Cell
    closed: Cell
    legacy_average: Cell
    count: str


@dataclass(frozen=True, slots=True)
class FloorRow:
    """The model or a floor, side by side."""

    label: str
    is_model: bool
    average: Cell
    recall: Cell
    closed: Cell
    legacy_average: Cell
    difference: Cell
    """Model minus floor on the same questions (strict average), with a paired interval."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of a breakdown (strict)."""

    label: str
    recall: Cell
    closed: Cell
    num_open: int
    num_closed: int


def _number(value: float, sign: str = "") -> str:
    """One decimal with a true minus sign; what rounds to zero has no sign."""
    rounded = round(value, 1) or 0.0
    return f"{rounded:{sign if rounded else ''}.1f}".replace("-", "−")


def cell(section: dict[str, Any], name: str) -> Cell:
    """A measure of a scorer's section of `results.json`."""
    bounds = (section.get("intervals") or {}).get(name) or (None, None)
    return Cell(section.get(name), *bounds)


def dataset_rows(results: dict[str, Any]) -> list[DatasetRow]:
    """Every data set that was answered, the headline's first; empty where there is one alone."""
    others = (results.get("other_datasets") or {}).values()
    sections = [part["vqa"] for part in (results, *others) if part.get("vqa")]
    return [_dataset_row(vqa) for vqa in sections] if others else []


def _dataset_row(vqa: dict[str, Any]) -> DatasetRow:
    strict, legacy = vqa.get("strict") or {}, vqa.get("legacy") or {}
    return DatasetRow(
        name=f"{vqa.get('dataset', '–')}, {vqa.get('split', '–')}",
        average=cell(strict, "average"),
        recall=cell(strict, "open_recall"),
        closed=cell(strict, "closed_accuracy"),
        legacy_average=cell(legacy, "average"),
        count=_count(strict, "average"),
    )


def score_rows(vqa: dict[str, Any]) -> list[ScoreRow]:
    """Rows of the main table."""
    strict, legacy = vqa.get("strict") or {}, vqa.get("legacy") or {}
    rows = []
    for name, label in MEASURE_LABELS.items():
        row = ScoreRow(name, label, cell(strict, name), cell(legacy, name), _count(strict, name))
        if row.strict.value is not None or row.legacy.value is not None:
            rows.append(row)
    return rows


def _count(section: dict[str, Any], name: str) -> str:
    if name == "average":
        return f"{section.get('num_open', '–')} + {section.get('num_closed', '–')}"
    counts = section.get("denominators") or {}
    return str(counts.get(_DENOMINATOR.get(name, name), "–"))


def floor_rows(results: dict[str, Any]) -> list[FloorRow]:
    """The model first, then its floors; empty where no floor was computed."""
    vqa, floors = results.get("vqa") or {}, results.get("floors") or {}
    if not floors or "strict" not in vqa:
        return []
    rows = [_floor_row("this model", vqa, is_model=True)]
    for name, label in FLOOR_LABELS.items():
        if name in floors:
            rows.append(_floor_row(label, floors[name], is_model=False))
    return rows


def _floor_row(label: str, scores: dict[str, Any], is_model: bool) -> FloorRow:
    strict = scores["strict"]
    return FloorRow(
        label=label,
        is_model=is_model,
        average=cell(strict, "average"),
        recall=cell(strict, "open_recall"),
        closed=cell(strict, "closed_accuracy"),
        legacy_average=cell(scores.get("legacy") or {}, "average"),
        difference=cell(scores.get("model_minus_floor") or {}, "average"),
    )


def group_tables(vqa: dict[str, Any]) -> dict[str, list[GroupRow]]:
    """Breakdowns of the strict score that have something to tell."""
    groups = (vqa.get("strict") or {}).get("groups") or {}
    return {
        GROUP_LABELS.get(name, name): [_group_row(label, row) for label, row in members.items()]
        for name, members in groups.items()
    }


def _group_row(label: str, row: dict[str, Any]) -> GroupRow:
    def measured(name: str) -> Cell:
        return Cell(row[name], *(row.get(f"{name}_interval") or (None, None)))

    return GroupRow(
        label, measured("recall"), measured("closed_accuracy"), row["num_open"], row["num_closed"]
    )


def balance_rows(vqa: dict[str, Any]) -> list[tuple[str, str]]:
    """How closed questions are answered, in percent (strict)."""
    closed = (vqa.get("strict") or {}).get("closed_answers") or {}
    return [
        (label, Cell(closed[name]).text)
        for name, label in _BALANCE_LABELS.items()
        if closed.get(name) is not None
    ]
