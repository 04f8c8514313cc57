"""Baselines on questions worked by hand, and on VQA-RAD against the measured figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from exgra_med.evaluation.answers import Prediction, Question
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.tasks.vqa import baseline_predictions, score_baselines

TRAIN = [
    Question("1", "Is the heart large?", "yes", "CLOSED", ("a.jpg",)),
    Question("2", "Is the liver large?", "no", "CLOSED", ("b.jpg",)),
    Question("3", "Is there a mass?", "no", "CLOSED", ("b.jpg",)),
    Question("4", "Which organ is large?", "spleen", "OPEN", ("a.jpg",)),
]
TEST = [
    Question("5", "Is the heart very large?", "yes", "CLOSED", ("b.jpg",)),
    Question("6", "Which organ?", "liver", "OPEN", ("c.jpg",)),
    Question("7", "Anything?", "no", "CLOSED", ("c.jpg",)),
]


def test_baselines_by_hand() -> None:
    baselines = baseline_predictions(TRAIN, TEST)
    texts = {name: [each.text for each in answers] for name, answers in baselines.items()}
    assert texts == {
        "majority": ["no", "spleen", "no"],
        "text_nearest": ["yes", "spleen", "yes"],
        "same_image_nearest": ["no", "spleen", "yes"],
    }


def test_no_baseline_without_training_and_none_of_the_image_without_a_leak() -> None:
    assert baseline_predictions([], TEST) == {}
    assert "same_image_nearest" not in baseline_predictions(TRAIN, TEST[1:])


def test_every_baseline_is_scored_by_both_scorers() -> None:
    scored = score_baselines(TRAIN, TEST, num_bootstrap_samples=50)
    assert scored["majority"]["scores"]["strict"]["closed_accuracy"]["value"] == 50.0
    assert scored["majority"]["scores"]["legacy"]["open_recall"]["value"] == 0.0


def _questions(path: Path) -> list[Question]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [
        Question(
            str(row["qid"]),
            row["question"],
            str(row["answer"]),
            row["answer_type"].strip(),
            (row["image_name"],),
        )
        for row in rows
    ]


def test_the_baselines_of_vqa_rad_are_the_measured_ones(shared: Path) -> None:
    folder = shared / "data" / "vqa_rad" / "med-vqa-split"
    train, test = _questions(folder / "trainset.json"), _questions(folder / "testset.json")
    baselines = score_baselines(train, test, num_bootstrap_samples=200)

    def value(baselines: dict[str, Any], name: str) -> float:
        return baselines[name]["scores"]["legacy"]["average"]["value"]

    assert value(baselines, "text_nearest") == pytest.approx(52.35, abs=0.5)
    assert value(baselines, "same_image_nearest") == pytest.approx(63.5, abs=0.5)


def test_saying_yes_and_no_at_once_fools_legacy_only(shared: Path) -> None:
    test = _questions(shared / "data" / "vqa_rad" / "med-vqa-split" / "testset.json")
    answers = [Prediction(each.id, "yes no") for each in test]
    legacy = score_vqa(answers, test, "legacy", num_bootstrap_samples=0)
    strict = score_vqa(answers, test, num_bootstrap_samples=0)
    assert round(legacy["scores"]["closed_accuracy"]["value"], 2) == 92.28
    assert strict["scores"]["closed_accuracy"]["value"] <= 50
    perfect = [Prediction(each.id, each.answer) for each in test]
    assert score_vqa(perfect, test, num_bootstrap_samples=0)["scores"]["average"]["value"] == 100.0
    normal = [Prediction(each.id, "normal") for each in test]
    fooled = score_vqa(normal, test, "legacy", num_bootstrap_samples=0)
    assert fooled["scores"]["closed_accuracy"]["value"] == pytest.approx(48.9, abs=0.05)
