"""Extended answers from what else is published of a picture."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.captions.compose import compose_captions
from exgra_med.captions.merge import merge_captions
from exgra_med.cli.main import app
from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared, read_records, write_records
from exgra_med.errors import DamagedFileError, DataError

QUESTIONS = [
    ("train", "a", "Which side?", "Left"),
    ("train", "a", "Is the heart enlarged?", "No"),
    ("train", "b", "Which side?", "Right"),
    ("test", "c", "Secret?", "Hidden"),
]


def test_an_answer_is_followed_by_caption_and_other_questions(prepared, tmp_path):
    data = prepared("data", QUESTIONS)
    captions = prepared("captions", [("train", "a", "Describe.", "An X-ray")])
    counts = compose_captions(data, [captions], tmp_path / "long.jsonl")
    assert counts["answers"] == 3
    assert (counts["with_caption"], counts["with_question"], counts["bare"]) == (2, 2, 1)
    extended = [record.extended for record in read_records(tmp_path / "long.jsonl")]
    assert extended == [
        ["Left. An X-ray. Is the heart enlarged? No."],
        ["No. An X-ray. Which side? Left."],
        ["Right"],
    ]
    merge_captions(data, tmp_path / "long.jsonl", tmp_path / "merged")
    assert [r.extended for r in open_prepared(tmp_path / "merged").records("train")] == extended


def test_nothing_of_a_test_question_gets_in(prepared, tmp_path):
    rows = [
        *QUESTIONS,
        ("test", "a", "Secret?", "Hidden"),
        ("validation", "b", "Secret?", "Hidden"),
    ]
    data = prepared("data", rows)
    compose_captions(data, [data], tmp_path / "long.jsonl", num_questions=9)
    assert "idden" not in (tmp_path / "long.jsonl").read_text()


def test_the_seed_chooses_and_the_number_bounds(prepared, tmp_path):
    rows = [("train", "a", f"Question {n}?", f"{n}") for n in range(9)]
    data = prepared("data", rows)
    texts = []
    for seed in (0, 0, 1):
        compose_captions(data, [], tmp_path / "long.jsonl", num_questions=3, seed=seed)
        texts.append((tmp_path / "long.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]
    for record in read_records(tmp_path / "long.jsonl"):
        assert record.extended[0].count("Question") == 3
        assert record.turns[0].text not in record.extended[0]


def test_nothing_is_said_twice_in_a_conversation(prepared, tmp_path):
    rows = [("train", "a", f"Question {n}?", f"{n}") for n in range(7)]
    data = Path(prepared("data", rows))
    asked = read_records(data / "train.jsonl")
    (tmp_path / "source").mkdir()
    talk = asked[0].model_copy(update={"turns": [t for each in asked[:3] for t in each.turns]})
    write_records(tmp_path / "source" / "train.jsonl", [talk, *asked[3:]])
    shutil.copytree(data / "images", tmp_path / "source" / "images")
    prepare("custom", tmp_path / "source", tmp_path / "talk")
    captions = prepared("captions", [("train", "a", "Describe.", "An X-ray")])
    compose_captions(str(tmp_path / "talk"), [captions], tmp_path / "long.jsonl", num_questions=2)
    extended = read_records(tmp_path / "long.jsonl")[0].extended
    whole = " ".join(extended)
    assert whole.count("An X-ray") == 1
    others = re.findall(r"Question (\d)", whole)
    assert sorted(others) == ["3", "4", "5", "6"]  # each once, none that the conversation asks
    assert [text.count("Question") for text in extended] == [2, 1, 1]


def test_where_nothing_is_known_it_is_refused(prepared, tmp_path):
    data = prepared("data", [("train", "a", "Which side?", "Left")])
    with pytest.raises(DataError, match="nothing else is published"):
        compose_captions(data, [], tmp_path / "long.jsonl")
    assert not (tmp_path / "long.jsonl").exists()


def test_the_command_says_what_it_did(prepared, tmp_path):
    data = prepared("data", QUESTIONS)
    out = str(tmp_path / "long.jsonl")
    result = CliRunner().invoke(app, ["captions", "compose", data, "--out", out])
    assert result.exit_code == 0, result.output
    assert (
        "3 answers extended: 0 by a caption, 2 by other questions, 1 by nothing." in result.output
    )


def test_a_changed_extended_answer_is_found(prepared, tmp_path):
    data, long = prepared("data", QUESTIONS), tmp_path / "long.jsonl"
    compose_captions(data, [], long)
    whole = long.read_text("utf-8")
    long.write_text(whole.replace("enlarged? No", "enlarged? Yes"), "utf-8")
    for read in (
        lambda: merge_captions(data, long, tmp_path / "merged"),
        lambda: read_records(long),
    ):
        with pytest.raises(DamagedFileError, match=r"long\.jsonl holds a line 1 that is not"):
            read()
    assert not (tmp_path / "merged").exists()
    # Changed on purpose, as the sentence says.
    long.write_text(re.sub(r', "sha256": "\w+"}', "}", long.read_text("utf-8")), "utf-8")
    merge_captions(data, long, tmp_path / "merged")
    first = open_prepared(tmp_path / "merged").records("train")[0]
    assert first.extended == ["Left. Is the heart enlarged? Yes."]
