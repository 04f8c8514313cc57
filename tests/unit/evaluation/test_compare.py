"""Comparisons say what can be told apart, and no more."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from exgra_med.data.records import file_sha256
from exgra_med.digests import read_document, write_document
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import Prediction, Question
from exgra_med.evaluation.compare import compare, compare_stored
from exgra_med.evaluation.measures import measures, paired_summary, with_functions
from exgra_med.evaluation.report.comparison import write_comparison
from exgra_med.evaluation.results import put_result, read_results
from exgra_med.evaluation.tables import differing_sentences, disagreement_sentences

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
    result = compare(answers(0.8, 1), answers(0.5, 2), QUESTIONS)
    assert [row["measure"] for row in result["rows"]] == [
        "average", "open_recall", "closed_accuracy",
    ]  # fmt: skip
    for row in result["rows"]:
        assert row["difference"] == pytest.approx(row["first"] - row["second"])
        assert row["interval"][0] > 0
        assert row["p"] <= row["p_holm"] < 0.05
        assert row["verdict"] == "first" and row["with_missing"] is None
        assert row["conclusion"].startswith("the first run is better, by ")
    closed = result["rows"][2]
    discordant = closed["only_first_right"] - closed["only_second_right"]
    assert closed["difference"] == pytest.approx(100 * discordant / 120)
    assert closed["p_mcnemar"] < 0.05
    other_way = compare(
        answers(0.5, 2), answers(0.8, 1), QUESTIONS, names=("plain", "aligned")
    )["rows"]  # fmt: skip
    for row, turned in zip(result["rows"], other_way, strict=True):
        assert turned["verdict"] == "second"
        assert turned["conclusion"] == f"aligned is better, by {row['difference']:.1f} points"
        assert turned["interval"] == pytest.approx([-edge for edge in reversed(row["interval"])])


def test_the_same_answers_cannot_be_told_apart() -> None:
    result = compare(answers(0.5, 1), answers(0.5, 1), QUESTIONS)
    # No image of 60 differs, at the level of Holm's first step of three.
    others = 100 * binomtest(0, 60).proportion_ci(1 - 0.05 / 3, method="exact").high
    for row in result["rows"]:
        assert row["difference"] == 0.0
        assert row["p_holm"] == 1.0
        assert row["interval"] == pytest.approx([-others, others])
        assert row["conclusion"] == "cannot be told apart"
    assert result["disagreements"] == []


def test_pure_chance_is_called_so_most_of_the_time() -> None:
    found = 0
    for seed in range(40):
        rows = compare(answers(0.5, 2 * seed), answers(0.5, 2 * seed + 1), QUESTIONS)["rows"]
        found += any(row["conclusion"] != "cannot be told apart" for row in rows)
    assert found <= 6


def test_interval_p_value_and_words_say_the_same() -> None:
    """Over many comparisons of all strengths: the interval holds 0 where nothing is told apart."""
    verdicts = Counter[str]()
    for seed in range(40):
        skill = 0.5 + 0.01 * seed
        rows = compare(answers(skill, seed), answers(0.5, 100 + seed), QUESTIONS[:80])["rows"]
        for row in rows:
            low, high = row["interval"]
            assert (row["p_holm"] >= 0.05) == (low <= 0 <= high)
            assert (row["verdict"] == "same") == (low <= 0 <= high)
            verdicts[row["verdict"]] += 1
    assert verdicts["same"] > 20 and verdicts["first"] > 20


CLOSED = [
    Question(str(i), "Is it?", "yes", "CLOSED", (f"{i}.jpg",)) for i in range(40)
]  # fmt: skip


def said(*texts: str) -> list[Prediction]:
    """Answers to the first questions of `CLOSED`."""
    return [Prediction(str(i), text) for i, text in enumerate(texts)]


def test_equal_answers_of_which_some_are_missing_make_no_run_the_better_one() -> None:
    """Half of the answers of one file are gone: nothing is known of the difference."""
    complete = said(*["yes"] * 40)
    result = compare(complete, complete[:20], CLOSED, names=("whole", "cut"))
    (row,) = result["rows"]
    assert result["warnings"] == [
        "cut has no usable answer to 20 of 40 questions.",
        "Compared are the 20 that both answered.",
    ]
    assert result["missing"] == [0, 20] and result["num_compared"] == row["count"] == 20
    assert row["difference"] == 0.0
    # All of the 20 missing ones may be wrong, or right as those of the other run are.
    assert row["with_missing"]["lowest"]["difference"] == 0.0
    assert row["with_missing"]["highest"]["difference"] == 50.0
    assert row["verdict"] == "open"
    assert row["conclusion"] == (
        "no verdict: with the missing answers the difference could be anything from +0.0 to +50.0 "
        "points"
    )
    basis = {each["name"]: each for each in result["basis"]}
    assert (basis["cut"]["answered"], basis["cut"]["missing"], basis["cut"]["file"]) == (
        20,
        20,
        None,
    )


def test_a_verdict_that_missing_answers_cannot_turn_stands() -> None:
    """30 of 38 common answers are better; 2 missing ones can take nothing of that away."""
    first = said(*["yes"] * 38)
    second = said(*["no"] * 30, *["yes"] * 10)
    (row,) = compare(first, second, CLOSED)["rows"]
    assert row["difference"] == pytest.approx(100 * 30 / 38)
    # Of the missing answers of the first run both are wrong, or both right, and the other has them.
    assert row["with_missing"]["lowest"]["difference"] == pytest.approx(100 * 28 / 40)
    assert row["with_missing"]["highest"]["difference"] == pytest.approx(100 * 30 / 40)
    assert row["verdict"] == "first"
    assert row["conclusion"] == "the first run is better, by 78.9 points"
    # 6 of 30 common answers are better, which 10 missing ones could turn.
    first, second = said(*["yes"] * 30), said(*["no"] * 6, *["yes"] * 34)
    (row,) = compare(first, second, CLOSED)["rows"]
    assert row["p"] == pytest.approx(2 / 2**6, abs=0.006) and row["verdict"] == "open"


def test_questions_that_both_left_out_count_as_missing() -> None:
    first = said(*["yes"] * 30)
    (row,) = compare(first, first, CLOSED)["rows"]
    assert row["with_missing"]["lowest"]["difference"] == -25.0
    assert row["with_missing"]["highest"]["difference"] == 25.0


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(ScoreError, match="have no question that both answered"):
        compare(said("yes"), [Prediction("1", "yes")], CLOSED)


def test_where_two_runs_disagree_both_answers_are_listed() -> None:
    first, second = said(*["yes"] * 40), said("no", *["yes"] * 38, "no")
    found = compare(first, second, CLOSED)["disagreements"]
    assert [each["id"] for each in found] == ["0", "39"]
    assert found[0] == {
        "id": "0", "question": "Is it?", "reference": "yes", "images": ["0.jpg"],
        "first": "yes", "first_score": 1.0, "second": "no", "second_score": 0.0,
    }  # fmt: skip


def test_answers_that_differ_and_score_the_same_are_counted() -> None:
    """Two wrong answers disagree too, though no score shows it."""
    first, second = said(*["yes"] * 38, "no", "no"), said("no", *["yes"] * 37, "no", "maybe")
    result = compare(first, second, CLOSED)
    assert [each["id"] for each in result["disagreements"]] == ["0"]
    assert result["num_other_words"] == 1
    lines = disagreement_sentences(result)
    assert lines[0] == "They score differently on 1 of 40 questions:"
    assert lines[1].startswith("  0 (0.jpg): Is it? “yes”; the first run “yes” (100 %)")
    assert lines[2] == "On 1 of 40 questions their answers differ and score the same."
    same = compare(first, first, CLOSED)
    assert disagreement_sentences(same) == ["They score differently on none of 40 questions."]
    assert differing_sentences(same)[0].startswith("No difference is known in their recipes")


def test_other_training_data_in_a_folder_of_one_name_is_told(
    demo_run: Path, tmp_path: Path
) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run, print_ in zip(runs, ("aa", "bb"), strict=True):
        shutil.copytree(demo_run, run)
        data = {"vqa": {"folder": f"/data/{run.name}", "fingerprint": print_, "num_records": 9}}
        write_document(run / "record.json", read_document(run / "record.json") | {"data": data})
    assert compare_stored(*runs)["differing"] == [
        {"path": "training data: vqa.fingerprint", "first": "aa", "second": "bb"}
    ]


def test_only_closed_questions_give_one_row() -> None:
    first = said(*["yes"] * 40)
    result = compare(first, said(*["no"] * 40), CLOSED)
    assert [row["measure"] for row in result["rows"]] == ["closed_accuracy"]
    assert result["rows"][0]["difference"] == 100.0


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
    result = paired_summary(better - values, chosen, np.arange(300))
    low, high = result["average"]["interval"]
    assert high - low < 6
    others = 100 * binomtest(0, 150).proportion_ci(0.95, method="exact").high
    assert result["closed_accuracy"]["interval"] == pytest.approx([-others, others])
    assert result["closed_accuracy"]["value"] == 0.0
    assert result["closed_accuracy"]["count"] == 150


def test_run_folders_know_their_questions(demo_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo_run, other)
    result = compare_stored(demo_run, other)
    assert result["num_questions"] == 30
    assert result["missing"] == [1, 1]
    file = next((other / "predictions").rglob("*.jsonl"))
    assert result["runs"] == ["demo", "other"]
    assert [each["file"] for each in result["basis"]] == ["predictions/vqa/made-up/test.jsonl"] * 2
    assert [each["sha256"] for each in result["basis"]] == [file_sha256(file)] * 2
    assert compare_stored(other, demo_run)["rows"] == result["rows"]
    assert result["differing"] == []
    recipe = yaml.safe_load((other / "recipe.yaml").read_text())
    recipe |= {"seed": 7, "description": "other words"}
    recipe["stages"]["aligned"]["alignment"] = {"weight": 0.5}
    (other / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert compare_stored(demo_run, other)["differing"] == [
        {"path": "seed", "first": 0, "second": 7},
        {"path": "stages.aligned.alignment.weight", "first": None, "second": 0.5},
    ]
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
    rows = compare_stored(demo_run, demo_run)["rows"]
    assert compare_stored(first, other, split="test")["rows"] == rows
