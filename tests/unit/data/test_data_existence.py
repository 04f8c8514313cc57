"""Questions after findings: absent ones are absent, and chosen as they say."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from exgra_med.data.existence import Truth, existence_questions
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.prepare import prepare
from exgra_med.errors import DataError


def truth(name: str, *findings: str, group: str = "chest") -> Truth:
    return Truth(name, frozenset(findings), group)


WORLD = [
    truth("1", "effusion", "pneumonia"),
    truth("2", "effusion", "pneumonia"),
    truth("3", "effusion"),
    truth("4", "nodule"),
    truth("5"),
    truth("6", "edema", group="head"),
    truth("7", "edema", group="head"),
    truth("8", "edema", group="head"),
    truth("9", "edema", group="head"),
    truth("10", "tumor", group="head"),
]


def kinds_of(picture: str, seed: int = 0) -> dict[str, tuple[str, ...]]:
    return {
        each.finding: each.kinds
        for each in existence_questions(WORLD, seed)
        if each.truth.image == picture
    }


def test_absent_findings_are_frequent_or_go_with_what_is_there() -> None:
    three = kinds_of("3")
    assert three["effusion"] == ("present",)
    # Most frequent of all is edema; what goes with effusion is pneumonia.
    assert "popular" in three["edema"] and "adversarial" not in three["edema"]
    assert "adversarial" in three["pneumonia"] and "popular" not in three["pneumonia"]
    # Nothing goes with a nodule: the most frequent one of its group.
    assert "adversarial" in kinds_of("4")["effusion"]
    assert "adversarial" in kinds_of("6")["tumor"]


def test_a_picture_without_a_finding_is_asked_for_one_of_each_kind() -> None:
    found = kinds_of("5")
    assert Counter(kind for each in found.values() for kind in each) == {
        "random": 1, "popular": 1, "adversarial": 1,
    }  # fmt: skip
    assert "adversarial" in found["effusion"]


def test_every_question_is_true_and_asked_once() -> None:
    for seed in range(5):
        asked = list(existence_questions(WORLD, seed))
        assert len({(each.truth.image, each.finding) for each in asked}) == len(asked)
        for each in asked:
            assert each.is_there == (each.finding in each.truth.findings)
        for picture in WORLD:
            own = Counter(k for e in asked if e.truth is picture for k in e.kinds)
            number = max(1, len(picture.findings))
            assert own["random"] == own["popular"] == number >= own["adversarial"]
    choices = {frozenset(kinds_of("1", seed)) for seed in range(20)}
    assert len(choices) > 1, "the seed draws the random ones"
    assert kinds_of("1") == kinds_of("1")


def test_what_can_be_called_by_the_same_name_is_not_asked_as_absent() -> None:
    asked = existence_questions(WORLD, overlaps=[{"nodule", "tumor"}])
    absent = {(e.truth.image, e.finding) for e in asked if not e.is_there}
    assert ("4", "tumor") not in absent and ("10", "nodule") not in absent
    assert any(finding == "tumor" for _, finding in absent)


def write_slake(folder: Path, boxes: dict[str, list[str] | None]) -> Path:
    """SLAKE's layout with one question a picture; None is a picture without boxes beside it."""
    rows = []
    for number, (name, found) in enumerate(boxes.items()):
        picture = folder / "imgs" / name / "source.jpg"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(picture)
        if found is not None:
            value = [{label: [0.0, 0.0, 4.0, 4.0]} for label in found]
            (picture.parent / "detection.json").write_text(json.dumps(value))
        rows.append(
            {
                "img_id": number, "img_name": f"{name}/source.jpg", "question": "Which organ?",
                "answer": "Lung", "q_lang": "en", "location": "Lung", "modality": "X-Ray",
                "answer_type": "OPEN", "base_type": "vqa", "content_type": "Organ",
                "triple": ["vhead", "_", "_"], "qid": number,
            }
        )  # fmt: skip
    for file in ("train.json", "validate.json", "test.json"):
        (folder / file).write_text(json.dumps(rows if file == "test.json" else []))
    return folder


def test_slake_is_asked_by_its_boxes(tmp_path: Path) -> None:
    boxes = {
        "a": ["Cardiomegaly", "Cardiomegaly", "Lung"], "b": ["Effusion"], "c": ["Liver"],
        "d": ["Mass"], "e": ["Nodule"], "f": None,
    }  # fmt: skip
    source = write_slake(tmp_path / "slake", boxes)
    prepared = prepare("slake-existence", source, tmp_path / "out")
    records = prepared.records("test")
    assert prepared.manifest["dataset"] == "slake-existence"
    assert [each["id"] for each in prepared.manifest["dropped"]] == ["slake-existence/test/f"]
    assert not check_prepared(prepared).faults
    answers = {(each.images[0][0], each.meta["finding"]): each.answer for each in records}
    assert answers["a", "Cardiomegaly"] == answers["b", "Effusion"] == "Yes"
    # Boxes of organs say nothing, so organs are not asked for; c has no finding.
    assert not {"Lung", "Liver"} & {finding for _, finding in answers}
    assert {answer for (picture, _), answer in answers.items() if picture == "c"} == {"No"}
    assert ("d", "Nodule") not in answers and ("e", "Mass") not in answers
    assert records[0].question == "Is there cardiomegaly in this picture?"


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_boxes_that_are_none_are_one_sentence(tmp_path: Path, text: str) -> None:
    source = write_slake(tmp_path / "slake", {"a": ["Mass"]})
    (source / "imgs" / "a" / "detection.json").write_text(text)
    with pytest.raises(DataError, match=r"detection\.json"):
        prepare("slake-existence", source, tmp_path / "out")


def test_without_any_box_there_is_nothing_to_ask(tmp_path: Path) -> None:
    source = write_slake(tmp_path / "slake", {"a": None})
    with pytest.raises(DataError, match=r"no picture has a detection\.json"):
        prepare("slake-existence", source, tmp_path / "out")
