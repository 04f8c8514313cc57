"""Results of checks as rows and sentences: images, multiple choice, leaks."""

from dataclasses import dataclass
from typing import Any

from exgra_med.evaluation.report.tables import Cell, cell

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
    """What of the test set is in the training split beside it, in words."""
    leaks = results.get("leaks") or {}
    if not leaks:
        return []
    counts, total = leaks["counts"], leaks["num_questions"]
    sentences = [
        f"Of {total} test questions, {counts['image']} are about an image of the data set's own "
        f"training split, {counts['question_text']} have a text that occurs there, and "
        f"{counts['image_and_question']} repeat image and text. What this model was trained on is "
        "another matter, unless it was that split."
    ]
    clean = leaks.get("clean")
    if clean and counts["image"]:
        average = cell(clean, "average")
        bounds = f" (95 % interval {average.bounds})" if average.bounds else ""
        sentences.append(
            f"On the {clean['num_open']} + {clean['num_closed']} questions about other images the "
            f"strict average is {average.text} %{bounds}."
        )
    elif not clean:
        sentences.append("No test question is about another image, so there is no clean score.")
    return sentences


def mirror_sentences(results: dict[str, Any]) -> list[str]:
    """What became of the answers about a side when the image was mirrored."""
    probe = (results.get("visual_reliance") or {}).get("mirrored") or {}
    if not probe.get("num"):
        return []
    follows = Cell(probe["follows"], *(probe["interval"] or (None, None)))
    return [
        f"With the image mirrored, {follows.text} % of {probe['num']} answers about a side name "
        f"the other side (95 % interval {follows.bounds}), {Cell(probe['stays']).text} % stay, and "
        f"{Cell(probe['no_side']).text} % name no side. An answer that stays did not come from the "
        "image."
    ]


def choice_sentences(results: dict[str, Any]) -> list[str]:
    """Calibration of option likelihoods, and questions that have no options, in words."""
    sentences = []
    for dataset, section in (results.get("multiple_choice") or {}).items():
        measured = section.get("calibration") or {}
        if measured.get("num"):
            risks = measured["risk_at_coverage"]
            sentences.append(
                f"{dataset}: stated confidence is off by "
                f"{100 * measured['expected_calibration_error']:.1f} points on average (expected "
                f"calibration error; Brier score {measured['brier']:.3f}). Answering only the more "
                f"confident half, {100 * risks['0.5']:.1f} % are wrong instead of "
                f"{100 * risks['1.0']:.1f} %."
            )
        if section.get("num_without_options"):
            sentences.append(
                f"{dataset}: {section['num_without_options']} questions without options were left "
                "out."
            )
    return sentences
