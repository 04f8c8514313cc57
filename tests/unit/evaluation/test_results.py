"""`results.json` is merged, whole at every moment, and refuses what it does not know."""

import json
from pathlib import Path

import pytest
from exgra_med.evaluation.vqa import score_run

from exgra_med.data.record import Record, Turn
from exgra_med.errors import RunError, WriteError
from exgra_med.evaluation.answers import Prediction, PredictionWriter
from exgra_med.evaluation.results import read_results, update_results, vqa_section
from exgra_med.evaluation.session import answered_datasets, answers_path


def test_sections_are_merged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    update_results(run, {"alignment": {"loss": {"start": 2.0}}, "vqa": {"strict": {"average": 1}}})
    update_results(run, {"alignment": {"loss": {"end": 1.0}}, "vqa": {"strict": {"average": 2}}})
    assert read_results(run) == {
        "schema_version": 1,
        "alignment": {"loss": {"start": 2.0, "end": 1.0}},
        "vqa": {"strict": {"average": 2}},
    }
    assert [path.name for path in run.iterdir()] == ["results.json"]


def test_another_split_is_kept_apart_and_the_headline_stays(tmp_path: Path) -> None:
    turns = [Turn(role="user", text="Is it?"), Turn(role="assistant", text="yes")]
    record = Record(id="1", turns=turns, answer_type="CLOSED")
    for split, text, apart in (("test", "yes", False), ("unseen", "no", True)):
        with PredictionWriter(answers_path(tmp_path, "world", split, apart=apart)) as writer:
            writer.append([Prediction("1", text, "stop")])
        score_run(tmp_path, "world", [record], split=split, apart=apart, num_bootstrap_samples=0)
    results = read_results(tmp_path)
    assert results["vqa"]["split"] == "test"
    assert results["vqa"]["strict"]["closed_accuracy"] == 100.0
    assert results["other_splits"]["unseen"]["vqa"]["split"] == "unseen"
    assert results["other_splits"]["unseen"]["vqa"]["strict"]["closed_accuracy"] == 0.0
    assert answered_datasets(tmp_path) == ["world"]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update_results(tmp_path, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        update_results(tmp_path, {"a": 2})
    assert read_results(tmp_path)["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["{", json.dumps({"schema_version": 9})])
def test_an_unknown_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(RunError):
        read_results(tmp_path)


def test_a_score_becomes_a_section_with_open_and_closed_names() -> None:
    score = {
        "scorer": "legacy-pathvqa",
        "metrics": {"recall": 50.0, "closed_accuracy": 60.0, "average": 55.0},
        "intervals": {"recall": [40.0, 60.0]},
        "num_open": 3,
    }
    section = vqa_section(score)["vqa"]["legacy_pathvqa"]
    assert section["average"] == 55.0
    assert section["open_recall"] == 50.0
    assert section["intervals"]["open_recall"] == [40.0, 60.0]
    assert section["num_open"] == 3
