"""Answers on disk survive a kill, and odd files are reported."""

import json
from pathlib import Path

import pytest

from exgra_med.errors import DataError
from exgra_med.evaluation.answers import Prediction, PredictionWriter, read_predictions


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "a.jsonl"
    written = [Prediction("1", "左", "stop", "Which side?", 3), Prediction("2", "a\nb", "length")]
    with PredictionWriter(path) as writer:
        writer.append(written)
    assert read_predictions(path).predictions == written


def test_a_torn_last_line_is_reported_and_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with PredictionWriter(path) as writer:
        writer.append([Prediction("1", "yes"), Prediction("2", "no")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    torn = read_predictions(path)
    assert torn.oddities["torn_last_line"]
    assert [each.id for each in torn.predictions] == ["1"]
    with PredictionWriter(path) as writer:
        assert writer.done == {"1"}
        writer.append([Prediction("2", "no")])
    assert path.read_bytes() == whole


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "text": "yes"}', encoding="utf-8")
    with PredictionWriter(path) as writer:
        writer.append([Prediction("2", "no")])
    assert [each.id for each in read_predictions(path).predictions] == ["1", "2"]


def test_the_originals_answers_and_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"question_id": 10, "prompt": "q", "text": "yes"}, {"question_id": 11, "text": 2}]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    found = read_predictions(path)
    assert [(each.id, each.text) for each in found.predictions] == [("10", "yes"), ("11", "2")]
    assert found.oddities["prediction_not_text"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "not a JSON object"),
        ('{"text": "yes"}', "neither `id`"),
        ('{"id": "1"}', "no text"),
        ('{"id": "1", "text": null}', "no text"),
        ('{"id": true, "text": "yes"}', "neither `id`"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{line}\n{{"id": "2", "text": ""}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert f"{path}:1" in caught.value.message
