"""Reports of studies: tables of one's own, and IU X-ray and MIMIC-CXR in their published forms."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Record
from exgra_med.errors import DataError


def pictures(folder: Path, *names: str) -> None:
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 10), 20 + 30 * place).save(path)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path, out: Path, **arguments: Any) -> list[Record]:
    return prepare("custom", path, out, **arguments).records("train")


STUDIES: list[dict[str, Any]] = [
    {"patient_id": "P-0001", "image": "a.png|a2.png", "indication": "Cough?",
     "findings": "No effusion.", "impression": "Normal."},
    {"patient_id": "P-0001", "image": "b.png", "indication": "Fever?",
     "findings": "Left effusion.", "impression": ""},
    {"patient_id": "P-0002", "image": "c.png", "indication": "Pain?",
     "findings": "", "impression": ""},
]  # fmt: skip


def test_a_table_of_reports_needs_no_question(tmp_path: Path) -> None:
    source = table(tmp_path / "mine" / "cases.csv", STUDIES)
    pictures(source.parent, "a.png", "a2.png", "b.png", "c.png")
    first, second = read(source, tmp_path / "out")
    assert first.is_report and first.images == ["a.png", "a2.png"]
    assert first.question == "Write the findings and the impression of these images."
    assert first.answer == "Findings: No effusion.\nImpression: Normal."
    assert second.question == "Write the findings of this image."
    assert second.answer == "Left effusion." and second.answer_type == "OPEN"
    # The patient is a number, and nothing else of it is kept; a study without a report is none.
    assert first.meta["group"] == second.meta["group"] == 1
    assert "P-0001" not in (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8")
    assert first.meta["indication"] == "Cough?"


def test_one_section_can_be_the_report(tmp_path: Path) -> None:
    source = table(tmp_path / "mine" / "cases.csv", STUDIES)
    pictures(source.parent, "a.png", "a2.png", "b.png", "c.png")
    first, second = read(source, tmp_path / "out", mapping={"report": "findings"})
    assert (first.answer, second.answer) == ("No effusion.", "Left effusion.")
    assert first.question == "Write the report of these images."
    assert first.meta["impression"] == "Normal."


def test_a_column_of_reports_and_pictures_in_columns(tmp_path: Path) -> None:
    rows = [{"image_1": "a.png", "image_2": "a2.png", "report": "Clear.", "label": "normal"}]
    source = table(tmp_path / "mine" / "cases.csv", rows)
    pictures(source.parent, "a.png", "a2.png")
    (record,) = read(source, tmp_path / "out")
    # A label beside a report is a fact, and no answer.
    assert record.answer == "Clear." and record.meta["label"] == "normal"
    assert record.images == ["a.png", "a2.png"]


def test_a_question_beside_a_report_stays_a_question(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "Is it clear?", "answer": "yes", "report": "Clear."}]
    source = table(tmp_path / "mine" / "cases.csv", rows)
    pictures(source.parent, "a.png")
    (record,) = read(source, tmp_path / "out")
    assert not record.is_report and record.answer == "yes" and record.meta["report"] == "Clear."
    (record,) = read(source, tmp_path / "other", mapping={"report": "report"})
    assert record.is_report and record.question == "Is it clear?" and record.answer == "Clear."


def test_conversations_with_a_report_beside_them_stay_conversations(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Well?"}, {"from": "gpt", "value": "Yes."}]
    path = tmp_path / "cases.json"
    rows = [{"image": "a.png", "conversations": talk, "findings": "Clear."}]
    path.write_text(json.dumps(rows), encoding="utf-8")
    pictures(tmp_path, "a.png")
    (record,) = read(path, tmp_path / "out")
    assert not record.is_report and record.answer == "Yes." and record.meta["findings"] == "Clear."


def test_iu_xray_tables_are_joined_by_study(tmp_path: Path) -> None:
    source = tmp_path / "iu"
    empty = {"MeSH": "normal", "Problems": "normal", "image": "PA", "indication": ""}
    table(source / "indiana_reports.csv", [
        {"uid": 1, **empty, "findings": "Heart is XXXX. No effusion.", "impression": "Normal."},
        {"uid": 2, **empty, "findings": "", "impression": "Effusion."},
        {"uid": 3, **empty, "findings": "", "impression": ""},
        {"uid": 4, **empty, "findings": "Clear.", "impression": ""},
    ])  # fmt: skip
    table(source / "indiana_projections.csv", [
        {"uid": 1, "filename": "1_IM-0001-3001.dcm.png", "projection": "Lateral"},
        {"uid": 1, "filename": "1_IM-0001-4001.dcm.png", "projection": "Frontal"},
        {"uid": 2, "filename": "2_IM-0652-1001.dcm.png", "projection": "Frontal"},
        {"uid": 3, "filename": "2_IM-0652-1001.dcm.png", "projection": "Frontal"},
    ])  # fmt: skip
    names = ("1_IM-0001-3001", "1_IM-0001-4001", "2_IM-0652-1001")
    pictures(source / "images" / "images_normalized", *(f"{each}.dcm.png" for each in names))
    prepared = prepare("iu-xray", source, tmp_path / "out")
    first, second = prepared.records("test")
    assert prepared.splits == ["test"]
    assert first.images == ["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"]
    assert first.answer == "Findings: Heart is XXXX. No effusion.\nImpression: Normal."
    assert second.question == "Write the impression of this image." and second.is_report
    reasons = [each["reason"] for each in prepared.manifest["dropped"]]
    assert reasons == ["empty answer", "no picture is named"]


ANNOTATION: dict[str, Any] = {
    "train": [{"id": "CXR1", "report": "Clear.", "image_path": ["CXR1/0.png", "CXR1/1.png"]}],
    "val": [],
    "test": [{"id": "CXR2", "report": "Effusion.", "image_path": ["CXR2/0.png"]}],
}


def test_r2gen_annotation_of_iu_xray(tmp_path: Path) -> None:
    source = tmp_path / "iu"
    pictures(source / "images", "CXR1/0.png", "CXR1/1.png", "CXR2/0.png")
    (source / "annotation.json").write_text(json.dumps(ANNOTATION), encoding="utf-8")
    prepared = prepare("iu-xray", source, tmp_path / "out")
    assert prepared.manifest["counts"] == {"train": 1, "test": 1}
    (record,) = prepared.records("train")
    assert record.question == "Write the findings of these images." and record.answer == "Clear."
    assert record.meta["published_id"] == "CXR1"


def test_mimic_cxr_keeps_nobody_but_a_number(tmp_path: Path) -> None:
    source = tmp_path / "mimic"
    rows = [
        {"id": f"0a-{n}", "study_id": 50414267 + n, "subject_id": 10000032, "split": "test",
         "report": "Clear.", "image_path": [f"p/s{n}.png"]}
        for n in range(2)
    ]  # fmt: skip
    pictures(source / "images", "p/s0.png", "p/s1.png")
    (source / "annotation.json").write_text(json.dumps({"test": rows}), encoding="utf-8")
    prepared = prepare("mimic-cxr", source, tmp_path / "out")
    assert [each.meta["group"] for each in prepared.records("test")] == [1, 1]
    text = (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8")
    assert "10000032" not in text and "50414267" not in text


def test_the_list_of_medevalkit(tmp_path: Path) -> None:
    source = tmp_path / "iu"
    pictures(source / "images", "CXR1.png")
    row = {"id": "open_i_1", "image": ["CXR1.png"], "findings": "Low.", "impression": "Fine."}
    (source / "test.json").write_text(json.dumps([row]), encoding="utf-8")
    (record,) = prepare("iu-xray", source, tmp_path / "out").records("test")
    assert record.id == "iu-xray/test/open_i_1"
    assert record.answer == "Findings: Low.\nImpression: Fine."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("annotation.json", "[]", "not a JSON object"),
        ("annotation.json", "{}", "none of train, val, test"),
        ("annotation.json", '{"test": {}}', "'test' is not a list"),
        ("annotation.json", '{"test": [3]}', "test: row 0: not an object"),
        ("annotation.json", '{"test": [{"id": 1, "image_path": [[1]]}]}', "no list of file names"),
        ("annotation.json", '{"test": [{"id": 1, "image_path": []}]}', "no picture is named"),
        ("test.json", '[{"id": 1}]', "'image' is no list of file names"),
        ("nothing.json", "[]", "'test.json' is missing"),
    ],
)
def test_what_is_no_report_set_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    source = tmp_path / "iu"
    source.mkdir()
    (source / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        prepare("iu-xray", source, tmp_path / "out")
