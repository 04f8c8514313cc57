import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.captions.check import check_captions, render_check
from exgra_med.captions.faults import WEIGHTS, copy_rate, find_faults
from exgra_med.captions.records import open_records
from exgra_med.cli.main import app
from exgra_med.errors import DataError

CASES = [
    ("side flipped", "Where?", "In the left lung", "The finding lies in the right lung."),
    ("side flipped", "Where?", "bilateral effusions", "There are effusions on the left."),
    ("side invented", "Where?", "In the lung", "The finding is in the left lung."),
    ("number lost", "Size?", "A mass of 3.5 cm", "A mass of a few cm is there."),
    ("number invented", "Size?", "A small mass", "A small mass of about 12 mm is there."),
    ("negation lost", "Fracture?", "There is no fracture", "There is a fracture."),
    ("negation lost", "Fracture?", "No", "A fracture can be seen here."),
    ("negation added", "Fracture?", "Yes", "There is no fracture."),
    ("term lost", "What?", "pneumothorax", "Air lies beside the lung."),
    ("refusal", "What?", "A mass", "I'm sorry, I cannot see a mass."),
    ("talks about the task", "What?", "A mass", "The original answer says a mass."),
    ("language drift", "What?", "A mass", "这是一个肿块"),
    (
        "language drift",
        "What is shown in the image and where is it?",
        "A mass",
        "Das ist eine Masse, die auf der Seite liegt und mit der Wand verbunden ist.",
    ),
    ("copied", "What?", "A mass in the lung", "A mass in the lung."),
    ("too short", "What?", "A mass in the upper part of the lung", "A mass."),
    ("too long", "What?", "A mass", "A mass " + "that is seen well " * 40),
]


@pytest.mark.parametrize(("kind", "question", "answer", "extended"), CASES)
def test_a_fault_is_seen(kind: str, question: str, answer: str, extended: str) -> None:
    assert kind in {fault.kind for fault in find_faults(question, answer, extended)}


@pytest.mark.parametrize(
    ("question", "answer", "extended"),
    [
        ("Where?", "Left lung", "The finding lies in the left lung, one of the two lungs."),
        ("Where?", "both lungs", "Bilateral involvement: the left and the right lung show it."),
        (
            "Which side, left or right?",
            "the left",
            "It lies on the left; the right side looks as usual.",
        ),
        ("How many?", "2", "Two lesions can be seen in the picture."),
        ("How many?", "two lesions", "There are 2 lesions in the picture."),
        ("Size?", "1,500 ml", "The volume is 1500 ml, which is large."),
        ("Size?", "3.0 cm", "It measures 3 cm across."),
        ("Fracture?", "No", "No, there is no fracture; the bones are intact."),
        ("Is it normal?", "Yes", "Yes, the picture is normal."),
        ("What?", "Pneumonia", "The picture shows pneumonia, an infection of the lung."),
        ("What?", "肿块", "这是一个肿块。"),
    ],
)
def test_a_good_answer_shows_none(question: str, answer: str, extended: str) -> None:
    assert find_faults(question, answer, extended) == []


def test_copy_rate() -> None:
    assert copy_rate("a b c d e f g h", "a b c d e f g h") == 1
    assert copy_rate("a b c d e", "x a b c d") == 0.5
    assert copy_rate("a b", "") == 0


def write(path: Path, rows: list[tuple[str, str, str]], **meta: object) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for number, (question, answer, extended) in enumerate(rows):
            talk = [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
            row = {"id": f"r/{number}", "turns": talk, "extended": [extended], "meta": meta}
            stream.write(json.dumps(row) + "\n")
    return path


def test_the_worst_come_first_and_the_sample_is_seeded(tmp_path: Path) -> None:
    good = ("What?", "A mass", "A mass can be seen in picture {}.")
    rows = [(good[0], good[1], good[2].format("x" * n)) for n in range(1, 30)]
    rows[7] = ("Where?", "In the left lung", "It is in the right lung.")
    rows[9] = ("Size?", "A mass", "A mass of 12 mm.")
    origin = {"model": "m", "prompt": "p"}
    path = write(tmp_path / "long.jsonl", rows, extended_by=origin)
    report = check_captions(open_records(str(path)), num_worst=2, num_sample=5, seed=3)
    assert [example.id for example in report.worst] == ["r/7", "r/9"]
    assert (report.answers, report.faulty, report.counts["side flipped"]) == (29, 2, 1)
    assert report.origins == {"m, prompt p": 29}
    same = check_captions(open_records(str(path)), num_sample=5, seed=3)
    other = check_captions(open_records(str(path)), num_sample=5, seed=4)
    assert same.sample == report.sample != other.sample


def test_one_extension_for_two_answers_is_a_duplicate(tmp_path: Path) -> None:
    text = "The picture shows what was asked for."
    rows = [("Q", "alpha", text), ("Q", "beta", text), ("Q2", "alpha", text)]
    report = check_captions(open_records(str(write(tmp_path / "a.jsonl", rows))))
    assert report.counts["duplicate"] == 1


def test_the_page_shows_text_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> <img src=http://x.example/y>"
    path = write(tmp_path / "a.jsonl", [(evil, "left " + evil, "right " + evil)])
    page = render_check(check_captions(open_records(str(path))), evil)
    assert "<script" not in page and "<img" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "What this does not show" in page


def test_the_verb_writes_page_and_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [case[1:] for case in CASES])
    page = tmp_path / "check.html"
    given = ["captions", "check", str(path), "--html", str(page), "--json"]
    shown = CliRunner().invoke(app, given, catch_exceptions=False)
    found = json.loads(shown.stdout)
    assert list(found["faults"]) == list(WEIGHTS)
    assert found["answers"] == found["faulty"] == len(CASES)
    assert "side flipped" in page.read_text(encoding="utf-8")
    assert "right lung" not in shown.stdout
    assert CliRunner().invoke(app, ["captions", "check", str(path)]).exit_code == 0


def test_a_file_without_extended_answers_is_an_error(records) -> None:
    with pytest.raises(DataError, match="no record has extended"):
        check_captions(open_records(str(records(2))))
