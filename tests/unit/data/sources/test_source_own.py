"""One table of any name: its columns, its sheets, its splits, what names a person, its terms."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.derive import write_split
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.inspect.describe import describe_manifest
from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared, open_prepared
from exgra_med.data.sources.identifiers import by_name, identifying
from exgra_med.data.sources.source import Column, OwnData
from exgra_med.errors import DataError

HEAD = "image,question,answer"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (9, 8), (30 * number, 60, 30)).save(folder / f"images/{number}.png")
    return folder


def make(mine: Path, content: str | bytes, name: str = "cases.csv", **options: Any) -> Prepared:
    (mine / name).write_bytes(content.encode() if isinstance(content, str) else content)
    own = OwnData(**{key: options.pop(key) for key in ("images", "sheet", "keep", "drop", "approve")
                     if key in options})  # fmt: skip
    return prepare("custom", mine / name, mine.parent / "out", own=own, overwrite=True, **options)


def workbook(mine: Path, **sheets: list[list[Any]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(mine / "cases.xlsx")
    return mine / "cases.xlsx"


@pytest.mark.parametrize(
    "name, content",
    [
        ("cases.csv", f"{HEAD}\n0.png,Lung?,yes\n"),
        ("cases.csv", "\ufeffAntwort;Frage;Bild\nyes;Lung?;0.png\n"),
        ("my table.tsv", "REPLY\tPrompt\tfile name\nyes\tLung?\t0.png\n"),
        ("cases.csv", f"{HEAD}\nC:\\scans\\0.png,Lung?,yes\n"),
        ("cases.csv", f"{HEAD}\n/data/images/0.png,Lung?,yes\n"),
        ("cases.csv", "answer,x,y\nyes,images\\0.png,Lung?\n"),
        ("cases.jsonl", json.dumps({"answer": True, "pic": "0.png", "asked": "Lung?"})),
        ("cases.json", json.dumps([{"label": "yes", "pic": "0.png", "Question Text": "Lung?"}])),
    ],
    ids=repr,
)
def test_columns_are_known_by_name_else_by_what_is_in_them(
    mine: Path, name: str, content: str
) -> None:
    [record] = make(mine, content, name).records("train")
    assert (record.image, record.question, record.answer) == ("0.png", "Lung?", "yes")


def test_each_column_is_shown_with_what_it_is_taken_for(mine: Path) -> None:
    seen: list[Column] = []
    table = (
        "Bild,MRN,patient,Frage,answer,organ\n0.png,00123,p7,Lung?,,\n1.png,00124,p8,Side?,l,x\n"
    )
    make(mine, table, approve=seen.extend)
    assert [(each.name, each.meaning, each.first) for each in seen] == [
        ("Bild", "image", "0.png"),
        ("MRN", "left out, may name a person: by its name", ""),
        ("patient", "group, kept as a number", ""),
        ("Frage", "question", "Lung?"),
        ("answer", "answer", "l"),
        ("organ", "meta", "x"),
    ]


def test_who_says_no_makes_nothing(mine: Path) -> None:
    def refuse(columns: list[Column]) -> None:
        raise DataError("Nothing was made.")

    with pytest.raises(DataError, match="Nothing was made"):
        make(mine, f"{HEAD}\n0.png,Lung?,yes\n", approve=refuse)
    assert not (mine.parent / "out").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("a,b,question,answer\n0.png,1.png,Q?,x\n", "'a' and 'b' may be the column 'image'.*--map"),
        ("image,a,b,answer\n0.png,Q?,R?,x\n", "'a' and 'b' may be the column 'question'.*--map"),
        ("image,question,finding\n0.png,Q?,x\n", "no column 'answer'.*finding.*--map answer="),
        (f"{HEAD},answer\n0.png,Q?,x,y\n", "column 'answer' is there twice"),
        (f"{HEAD},split\n0.png,Q?,x,fold 1\n", "'split', the split, says 'fold 1'.*--drop-column"),
        (f"{HEAD},split\n0.png,Q?,x,\n", "'split', the split, is empty"),
        (f"{HEAD}\n", "cases.csv: there is no row"),
        (f"{HEAD}\n0.png,Q?,\n", r"left \(1 dropped: empty answer\).*right columns.*--map"),
        (f"{HEAD}\na/0.png,Q?,x\n", "1 record has an image .*is missing.*looked for in"),
        (
            f"{HEAD}\n/a/0.png,Q?,x\n/b/0.png,Q?,x\n",
            "both '/a/0.png' and '/b/0.png' end in '0.png'",
        ),
    ],
    ids=repr,
)
def test_what_may_be_read_wrong_is_one_sentence(mine: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(mine, content)


@pytest.mark.parametrize("name", ["cases.ods", "cases.txt", "cases"])
def test_a_file_of_another_kind_is_refused(mine: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"are not read\. Save it as one of \.csv, .*\.xlsx"):
        make(mine, "x", name)


def test_a_folder_with_one_table_needs_no_name(mine: Path) -> None:
    (mine / "cases.csv").write_text(f"{HEAD}\n0.png,Lung?,yes\n")
    assert len(prepare("custom", mine, mine.parent / "out").records("train")) == 1
    (mine / "more.csv").write_text(f"{HEAD}\n0.png,Lung?,yes\n")
    with pytest.raises(DataError, match=r"cases.csv, more.csv would not be read.*custom FILE"):
        prepare("custom", mine, mine.parent / "other")


def test_a_column_says_the_split(mine: Path) -> None:
    rows = ["0.png,Q?,a,Train", "1.png,Q?,b,val", "2.png,Q?,c,TEST", "3.png,Q?,d,training"]
    for head in (f"{HEAD},split", f"{HEAD},part"):
        prepared = make(mine, "\n".join([head, *rows]))
        assert prepared.manifest["counts"] == {"train": 2, "validation": 1, "test": 1}
    counts = make(mine, "\n".join([f"{HEAD},part", *rows]), drop=("part",)).manifest["counts"]
    assert counts == {"train": 4}


# --- Excel ---------------------------------------------------------------------------------------


def test_a_sheet_of_excel(mine: Path) -> None:
    rows = [[], ["Image", "Question", "Answer", None], [None] * 4, ["0.png", "How many?", 3.0],
            ["1.png", "Lung?", True, " "], ["2.png", "Where?", None],
            ["3.png", "Where?", "#N/A"]]  # fmt: skip
    path = workbook(mine, empty=[], data=rows)
    prepared = prepare("custom", path, mine.parent / "out")
    assert [record.answer for record in prepared.records("train")] == ["3", "yes"]
    assert [row["reason"] for row in prepared.manifest["dropped"]] == ["empty answer"] * 2
    [source] = prepared.manifest["sources"]
    assert source == "cases.xlsx"


def test_two_sheets_and_dates_and_damage_are_sentences(mine: Path) -> None:
    from datetime import datetime

    head = ["image", "question", "answer"]
    rows = [head, ["0.png", "Q?", datetime(2024, 3, 4)]]
    path = workbook(mine, first=[head, ["0.png", "Q?", "x"]], second=rows)
    out = mine.parent / "out"
    with pytest.raises(DataError, match=r"sheets 'first' and 'second' hold rows.*--sheet 'first'"):
        prepare("custom", path, out)
    with pytest.raises(DataError, match=r"no sheet 'third'.*'first', 'second'"):
        prepare("custom", path, out, own=OwnData(sheet="third"))
    with pytest.raises(DataError, match=r"sheet 'second', row 2: .*is the date .*as text"):
        prepare("custom", path, out, own=OwnData(sheet="second"))
    assert len(prepare("custom", path, out, own=OwnData(sheet="first")).records("train")) == 1
    whole = path.read_bytes()
    for damaged in (b"", b"PK\3\4", whole[:-900], b"\xd0\xcf\x11\xe0" * 90):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a complete Excel file|damaged"):
            prepare("custom", path, out)


# --- pictures ------------------------------------------------------------------------------------


def test_an_empty_images_folder_hides_no_pictures(mine: Path) -> None:
    for path in (mine / "images").iterdir():
        path.rename(mine / path.name)
    [record] = make(mine, f"{HEAD}\n0.png,Lung?,yes\n").records("train")
    assert record.image == "0.png"


@pytest.mark.parametrize("drop", [False, True])
def test_an_empty_images_folder_is_named(mine: Path, drop: bool) -> None:
    for path in (mine / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"is missing.*looked for in '[^']*images', which is empty"):
        make(mine, f"{HEAD}\n0.png,Lung?,yes\n", drop_broken_images=drop)


def test_pictures_in_a_folder_elsewhere(mine: Path) -> None:
    (mine / "images").rename(mine.parent / "scans")
    scans = mine.parent / "scans"
    assert len(make(mine, f"{HEAD}\nscans/0.png,Lung?,yes\n", images=scans).records("train")) == 1
    with pytest.raises(DataError, match=r"nowhere: not a folder.*--images"):
        make(mine, f"{HEAD}\n0.png,Lung?,yes\n", images=mine / "nowhere")


# --- people --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["patient_id", "PatientID", "Patient Name", "MRN", "dob", "BirthDate", "birth_date", "name",
     "Last Name", "StudyInstanceUID", "accession number", "E-Mail", "Geburtsdatum", "SSN",
     "medical record number", "study_date"],
)  # fmt: skip
def test_names_of_columns_that_name_a_person(name: str) -> None:
    assert by_name(name)


@pytest.mark.parametrize(
    "name",
    ["patient_age", "PatientSex", "image_name", "organ", "modality", "question_type", "dataset",
     "phrase_type", "subject_matter", "difficulty", "update", "validated"],
)  # fmt: skip
def test_names_of_columns_that_do_not(name: str) -> None:
    assert not by_name(name)


@pytest.mark.parametrize(
    "values, why",
    [
        (["a@b.org", "c@d.de"], "it holds e-mail addresses"),
        (["1980-02-01", "3.4.1975"], "it holds dates"),
        (["1.2.840.10008.1.2.1"], "it holds DICOM identifiers"),
        (["MUELLER^HANS", "DOE^JANE^M"], "it holds names as DICOM writes them"),
        (["00123456", "AB-998877"], "it holds long numbers"),
        ([1234567, 7654321], "it holds long numbers"),
        ([{"inner": {"patient_name": "x"}}], "patient_name: by its name"),
        (["1980-02-01", "left lobe"], None),
        (["chest", "12", "0.25"], None),
        ([True, None, ""], None),
    ],
)
def test_values_that_name_a_person(values: list[Any], why: str | None) -> None:
    assert identifying({"x": value} for value in values).get("x") == why


PEOPLE = f"""{HEAD},patient_id,dob,note
0.png,Q?,a,P-0071,1980-02-01,x
1.png,Is P-0071 well?,b,P-0071,1980-02-01,y
2.png,Q?,c,P-0099,1975-01-02,z
3.png,Q?,d,,1975-01-03,z
"""


def test_what_names_a_person_does_not_travel(mine: Path) -> None:
    prepared = make(mine, PEOPLE)
    text = (prepared.path / "train.jsonl").read_text()
    assert "1980" not in text and '"P-0071"' not in text
    assert [record.meta["group"] for record in prepared.records("train")] == [1, 1, 2, 3]
    assert {record.meta["note"] for record in prepared.records("train")} == {"x", "y", "z"}
    notes = prepared.manifest["notes"]
    assert notes["identifiers_left_out"] == {"dob": "by its name"}
    assert notes["rows_with_identifiers_in_texts"] == 1
    said = "\n".join(describe_manifest(prepared))
    assert "column 'dob' is left out" in said and "groups are those of 'patient_id'" in said
    assert "1 rows without one are groups of their own" in said and "1 rows hold a value" in said

    kept = make(mine, PEOPLE, keep=("DOB",), drop=("note",), mapping={"group": "dob"})
    assert kept.records("train")[0].meta.keys() == {"published_id", "split", "group"}
    kept = make(mine, PEOPLE, keep=("dob", "patient id"), mapping={"group": "note"})
    assert kept.records("train")[2].meta["patient_id"] == "P-0099"
    for wrong in ({"keep": ("dbo",)}, {"drop": ("dbo",)}):
        with pytest.raises(DataError, match=r"no row has the column 'dbo' of --(keep|drop)-column"):
            make(mine, PEOPLE, **wrong)
    with pytest.raises(DataError, match=r"in the id of every record.*--map id=patient_id"):
        make(mine, PEOPLE, mapping={"id": "patient_id", "group": "note"})


def test_records_of_this_project_lose_them_too(mine: Path) -> None:
    turns = [{"role": "user", "text": "Q?"}, {"role": "assistant", "text": "x"}]
    row = {"id": "z", "image": "0.png", "turns": turns, "meta": {"mrn": "1", "organ": "lung"}}
    [record] = make(mine, json.dumps(row), "rows.jsonl").records("train")
    assert record.meta == {"organ": "lung"}


# --- terms ---------------------------------------------------------------------------------------


def test_licence_and_origin_are_kept_and_their_absence_is_said(mine: Path) -> None:
    table = f"{HEAD}\n0.png,Lung?,yes\n"
    prepared = make(mine, table)
    assert prepared.manifest["licence"] == prepared.manifest["origin"] == "not stated"
    assert any("--licence and --origin say it" in line for line in describe_manifest(prepared))
    prepared = make(mine, table, licence="CC BY 4.0", data_origin="ward 3")
    derived = write_split(
        make(mine, table + "1.png,Lung?,no\n", licence="CC BY 4.0", data_origin="ward 3"),
        0, 0.5, 0, mine.parent / "split",
    )  # fmt: skip
    for each in (prepared, derived):
        assert (each.manifest["licence"], each.manifest["origin"]) == ("CC BY 4.0", "ward 3")
    with pytest.raises(DataError, match="--licence and --origin are for"):
        prepare("slake", mine, mine.parent / "x", licence="mine")
    with pytest.raises(DataError, match="--images, --sheet"):
        prepare("slake", mine, mine.parent / "x", own=OwnData())


# --- splits --------------------------------------------------------------------------------------


def patients(mine: Path, number: int = 40) -> Prepared:
    """Eight pictures; patients of three rows each, whose pictures nobody else has."""
    rows = []
    for patient in range(number):
        Image.new("L", (4, 4), patient).save(mine / f"images/p{patient}.png")
        kind = "yes" if patient % 4 else "mass"
        rows += [f"p{patient}.png,Q{n}?,{kind},{patient},w{patient % 2}" for n in range(3)]
    return make(mine, "\n".join([f"{HEAD},Patient,ward", *rows]))


def groups(prepared: Prepared, field: str = "group") -> dict[str, set[Any]]:
    return {
        split: {record.meta[field] for record in prepared.records(split)}
        for split in prepared.splits
    }


@pytest.mark.parametrize("group_by", [None, "Patient", "group"])
def test_no_patient_is_in_two_splits_and_types_keep_their_shares(
    mine: Path, group_by: str | None
) -> None:
    prepared = patients(mine)
    made = write_split(prepared, 0.2, 0.3, 0, mine.parent / "s", group_by, "answer_type")
    found = groups(made)
    assert not found["train"] & found["test"] and not found["validation"] & found["test"]
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 40
    strata = made.manifest["notes"]["strata"]
    assert strata["test"] == {"CLOSED": 27, "OPEN": 9}
    assert strata["validation"] == {"CLOSED": 18, "OPEN": 6}
    assert made.manifest["notes"]["groups"] == {"train": 20, "validation": 8, "test": 12}
    assert "12 groups; CLOSED 27; OPEN 9" in "\n".join(describe_manifest(made))


def test_groups_of_a_field_and_a_group_in_two_given_splits(mine: Path) -> None:
    made = write_split(patients(mine), 0, 0.5, 0, mine.parent / "s", "ward")
    found = groups(made, "ward")
    assert not found["train"] & found["test"] and len(found["test"]) == 1
    with pytest.raises(DataError, match="no 'colour' in its meta"):
        write_split(patients(mine), 0, 0.5, 0, mine.parent / "t", "colour")
    with pytest.raises(DataError, match="no 'colour' in its meta, whose shares"):
        write_split(patients(mine), 0, 0.5, 0, mine.parent / "t", None, "colour")
    table = f"{HEAD},patient,split\n0.png,Q?,x,7,train\n1.png,Q?,y,7,test\n"
    given = make(mine, table)
    assert given.manifest["notes"]["groups_in_two_splits"] == 1
    assert any("in more than one split" in line for line in describe_manifest(given))
    report = check_prepared(given)
    assert report.facts["groups"] == 1 and not report.faults
    assert any(each.startswith("1 of 1 groups are in more than one") for each in report.notices)
    assert any("licence is not stated" in each for each in report.notices)


@pytest.mark.parametrize(
    "notes", [{"groups": "many"}, {"strata": {"train": 3}}, {"identifiers_left_out": ["dob"]}]
)
def test_notes_of_another_type_are_refused(mine: Path, notes: dict[str, Any]) -> None:
    prepared = make(mine, f"{HEAD}\n0.png,Lung?,yes\n")
    manifest = {key: value for key, value in prepared.manifest.items() if key != "sha256"}
    (prepared.path / "manifest.json").write_text(json.dumps(manifest | {"notes": notes}))
    with pytest.raises(DataError, match=rf"manifest\.json: notes\.{next(iter(notes))}"):
        open_prepared(prepared.path)
