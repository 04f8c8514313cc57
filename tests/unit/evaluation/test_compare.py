"""Comparisons say what can be told apart, and no more."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import Prediction, Question
from exgra_med.evaluation.compare import compare, compare_stored
from exgra_med.evaluation.report.comparison import write_comparison
from exgra_med.evaluation.results import put_result, read_results
from exgra_med.evaluation.score import measures, summary, with_functions

QUESTIONS = [
    Question(str(i), "Is it?", "yes", "CLOSED", (f"{i // 4}.jpg",))
    if i % 2
    else Question(str(i), "What?", "left lung", "OPEN", (f"{i // 4}.jpg",))
    for i in range(240)
]


def answers(share_right: float, seed: int) -> list[Prediction]:
    numbers = np.random.default_rng(seed)
    return [
        Prediction(each.id, each.answer if numbers.random() < share_right else "liver")
        for each in QUESTIONS
    ]


def test_a_clear_difference_is_found_in_every_row() -> None:
    result = compare(answers(0.8, 1), answers(0.5, 2), QUESTIONS, num_bootstrap_samples=400)
    assert [row["measure"] for row in result["rows"]] == [
        "average", "open_recall", "closed_accuracy",
    ]  # fmt: skip
    for row in result["rows"]:
        assert row["difference"] == pytest.approx(row["first"] - row["second"])
        assert row["interval"][0] > 0
        assert row["p"] <= row["p_holm"] < 0.05
        assert row["conclusion"].startswith("the first run is better")
    closed = result["rows"][2]
    discordant = closed["only_first_right"] - closed["only_second_right"]
    assert closed["difference"] == pytest.approx(100 * discordant / 120)
    assert closed["p_mcnemar"] < 0.05


def test_the_same_answers_cannot_be_told_apart() -> None:
    result = compare(answers(0.5, 1), answers(0.5, 1), QUESTIONS, num_bootstrap_samples=50)
    for row in result["rows"]:
        assert row["difference"] == 0.0
        assert row["p_holm"] == 1.0
        assert row["conclusion"] == "cannot be told apart"


def test_pure_chance_is_called_so_most_of_the_time() -> None:
    found = 0
    for seed in range(40):
        result = compare(
            answers(0.5, 2 * seed), answers(0.5, 2 * seed + 1), QUESTIONS, num_bootstrap_samples=20
        )
        found += any(row["conclusion"] != "cannot be told apart" for row in result["rows"])
    assert found <= 6


def test_missing_answers_count_and_only_closed_questions_give_one_row() -> None:
    closed = [each for each in QUESTIONS if each.answer_type == "CLOSED"]
    first = [Prediction(each.id, "yes") for each in closed]
    result = compare(first, first[:60], closed, num_bootstrap_samples=50)
    assert [row["measure"] for row in result["rows"]] == ["closed_accuracy"]
    assert result["missing"] == [0, 60]
    assert result["rows"][0]["difference"] == 50.0


def test_the_rule_that_drops_answers_cannot_compare() -> None:
    with pytest.raises(ScoreError, match="drops other questions"):
        compare(answers(0.5, 1), answers(0.5, 2), QUESTIONS, "legacy-pathvqa")


def test_the_paired_interval_is_narrower_than_two_separate_ones() -> None:
    numbers = np.random.default_rng(0)
    chosen = measures("compare")
    assert [each.name for each in with_functions(chosen)] == ["open_recall", "closed_accuracy"]
    values = np.full((300, 2), np.nan)
    values[:150, 0] = numbers.random(150) < 0.5
    values[150:, 1] = numbers.random(150) < 0.5
    better = values.copy()
    better[0:10, 0] = 1.0
    result = summary(better - values, chosen, np.arange(300), 500, 0)
    low, high = result["average"]["interval"]
    assert high - low < 6
    assert result["closed_accuracy"] == {"value": 0.0, "interval": [0.0, 0.0], "count": 150}


def test_run_folders_know_their_questions(demo_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo_run, other)
    result = compare_stored(demo_run, other)
    assert result["num_questions"] == 30
    assert result["missing"] == [1, 1]
    file = next((other / "predictions").rglob("*.jsonl"))
    assert compare_stored(demo_run, other) == compare_stored(other, demo_run) == result
    with pytest.raises(ScoreError, match="nothing says which questions"):
        compare_stored(file, file)
    (entry,) = read_results(other).find("vqa")
    (other / "results.json").unlink()
    with pytest.raises(ScoreError, match="0 scored splits in common: made-up/test against nothing"):
        compare_stored(demo_run, other)
    put_result(other, entry.model_copy(update={"dataset": "another"}))
    with pytest.raises(ScoreError, match=r"0 scored splits .* against another/test"):
        compare_stored(demo_run, other)
    put_result(other, entry)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        compare_stored(demo_run, other)


def test_runs_that_were_scored_by_other_rules_are_scored_anew(
    demo_run: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(demo_run, older)
    (entry,) = read_results(older).find("vqa")
    scorers = entry.details["scorers"]
    strict = scorers["strict"] | {"scorer_version": "1", "normaliser_version": "1"}
    put_result(
        older,
        entry.model_copy(
            update={"details": entry.details | {"scorers": scorers | {"strict": strict}}}
        ),
    )
    plain = compare_stored(demo_run, demo_run)
    assert plain["notes"] == [] and plain["normaliser_version"] == "2"
    found = compare_stored(demo_run, older)
    assert found["notes"] == [
        "older was scored by scorer 1, normaliser 1; here both runs are scored by scorer 2, "
        "normaliser 2."
    ]
    assert found["rows"] == plain["rows"]
    page = write_comparison([demo_run, older], tmp_path / "page.html")
    assert "of different versions of the rules" in page.read_text("utf-8")
    page = write_comparison([demo_run, demo_run], tmp_path / "page.html")
    assert "of different versions" not in page.read_text("utf-8")


def test_of_several_common_splits_one_is_named(demo_run: Path, tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    for run in (first, other):
        shutil.copytree(demo_run, run)
        (entry,) = read_results(run).find("vqa")
        put_result(run, entry.model_copy(update={"split": "train"}))
    with pytest.raises(ScoreError, match="2 scored splits in common") as caught:
        compare_stored(first, other)
    assert "--split" in caught.value.hint
    assert compare_stored(first, other, split="test") == compare_stored(demo_run, demo_run)
