"""Scores as words: rows of a table, and sentences about what did not fit together."""

from typing import Any

LABELS = {
    "average": "average of open recall and closed accuracy",
    "closed_accuracy": "closed accuracy",
    "recall": "open recall",
    "f1": "open F1",
    "precision": "open precision",
    "exact_match": "open exact match",
    "open_accuracy": "open accuracy (candidates)",
    "bleu": "BLEU",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
}
_COUNTS = {
    "missing": "Questions without an answer (each scores 0)",
    "contradictory": "Questions with several different answers (each scores 0)",
    "extra": "Answers that belong to no question (left out)",
    "duplicate": "Ids that come more than once",
    "empty": "Empty answers",
}
_ODDITIES = {
    "answer_type_guessed": "Questions without an answer type (yes/no answers were taken as closed)",
    "answer_type_with_blanks": "Answer types with blanks around them",
    "pathvqa_answer_type": "Answer types of PathVQA (yes/no was taken as closed)",
    "empty_reference": "Empty reference answers",
    "reference_not_text": "Reference answers that are numbers (read as text)",
    "prediction_not_text": "Predictions that are numbers (read as text)",
    "only_first_turn_scored": "Records with several turns (the first one is scored)",
    "torn_last_line": "Torn lines at the end of the predictions (dropped)",
}


def score_rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (measure, percent, interval, questions) of a result of `score_vqa`, headline first."""
    rows = []
    for name, label in LABELS.items():
        value = result["metrics"].get(name)
        if value is None:
            continue
        if name == "average":
            count = f"{result['num_open']} + {result['num_closed']}"
        else:
            count = str(result["denominators"][name])
        rows.append((label, percent(value), interval_text(result["intervals"].get(name)), count))
    return rows


def percent(value: float | None) -> str:
    """A score in percent with one decimal; a dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def interval_text(bounds: list[float] | None) -> str:
    """An interval as `61.2 to 74.0`; a dash where there is none."""
    return "–" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def counts_sentences(result: dict[str, Any]) -> list[str]:
    """One sentence for everything that was out of order; none where nothing was."""
    pairing, oddities = result["pairing"], result["oddities"]
    sentences = [f"{text}: {pairing[key]}." for key, text in _COUNTS.items() if pairing.get(key)]
    if not pairing.get("same_order", True):
        sentences.append("The answers come in another order than the questions; joined by id.")
    sentences += [f"{text}: {oddities[key]}." for key, text in _ODDITIES.items() if key in oddities]
    dropped = result["num_closed"] - result["denominators"]["closed_accuracy"]
    if result["scorer"] == "legacy-pathvqa" and dropped:
        sentences.append(f"Wrong closed answers that the published script drops: {dropped}.")
    if result.get("left_out_by_published_rule"):
        sentences.append(
            f"Questions that the published script skips: {result['left_out_by_published_rule']}."
        )
    return sentences


def comparison_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a result of `compare`."""
    return [
        (
            row["label"],
            percent(row["first"]),
            percent(row["second"]),
            f"{row['difference']:+.1f}",
            interval_text(row["interval"]),
            f"{row['p_holm']:.3f}",
            row["conclusion"],
        )
        for row in result["rows"]
    ]
