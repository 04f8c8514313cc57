import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.captions.check import check_captions
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
    ("negation lost", "What is seen?", "No fracture", "There is a fracture."),
    ("negation lost", "Is this a CT?", "No", "This is an MRI of the head."),
    ("negation added", "Is it healed?", "Yes", "There is no callus at all."),
    ("answer flipped", "Fracture?", "There is no fracture", "There is a fracture."),
    ("answer flipped", "Fracture?", "No", "A fracture can be seen here."),
    ("answer flipped", "Fracture?", "Yes", "There is no fracture."),
    ("answer flipped", "Is there a fracture?", "No", "Yes, a fracture of the rib."),
    ("answer flipped", "Is there a fracture?", "yes", "No. The bones are intact."),
    ("answer flipped", "Is there a fracture?", "No", "There is a fracture without displacement."),
    ("answer flipped", "Is there a pleural effusion?", "Not seen", "A pleural effusion is seen."),
    ("answer flipped", "Is the heart enlarged?", "Yes", "The heart is not enlarged."),
    ("answer flipped", "Is the heart enlarged?", "No", "This is an X-ray. The heart is enlarged."),
    ("answer flipped", "Is there a bleed in the head?", "No", "There is evidence of a bleed."),
    ("answer flipped", "Is a mass seen in this chest X-ray?", "No", "A mass is visible."),
    ("answer flipped", "Are the lungs normal?", "No", "The lungs are normal."),
    ("answer flipped", "Are the lungs normal?", "Yes", "The lungs are abnormal."),
    ("answer flipped", "Is a mass seen?", "Yes", "A mass cannot be seen in this picture."),
    ("answer flipped", "Is this a CT?", "No", "This is a CT of the head."),
    ("term lost", "What?", "pneumothorax", "Air lies beside the lung."),
    ("refusal", "What?", "A mass", "I'm sorry, I cannot see a mass."),
    ("talks about the task", "What?", "A mass", "The original answer says a mass."),
    ("talks about the task", "What?", "A mass", "As an AI, I see a mass in the lung."),
    ("talks about the task", "What?", "A mass", "As a large language model I see a mass."),
    ("talks about the task", "What?", "A mass", "The provided image caption tells of a mass."),
    ("talks about the task", "What?", "A mass", "According to the caption, it is a mass."),
    ("talks about the task", "What?", "A mass", "Here is the extended answer: a mass."),
    ("talks about the task", "What?", "A mass", "Here's a more detailed answer: a mass is seen."),
    ("talks about the task", "What?", "A mass", "A mass is seen. I hope this helps!"),
    ("talks about the task", "What?", "A mass", "Sure, here it is: a mass."),
    ("talks about the task", "What?", "A mass", "The question asks for the mass that is seen."),
    ("prompt leaked", "What?", "A mass", 'A mass.", "revision": "A mass is seen.'),
    ("prompt leaked", "What?", "A mass", "### Response: A mass is seen."),
    ("prompt leaked", "What?", "A mass", "A mass is seen.<|im_end|>"),
    ("prompt leaked", "What?", "A mass", "[INST] What? [/INST] A mass is seen."),
    ("prompt leaked", "What?", "A mass", "ASSISTANT: A mass is seen."),
    ("prompt leaked", "What?", "A mass", "Question: What? Answer: A mass is seen."),
    ("prompt leaked", "What?", "A mass", "You are a careful medical editor. A mass is seen."),
    ("prompt leaked", "What?", "A mass", "A mass; keep the answer's medical terms; explain them."),
    ("prompt leaked", "What?", "A mass", "Answer the question using a single word. A mass."),
    ("prompt leaked", "What is in the lung?", "A mass", "What is in the lung? A mass is there."),
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
        ("Is there a fracture?", "Yes", "The picture shows a fracture of the rib, no other."),
        ("Is there a fracture?", "No", "A fracture is not seen; the bones are whole."),
        ("Is there a fracture?", "No", "The bones of the hand are free of any fracture."),
        ("Is there an effusion?", "Yes", "There is an effusion; a mass cannot be ruled out."),
        ("Is the mass in the lung soft?", "No", "The mass in the lung is hard, not soft."),
        ("Is there a mass in the lung?", "No", "There is no mass in either of the lungs."),
        ("Is this an MRI?", "Yes", "Yes. Is this an MRI image of the head? Yes."),
        ("Is there a mass?", "No", "A mass is absent from this picture of the lung."),
        ("Are the lungs normal?", "No", "The lungs are abnormal in this picture."),
        ("Is the heart of normal size?", "Yes", "The heart is of normal size."),
        ("Is there a mass?", "Yes", "Yes, there is a mass, and the other lung looks clear."),
        ("What was done?", "A revision", "The revision surgery of the hip gave it a new implant."),
        ("What is needed?", "Treatment", "The prompt treatment of such an infection is needed."),
        ("What is it?", "Sepsis", "Prompt recognition of sepsis, an infection, saves lives."),
        ("What is shown?", "A mass", "The given image shows a mass in the provided view."),
        ("Which is it?", "Original lesion", "The original lesion is the one seen at first."),
        ("What is it?", "Caput medusae", "Caput medusae are veins, here around the navel."),
        ("Who answers?", "Immune cells", "Immune cells answer: the immune response is strong."),
        ("What helps?", "Assistance", "Assistance by an expert helps you; assistance is needed."),
        ("How is it seen?", "Extended view", "The extended view of the knee shows it well."),
        ("What is seen?", "Response", "Response: partial, an improved response to therapy."),
        ("Which system?", "Respiratory", "RESPIRATORY SYSTEM: clear lungs, as usual."),
        ("Who found it?", "Baker", "The original description of the cyst is by Baker."),
        ("What did he do?", "Breathe", "The patient did breathe in as instructed."),
        ("What is it?", "Instrument", "An instrument given by the surgeon is seen here."),
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


