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
    "missing": "questions have no answer; they score 0",
    "contradictory": "questions have several different answers; they score 0",
    "extra": "answers belong to no question; they are left out",
    "duplicate": "ids come more than once",
    "empty": "answers are empty",
}
_ODDITIES = {
    "answer_type_guessed": "questions have no answer type; yes/no answers were taken as closed",
    "answer_type_with_blanks": "answer types have blanks around them",
    "pathvqa_answer_type": "answer types are PathVQA's own (yes/no = closed)",
    "empty_reference": "reference answers are empty",
    "reference_not_text": "reference answers are numbers; they were read as text",
    "prediction_not_text": "predictions are numbers; they were read as text",
    "only_first_turn_scored": "records have several turns; the first one is scored",
    "torn_last_line": "line at the end of the predictions was torn and dropped",
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


def counts_sentence(result: dict[str, Any]) -> list[str]:
    """One sentence for everything that was out of order; none where nothing was."""
    pairing, oddities = result["pairing"], result["oddities"]
    sentences = [f"{pairing[key]} {text}." for key, text in _COUNTS.items() if pairing.get(key)]
    if not pairing.get("same_order", True):
        sentences.append("The answers come in another order than the questions; joined by id.")
    sentences += [f"{oddities[key]} {text}." for key, text in _ODDITIES.items() if key in oddities]
    dropped = result["num_closed"] - result["denominators"]["closed_accuracy"]
    if result["scorer"] == "legacy-pathvqa" and dropped:
        sentences.append(f"{dropped} wrong closed answers are dropped by the published script.")
    if result.get("left_out_by_published_rule"):
        sentences.append(
            f"{result['left_out_by_published_rule']} questions are skipped by the published script."
        )
    return sentences
