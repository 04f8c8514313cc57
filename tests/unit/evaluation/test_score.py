"""Whole scores: worked by hand, and nothing odd is scored silently."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exgra_med.data.records import Record, Turn
from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Prediction, read_candidates, read_reference
from exgra_med.evaluation.score import score_files, score_vqa


def record(name: str, answer: str, kind: str | None, image: str = "", **meta: str) -> Record:
    turns = [Turn(role="user", text=f"Question {name}?"), Turn(role="assistant", text=answer)]
    return Record.model_validate(
        {
            "id": name,
            "image": image or f"{name}.jpg",
            "turns": [turn.model_dump() for turn in turns],
            "answer_type": kind,
            "meta": meta,
        }
    )


RECORDS = [
    record("1", "left lung", "OPEN", modality="CT"),
    record("2", "2", "OPEN", modality="MRI"),
    record("3", "yes", "CLOSED", modality="CT"),
    record("4", "no", "CLOSED", modality="MRI"),
    record("5", "no", "CLOSED", modality="MRI"),
]
ANSWERS = [
    Prediction("1", "left"),
    Prediction("2", "two"),
    Prediction("3", "Yes, surely"),
    Prediction("4", "normal"),
    Prediction("5", "I cannot tell"),
]


def values(result: dict[str, Any]) -> dict[str, float | None]:
    """Measure -> value."""
    return {name: score["value"] for name, score in result["scores"].items()}


def test_a_strict_score_worked_by_hand() -> None:
    result = score_vqa(ANSWERS, RECORDS)
    scores = values(result)
    assert (result["num_open"], result["num_closed"], result["num_images"]) == (2, 3, 5)
    assert scores["open_recall"] == pytest.approx(75.0)
    assert scores["open_precision"] == pytest.approx(100.0)
    assert scores["open_exact_match"] == pytest.approx(50.0)
    assert scores["closed_accuracy"] == pytest.approx(100 / 3)
    assert scores["average"] == pytest.approx((75 + 100 / 3) / 2)
    assert scores["open_accuracy"] is None
    closed = result["closed_answers"]
    assert closed["verdicts"] == {"abstained": 1, "missing": 0, "right": 1, "unparsed": 1}
    assert closed["balanced_accuracy"] == pytest.approx(50.0)
    assert closed["macro_f1"] == pytest.approx(50.0)
    assert closed["abstentions"] == pytest.approx(100 / 3)
    assert result["groups"]["modality"]["CT"]["scores"]["closed_accuracy"]["value"] == 100.0
    assert result["groups"]["modality"]["MRI"]["num_closed"] == 2


def test_legacy_finds_no_in_normal() -> None:
    scores = values(score_vqa(ANSWERS, RECORDS, "legacy"))
    assert scores["closed_accuracy"] == 100.0
    pathvqa = score_vqa(ANSWERS, RECORDS, "legacy-pathvqa")
    assert pathvqa["scores"]["closed_accuracy"]["count"] == 3


def test_legacy_pathvqa_forgets_wrong_answers() -> None:
    references = ["yes", "yes", "yes", "no", "no", "no"]
    texts = ["yes", "yes", "no", "yes", "yes", "i cannot tell"]
    records = [record(str(i), text, "CLOSED") for i, text in enumerate(references)]
    answers = [Prediction(str(i), text) for i, text in enumerate(texts)]
    dropped = score_vqa(answers, records, "legacy-pathvqa")
    assert dropped["scores"]["closed_accuracy"]["value"] == 100.0
    assert dropped["scores"]["closed_accuracy"]["count"] == 3
    assert values(score_vqa(answers, records))["closed_accuracy"] == pytest.approx(100 / 3)


def test_order_does_not_matter_and_is_reported() -> None:
    ordered, shuffled = score_vqa(ANSWERS, RECORDS), score_vqa(ANSWERS[::-1], RECORDS)
    assert ordered["scores"] == shuffled["scores"]
    assert ordered["pairing"]["same_order"]
    assert not shuffled["pairing"]["same_order"]


@pytest.mark.parametrize("scorer", ["strict", "legacy", "legacy-pathvqa"])
def test_missing_is_wrong_and_extra_is_left_out(scorer: str) -> None:
    answers = [*ANSWERS[:1], *ANSWERS[2:], Prediction("99", "yes")]
    result = score_vqa(answers, RECORDS, scorer)
    assert result["pairing"]["missing"] == 1
    assert result["pairing"]["extra"] == 1
    assert result["scores"]["open_recall"]["count"] == 2
    assert result["scores"]["open_recall"]["value"] == pytest.approx(25.0)


def test_a_doubled_answer_counts_once_and_a_contradictory_one_is_wrong() -> None:
    same = score_vqa([*ANSWERS, Prediction("3", "Yes, surely")], RECORDS)
    assert same["pairing"]["duplicate"] == 1
    assert same["scores"] == score_vqa(ANSWERS, RECORDS)["scores"]
    torn = score_vqa([*ANSWERS, Prediction("3", "no")], RECORDS)
    assert torn["pairing"]["contradictory"] == 1
    assert torn["scores"]["closed_accuracy"]["value"] == 0.0


def test_repeated_question_ids_need_the_same_order() -> None:
    records = [record("img", "yes", "CLOSED"), record("img", "no", "CLOSED")]
    answers = [Prediction("img", "yes"), Prediction("img", "no")]
    result = score_vqa(answers, records)
    assert result["scores"]["closed_accuracy"]["value"] == 100.0
    assert result["pairing"]["duplicate"] == 1
    with pytest.raises(ScoreError, match="Ids repeat"):
        score_vqa(answers[:1], records)


def test_answers_under_the_published_id_are_joined_by_it() -> None:
    records = [
        each.model_copy(update={"id": f"set/test/{each.id}", "meta": {"published_id": each.id}})
        for each in RECORDS
    ]
    assert score_vqa(ANSWERS, records)["scores"] == score_vqa(ANSWERS, RECORDS)["scores"]


def test_nothing_in_common_and_an_unknown_scorer_are_errors() -> None:
    with pytest.raises(ScoreError, match="No prediction has the id"):
        score_vqa([Prediction("x", "yes")], RECORDS)
    with pytest.raises(ScoreError, match="no questions"):
        score_vqa(ANSWERS, [])
    with pytest.raises(ScoreError, match="Unknown scorer"):
        score_vqa(ANSWERS, RECORDS, "fuzzy")


def test_intervals_hold_the_score_and_are_seeded() -> None:
    numbers = random.Random(1)
    records = [
        record(str(i), "yes", "CLOSED", image=f"{i % 60}.jpg") if i % 2
        else record(str(i), "left lung", "OPEN", image=f"{i % 60}.jpg")
        for i in range(300)
    ]  # fmt: skip
    answers = [
        Prediction(str(i), numbers.choice(["yes", "no", "left", "lung"])) for i in range(300)
    ]
    first = score_vqa(answers, records, seed=3)
    assert first == score_vqa(answers, records, seed=3)
    other = score_vqa(answers, records, seed=4)
    for name in ("average", "open_recall", "closed_accuracy"):
        score = first["scores"][name]
        low, high = score["interval"]
        assert low < score["value"] < high
        assert score["interval"] != other["scores"][name]["interval"]


def test_strict_candidates_do_not_fall_back_on_the_first_one() -> None:
    records = [record("1", "right lung", "OPEN"), record("2", "right", "OPEN")]
    answers = [
        Prediction("1", "the image shows a mass in the right lung"),
        Prediction("2", "no idea"),
    ]
    known: list[str | int] = ["right", "right lung", "left"]
    assert values(score_vqa(answers, records, candidates=known))["open_accuracy"] == 50.0
    legacy = score_vqa(answers, records, "legacy", candidates=known)
    assert legacy["scores"]["open_accuracy"]["value"] == 50.0
    assert (
        values(score_vqa(answers[:1], records[:1], "legacy", candidates=known))["open_accuracy"]
        == 0.0
    )


def test_files_of_the_original_and_their_oddities(tmp_path: Path) -> None:
    reference = tmp_path / "test.json"
    talk = [{"from": "human", "value": "q\n<image>"}]
    items = [
        {"id": 0, "answer_type": "OPEN", "conversatons": [*talk, {"from": "gpt", "value": 2}]},
        {
            "id": 1,
            "answer_type": "CLOSED ",
            "conversations": [*talk, {"from": "gpt", "value": "no"}],
        },
        {"id": 2, "answer_type": "OPEN", "conversations": [*talk, {"from": "gpt", "value": ""}]},
    ]
    reference.write_text(json.dumps(items), encoding="utf-8")
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question_id": 0, "text": 2}\n{"question_id": 1, "text": "no"}\n{"que')
    result = score_files(answers, reference)
    assert result["oddities"] == {
        "answer_type_with_blanks": 1,
        "empty_reference": 1,
        "prediction_not_text": 1,
        "reference_not_text": 1,
        "torn_last_line": 1,
    }
    assert result["scores"]["closed_accuracy"]["value"] == 100.0
    assert result["pairing"]["missing"] == 1
    legacy = score_files(answers, reference, "legacy")
    assert legacy["left_out_by_published_rule"] == 1
    assert legacy["num_closed"] == 0


def test_candidates_come_from_three_kinds_of_file(tmp_path: Path) -> None:
    published, plain, records = (tmp_path / name for name in ("a.json", "b.json", "c.jsonl"))
    published.write_text('{"0": ["liver", 2]}')
    plain.write_text('["liver", 2]')
    records.write_text("\n".join(json.dumps(each.to_json()) for each in RECORDS))
    assert read_candidates(published) == read_candidates(plain) == ["liver", 2]
    assert read_candidates(records) == ["2", "left lung"]
    assert len(read_reference(records).questions) == 5


def test_a_record_without_a_type_is_told_by_its_answer() -> None:
    records = [record("1", "Yes.", None), record("2", "lung", None)]
    result = score_vqa([Prediction("1", "yes"), Prediction("2", "lung")], records)
    assert (result["num_open"], result["num_closed"]) == (1, 1)
    assert result["oddities"] == {"answer_type_guessed": 2}


def test_scoring_imports_no_torch() -> None:
    code = "import sys, exgra_med.evaluation.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
