"""Answers on disk survive a kill, and odd files are reported."""

import json
from pathlib import Path

import pytest

from exgra_med.data.records import Record, Turn
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import (
    Prediction,
    PredictionWriter,
    pair,
    question_of,
    read_predictions,
)


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "a.jsonl"
    written = [Prediction("1", "左", "stop", "Which side?", 3), Prediction("2", "a\nb", "length")]
    with PredictionWriter(path) as writer:
        writer.append(written)
    assert list(read_predictions(path).predictions) == written


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
        assert "1" in writer.done and "2" not in writer.done
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
        ('"yes"', "not a JSON object"),
        ('{"id": "1", "text": ["yes"]}', "no text"),
        ('{"id": "1", "response": null}', "`response` of '1' is no text"),
        ('{"id": "1", "answer": "yes", "text": "Is it?"}', "both `text` and `answer` of '1'"),
        ('{"id": "1", "predict": "yes", "output": "no"}', "both `predict` and `output`"),
        ('{"id": "1", "turns": []}', "a record, not a prediction"),
        ('{"id": "1", "conversations": []}', "a record, not a prediction"),
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


@pytest.mark.parametrize("key", ["text", "response", "prediction", "predict", "output", "answer"])
@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_answers_of_other_tools(tmp_path: Path, key: str, is_list: bool, mark: str) -> None:
    rows = [{"id": "a", key: "Yes"}, {"question_id": 2, key: ""}]
    text = json.dumps(rows, indent=1) if is_list else "\n".join(map(json.dumps, rows))
    (tmp_path / "a.json").write_text(mark + text, encoding="utf-8")
    found = read_predictions(tmp_path / "a.json")
    assert [(each.id, each.text) for each in found.predictions] == [("a", "Yes"), ("2", "")]
    assert not found.oddities["torn_last_line"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([{"id": "1", "text": "x"}]).encode("utf-16"), "UTF-16.*Save the file as UTF-8"),
        (b'[{"id": "1", "text": "x"}, 5]', "item 1: not a JSON object"),
        (b'[{"id": "1", "text": "x"}', "not valid JSON"),
    ],
)
def test_a_list_that_is_no_list_of_answers(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / "a.json")


def test_row_numbers_are_not_taken_for_published_ids() -> None:
    turns = [Turn(role="user", text="Q"), Turn(role="assistant", text="A")]
    questions = [
        question_of(Record(id=f"x/{n}", turns=turns, meta={"published_id": str(n + 1)}))
        for n in range(3)
    ]
    answers = [Prediction(str(n), "A") for n in range(3)]
    with pytest.raises(ScoreError, match=r"numbered from 0 as rows are.*\['1', '2', '3'\]"):
        pair(answers, questions)
    published = [Prediction(str(n + 1), f"A{n}") for n in range(3)]
    assert list(pair(published, questions).answers) == ["A0", "A1", "A2"]
    assert pair(published[:2], questions).counts["missing"] == 1