def test_the_worst_come_first(tmp_path: Path) -> None:
    good = ("What?", "A mass", "A mass can be seen in picture {}.")
    rows = [(good[0], good[1], good[2].format("x" * n)) for n in range(1, 30)]
    rows[7] = ("Where?", "In the left lung", "It is in the right lung.")
    rows[9] = ("Size?", "A mass", "A mass of 12 mm.")
    origin = {"model": "m", "prompt": "p"}
    path = write(tmp_path / "long.jsonl", rows, extended_by=origin)
    report = check_captions(open_records(str(path)), num_worst=2)
    assert [example.id for example in report.worst] == ["r/7", "r/9"]
    assert (report.answers, report.faulty, report.counts["side flipped"]) == (29, 2, 1)
    assert report.origins == {"m, prompt p": 29}


def test_one_extension_for_two_answers_is_a_duplicate(tmp_path: Path) -> None:
    text = "The picture shows what was asked for."
    rows = [("Q", "alpha", text), ("Q", "beta", text), ("Q2", "alpha", text)]
    report = check_captions(open_records(str(write(tmp_path / "a.jsonl", rows))))
    assert report.counts["duplicate"] == 1


def test_the_verb_shows_the_worst_and_counts_in_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [case[1:] for case in CASES])
    given = ["captions", "check", str(path)]
    shown = CliRunner().invoke(app, [*given, "--json"], catch_exceptions=False)
    found = json.loads(shown.stdout)
    assert list(found["faults"]) == list(WEIGHTS)
    assert found["answers"] == found["faulty"] == len(CASES)
    assert "right lung" not in shown.stdout
    told = CliRunner().invoke(app, [*given, "--worst", "1"], catch_exceptions=False).output
    assert "The worst:\n    r/" in told and told.count("extended: ") == 1
    assert f"Next: exgra-med captions review {path} --rater NAME" in told


def test_a_file_without_extended_answers_is_an_error(records) -> None:
    with pytest.raises(DataError, match="no record has extended"):
        check_captions(open_records(str(records(2))))
