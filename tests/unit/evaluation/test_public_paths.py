"""Public functions that read files and folders take a text as well as a `Path`."""

import json
from pathlib import Path

import pytest

from exgra_med.errors import RunError
from exgra_med.evaluation.answers import Question, read_predictions
from exgra_med.evaluation.compare import compare, compare_stored
from exgra_med.evaluation.results import Entry, Results, put_result, read_results
from exgra_med.evaluation.score import score_files
from exgra_med.recipe.load import load_recipe, shipped_recipes
from exgra_med.recipe.run_folder import open_run, start_run

TALK = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "yes"}]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Predictions, reference and candidates."""
    answers, reference, candidates = (tmp_path / name for name in ("a.jsonl", "r.json", "c.json"))
    answers.write_text(json.dumps({"id": "1", "text": "yes"}) + "\n")
    item = {"id": "1", "image": "1.png", "answer_type": "CLOSED", "conversations": TALK}
    reference.write_text(json.dumps([item]))
    candidates.write_text('["yes"]')
    return answers, reference, candidates


def test_a_text_scores_and_compares_as_a_path_does(files: tuple[Path, Path, Path]) -> None:
    answers, reference, candidates = files
    as_text = score_files(
        f"{answers}", f"{reference}", candidates=f"{candidates}", num_bootstrap_samples=0
    )
    assert as_text == score_files(
        answers, reference, candidates=candidates, num_bootstrap_samples=0
    )
    compared = compare_stored(f"{answers}", f"{answers}", f"{reference}")
    assert compared == compare_stored(answers, answers, reference)


def test_a_text_opens_a_recipe_a_run_and_its_results(tmp_path: Path) -> None:
    path = shipped_recipes()["demo"]
    recipe = load_recipe(path).recipe
    assert recipe == load_recipe(str(path)).recipe
    start_run(tmp_path, recipe, resume=False)
    assert open_run(f"{tmp_path}") == open_run(tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        open_run(f"{tmp_path}/nope")
    put_result(tmp_path, Entry(dataset="d", split="test", task="vqa", engine={}, scores={}))
    assert read_results(f"{tmp_path}") == read_results(tmp_path)


def test_results_of_a_folder_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nope: no such folder"):
        read_results(tmp_path / "nope")
    assert read_results(tmp_path) == Results(schema_version=2, results=[])


def test_a_comparison_over_one_image_has_no_interval(files: tuple[Path, Path, Path]) -> None:
    answers = read_predictions(files[0]).predictions
    question = Question("1", "Is it?", "yes", "CLOSED")
    (row,) = compare(answers, answers, [question])["rows"]
    assert row["interval"] is None and row["verdict"] == "same"
