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


@dataclass(frozen=True, slots=True)
class RelianceRow:
    """What is lost without the right image (strict, in points)."""

    label: str
    average: Cell
    recall: Cell
    closed: Cell
    same_answer: str


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """Accuracy of one multiple-choice protocol."""

    dataset: str
    label: str
    accuracy: Cell
    macro: Cell
    balanced: Cell
    unreadable: Cell
    num: int


def cell(section: dict[str, Any], name: str) -> Cell:
    """A measure of a scorer's section of `results.json`."""
    bounds = (section.get("intervals") or {}).get(name) or (None, None)
    return Cell(section.get(name), *bounds)


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


_RELIANCE_LABELS = {
    "blank": "grey image",
    "noise": "noise image",
    "shuffled": "image of another question",
}
_CHOICE_LABELS = {
    "generation_strict": "generated, option read by words or letter",
    "generation_original": "generated, most similar option (original)",
    "likelihood": "most likely option",
    "likelihood_prior_subtracted": "most likely option, prior subtracted",
    "text_only_floor": "most likely option without the image (floor)",
}


def reliance_rows(results: dict[str, Any]) -> list[RelianceRow]:
    """Rows of the section on images; empty where it was not measured."""
    section = results.get("visual_reliance") or {}
    return [
        RelianceRow(
            label,
            cell(section[kind], "average"),
            cell(section[kind], "open_recall"),
            cell(section[kind], "closed_accuracy"),
            Cell(section[kind].get("same_answer")).text,
        )
        for kind, label in _RELIANCE_LABELS.items()
        if kind in section
    ]


def choice_rows(results: dict[str, Any]) -> list[ChoiceRow]:
    """Rows of multiple choice, a guesser last; empty where it was not asked."""
    rows = []
    for dataset, section in (results.get("multiple_choice") or {}).items():
        scored = {name: section[name] for name in _CHOICE_LABELS if name in section}
        for name, score in scored.items():
            bounds = score.get("interval") or (None, None)
            rows.append(
                ChoiceRow(
                    dataset,
                    _CHOICE_LABELS[name],
                    Cell(score["accuracy"], *bounds),
                    Cell(score["macro_accuracy"]),
                    Cell(score["balanced_accuracy"]),
                    Cell(score.get("unreadable")),
                    score["num_questions"],
                )
            )
        if scored:
            guess = next(iter(scored.values()))
            none = Cell(None)
            rows.append(
                ChoiceRow(
                    dataset, "guessing", Cell(guess["guessing"]), none, none, none,
                    guess["num_questions"],
                )
            )  # fmt: skip
    return rows


def leak_sentences(results: dict[str, Any]) -> list[str]:
    """What of the test set was in training, in words."""
    leaks = results.get("leaks") or {}
    if not leaks:
        return []
    counts, total = leaks["counts"], leaks["num_questions"]
    sentences = [
        f"Of {total} test questions, {counts['image']} are about an image that is in training, "
        f"{counts['question_text']} have a text that is in training, and "
        f"{counts['image_and_question']} repeat image and text."
    ]
    clean = leaks.get("clean")
    if clean and counts["image"]:
        average = cell(clean, "average")
        bounds = f" (95 % interval {average.bounds})" if average.bounds else ""
        sentences.append(
            f"On the {clean['num_open']} + {clean['num_closed']} questions about new images the "
            f"strict average is {average.text} %{bounds}."
        )
    elif not clean:
        sentences.append("No test question is about a new image, so there is no clean score.")
    return sentences
