"""Counts of a prepared folder, for a person and for its page."""

from collections import Counter
from typing import Any

from exgra_med.data.records import Prepared, Record, image_names

GROUPS = ("organ", "modality", "question_type", "language", "phrase_type", "domain", "dataset")
"""Fields of `meta` that are counted where a data set has them."""


def statistics(prepared: Prepared) -> dict[str, Any]:
    """Counts of every split: records, images, answer types, groups, words, commonest answers."""
    return {split: _of_records(prepared.records(split)) for split in prepared.splits}


def _of_records(records: list[Record]) -> dict[str, Any]:
    answers = Counter(record.answer.lower() for record in records)
    groups = {
        name: dict(Counter(str(r.meta[name]) for r in records if name in r.meta).most_common(30))
        for name in GROUPS
    }
    return {
        "records": len(records),
        "images": len(image_names(records)),
        "turns": sum(len(record.turns) for record in records),
        "with_extended_answers": sum(record.extended is not None for record in records),
        "answer_types": dict(Counter(record.known_type for record in records)),
        "words_per_question": _spread([len(r.question.split()) for r in records]),
        "words_per_answer": _spread([len(text.split()) for r in records for text in r.answers]),
        "words_per_extended_answer": _spread(
            [len(text.split()) for r in records for text in r.extended or []]
        ),
        "commonest_answers": dict(answers.most_common(15)),
        **{name: counts for name, counts in groups.items() if counts},
    }


def _spread(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    median = sorted(values)[len(values) // 2]
    mean = round(sum(values) / len(values), 2)
    return {"mean": mean, "median": median, "longest": max(values)}
