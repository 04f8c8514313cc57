"""Benchmarks in their published layouts, and as users have them; all texts are invented."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared, Record
from exgra_med.errors import DataError
from exgra_med.evaluation.tasks.multiple_choice import choice_of


def picture(path: Path, colour: int = 90) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (colour % 255, 60, 30)).save(path)
    return path.read_bytes()


def counts(prepared: Prepared) -> tuple[int, int, int]:
    return tuple(prepared.manifest["counts"][s] for s in ("train", "validation", "test"))


def by_id(prepared: Prepared, split: str = "test") -> dict[str, Record]:
    return {record.id: record for record in prepared.records(split)}


def reasons(prepared: Prepared) -> dict[str, str]:
    return {item["id"]: item["reason"] for item in prepared.manifest["dropped"]}


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table
    path.parent.mkdir(parents=True, exist_ok=True)
    write(pyarrow.Table.from_pylist(rows), path)


# --- PMC-VQA -------------------------------------------------------------------------------------


V1 = ("Figure_path", "Question", "Answer", "Choice A", "Choice B", "Choice C", "Choice D")
V1 += ("Answer_label",)
V2 = ("", "Figure_path", "Caption", "Question", "Choice A", "Choice B", "Choice C", "Choice D")
V2 += ("Answer", "split")


def table(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def v1(figure: str, answer: str, label: str) -> tuple[str, ...]:
    marked = (" A:Diffuse uptake ", " B:Focal uptake ", " C:No uptake ", " D:Cannot be told ")
    return (figure, " What is the uptake? ", f" {answer} ", *marked, label)


@pytest.fixture
def pmc(tmp_path: Path) -> Path:
    root = tmp_path / "pmc"
    for number in range(30):
        picture(root / f"images/PMC{number}_F1.jpg", number)
    rows = [v1(f"PMC{n}_F1.jpg", "Focal uptake", "B") for n in range(20)]
    table(root / "train.csv", V1, [*rows, v1("PMC20_F1.jpg", "No uptake", "B")])
    table(root / "test.csv", V1, [v1("PMC0_F1.jpg", "No uptake", "C")])
    table(root / "test_clean.csv", V1, [v1("PMC21_F1.jpg", "Cannot be told", "D")])
    return root


def test_pmc_vqa_version_1(pmc: Path, tmp_path: Path) -> None:
    prepared = prepare("pmc-vqa", pmc, tmp_path / "out", variant="v1")
    assert counts(prepared) == (20, 1, 1)
    [record] = prepared.records("test")
    assert record.question == "What is the uptake?" and record.answer == "No uptake"
    assert record.meta["options"] == [
        "Diffuse uptake", "Focal uptake", "No uptake", "Cannot be told"
    ]  # fmt: skip
    assert choice_of(record).right == record.meta["answer_index"] == 2
    notes = prepared.manifest["notes"]
    assert notes["answers_that_differ_from_their_letter"] == 1
    assert notes["test_images_in_train"] == 1
    [held] = prepared.records("validation")
    assert held.images[0] not in {r.images[0] for r in prepared.records("train")}
    assert held.images[0] != record.images[0]
    clean = prepare("pmc-vqa", pmc, tmp_path / "clean", variant="v1-clean")
    assert [r.answer for r in clean.records("test")] == ["Cannot be told"]


def test_pmc_vqa_version_2_as_the_hub_copy_is_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    picture(root / "images_2/figures/PMC1_Fig1_1.jpg")
    caption = 'Axial view, with a "mass",\nand a second line.'
    choices = ("Liver", "Spleen", "Kidney", "Lung")
    rows = [
        (7, "PMC1_Fig1_1.jpg", caption, "Which organ?", *choices, "C", "test"),
        (8, "PMC1_Fig1_1.JPG", caption, "Which one?", *choices, "E", "test"),
        (9, "PMC1_Fig1_1", caption, "Which?", "Liver", "", "", "", "A", "test"),
        (10, "PMC1_Fig1_1", caption, "Left?", "Liver", "Spleen", "", "", "spleen.", "test"),
    ]
    table(root / "test_2.csv", V2, rows)
    prepared = prepare("pmc-vqa", root, tmp_path / "out")
    assert counts(prepared) == (0, 0, 2) and prepared.manifest["images"]["count"] == 1
    records = by_id(prepared)
    assert records["pmc-vqa/test/0"].answer == "Kidney"
    assert records["pmc-vqa/test/0"].meta["caption"] == caption
    assert records["pmc-vqa/test/3"].meta["options"] == ["Liver", "Spleen"]
    assert records["pmc-vqa/test/3"].meta["answer_index"] == 1
    assert reasons(prepared) == {
        "pmc-vqa/test/1": "the answer is none of the options",
        "pmc-vqa/test/2": "fewer than two options, or none that can be read",
    }


def test_pmc_vqa_says_which_file_or_archive_is_missing(pmc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither 'train_2\.csv' nor 'test_2\.csv'"):
        prepare("pmc-vqa", pmc, tmp_path / "out")
    (pmc / "images").rename(pmc / "elsewhere")
    with pytest.raises(DataError, match=r"Unpack images\.zip"):
        prepare("pmc-vqa", pmc, tmp_path / "out", variant="v1")


def test_pmc_vqa_as_one_archive_and_without_a_picture(pmc: Path, tmp_path: Path) -> None:
    (pmc / "images/PMC3_F1.jpg").unlink()
    with zipfile.ZipFile(tmp_path / "pmc.zip", "w") as bundle:
        for path in pmc.rglob("*"):
            bundle.write(path, path.relative_to(tmp_path))
    arguments: dict[str, Any] = {"variant": "v1-clean", "drop_broken_images": True}
    prepared = prepare("pmc-vqa", tmp_path / "pmc.zip", tmp_path / "out", **arguments)
    assert sum(counts(prepared)) == 21
    assert reasons(prepared) == {"pmc-vqa/train/3": "the image 'PMC3_F1.jpg' is missing."}


# --- MedXpertQA ----------------------------------------------------------------------------------


def expert(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "question": "Which artery is it?\nAnswer Choices: (A) C (B) None (C) The aorta (D) E (E) F",
        "options": {"A": "C", "B": "None", "C": "The aorta", "D": "E", "E": "F"},
        "label": "C",
        "images": [f"{name}-a.jpeg"],
        "medical_task": "Basic Medicine",
        "body_system": "Cardiovascular",
        "question_type": "Understanding",
    } | changes


def expert_rows(root: Path) -> dict[str, list[dict[str, Any]]]:
    for name in ("MM-0-a.jpeg", "MM-0-b.jpeg", "MM-2000-a.jpeg"):
        picture(root / "images" / name, len(name))
    test = [
        expert("MM-0", images=["MM-0-a.jpeg", "MM-0-b.jpeg"]),
        expert("MM-1", images=[]),
        expert("MM-2", label="Z", images=["MM-0-a.jpeg"]),
        expert("MM-3", images=["MM-0-b.JPG"], question="Which one?\nAnswer Choices: (A) other"),
    ]
    return {"dev": [expert("MM-2000")], "test": test}


@pytest.mark.parametrize("folder", ["MM", "."])
def test_medxpertqa_json_lines(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "expert"
    for split, rows in expert_rows(root).items():
        path = root / folder / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "images/MM-0-b.jpeg").rename(root / "images/MM-0-b.jpg")
    rows = (root / folder / "test.jsonl").read_text(encoding="utf-8")
    (root / folder / "test.jsonl").write_text(rows.replace("MM-0-b.jpeg", "MM-0-b.jpg"))
    prepared = prepare("medxpertqa", root, tmp_path / "out")
    assert counts(prepared) == (0, 1, 2)
    first, other = prepared.records("test")
    assert first.question == "Which artery is it?" and first.answer == "The aorta"
    assert first.meta["raw_question"].endswith("(E) F") and first.meta["answer_index"] == 2
    assert first.images == ["MM-0-a.jpeg", "MM-0-b.jpg"] and len(first.meta["options"]) == 5
    assert first.meta["organ"] == "Cardiovascular"
    assert other.question.endswith("(A) other") and "raw_question" not in other.meta
    assert other.images == ["MM-0-b.jpg"]
    assert reasons(prepared) == {
        "medxpertqa/test/MM-1": "no image",
        "medxpertqa/test/MM-2": "the answer is none of the options",
    }
    assert prepared.manifest["notes"]["completeness"] == "partial: 5 of 2005 rows"


def test_medxpertqa_parquet_of_the_hub_with_names_or_bytes(tmp_path: Path) -> None:
    root = tmp_path / "expert"
    rows = expert_rows(root)["test"][:1]
    parquet(root / "MM/test/0000.parquet", rows)
    named = prepare("medxpertqa", root, tmp_path / "named")
    assert [r.images for r in named.records("test")] == [["MM-0-a.jpeg", "MM-0-b.jpeg"]]
    content = (root / "images/MM-0-a.jpeg").read_bytes()
    # The hub fills options that a question does not have with null.
    options = rows[0]["options"] | {"F": None}
    row = rows[0] | {"images": [{"bytes": content, "path": "x"}], "options": options}
    (tmp_path / "copy").mkdir()
    parquet(tmp_path / "copy/MM/test-00000-of-00001.parquet", [row])
    carried = prepare("medxpertqa", tmp_path / "copy", tmp_path / "carried")
    [record] = carried.records("test")
    assert len(record.meta["options"]) == 5 and carried.manifest["images"]["count"] == 1
    assert record.question == "Which artery is it?"


def test_medxpertqa_without_its_test_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x/Text").mkdir(parents=True)
    (tmp_path / "x/Text/test.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"no 'MM/test\.jsonl'.*Text has no pictures"):
        prepare("medxpertqa", tmp_path / "x", tmp_path / "out")
    (tmp_path / "x/test.jsonl").write_text("{}")
    (tmp_path / "x/images.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"'images\.zip' is not unpacked"):
        prepare("medxpertqa", tmp_path / "x", tmp_path / "out")


# --- OmniMedVQA ----------------------------------------------------------------------------------


def omni(name: str, image: str, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": name.partition("_")[0],
        "question_id": name,
        "question_type": "Modality Recognition",
        "question": "How was it made?",
        "gt_answer": "Endoscopy",
        "image_path": image,
        "option_A": "PET scan",
        "option_B": "Endoscopy",
        "modality_type": "Endoscopy",
    } | changes


def test_omnimedvqa_names_the_restricted_files_and_reads_them_where_asked(tmp_path: Path) -> None:
    root = tmp_path / "OmniMedVQA"
    picture(root / "Images/A/a.png")
    for access, name in (("Open-access", "A"), ("Restricted-access", "B")):
        path = root / f"QA_information/{access}/{name}.json"
        path.parent.mkdir(parents=True)
        image = "Images/A/a.png" if name == "A" else "Images/B/not-there.png"
        path.write_text(json.dumps([omni(f"{name}_0", image)]))
    opened = prepare("omnimedvqa", root, tmp_path / "open")
    assert counts(opened) == (0, 0, 1)
    notes = opened.manifest["notes"]
    assert notes["restricted_files_left_out"] == ["B.json"] and notes["datasets"] == 1
    assert notes["records_by_modality"] == {"Endoscopy": 1}
    with pytest.raises(DataError, match=r"omnimedvqa/test/B_0: the image .* is missing"):
        prepare("omnimedvqa", root, tmp_path / "all", variant="all")
    arguments: dict[str, Any] = {"variant": "all", "drop_broken_images": True}
    both = prepare("omnimedvqa", root, tmp_path / "all", **arguments)
    notes = both.manifest["notes"]
    assert notes["restricted_files_left_out"] == [] and notes["datasets"] == 2
    assert notes["completeness"] == "partial: 2 of 127995 rows"


# --- Kvasir-VQA ----------------------------------------------------------------------------------


def kvasir(root: Path, pictures: int) -> Path:
    rows = []
    for number in range(pictures):
        content = picture(root.parent / f"p{number}.jpg", number * 12)
        for question, answer in (("Is there a polyp?", "yes"), ("Where?", "upper-left; center")):
            rows.append(
                {
                    "image": {"bytes": content, "path": None},
                    "source": "HyperKvasir",
                    "question": question,
                    "answer": answer,
                    "img_id": f"id{number}",
                }
            )
    parquet(root / "data/00000.parquet", rows[::2])
    parquet(root / "data/00001.parquet", rows[1::2])
    return root


def test_kvasir_vqa_is_split_by_picture_or_all_test(tmp_path: Path) -> None:
    root = kvasir(tmp_path / "hub", 20)
    prepared = prepare("kvasir-vqa", root, tmp_path / "out")
    images = [{r.images[0] for r in prepared.records(s)} for s in ("train", "validation", "test")]
    assert [len(each) for each in images] == [14, 2, 4] and len(set.union(*images)) == 20
    assert counts(prepared) == (28, 4, 8)
    assert prepared.manifest["notes"]["completeness"] == "partial: 40 of 58849 rows"
    whole = prepare("kvasir-vqa", root, tmp_path / "all", variant="all-test")
    assert counts(whole) == (0, 0, 40) and whole.manifest["images"]["count"] == 20
    record = by_id(whole)["kvasir-vqa/test/21"]
    assert record.answer == "upper-left; center" and record.answer_type == "OPEN"
    assert record.meta["source"] == "HyperKvasir" and record.meta["published_image"] == "id1"
    assert by_id(whole)["kvasir-vqa/test/0"].answer_type == "CLOSED"


def test_kvasir_vqa_x1_keeps_its_published_split(tmp_path: Path) -> None:
    root = tmp_path / "x1"
    for number in range(12):
        picture(root / f"images/id{number}.jpg", number)
    row = {"image": "https://example.org/id.jpg", "complexity": 2, "question_class": ["polyp_type"]}
    row |= {"question": "What is shown?", "answer": "A polyp.", "original": "[]"}
    train = [row | {"img_id": f"id{n}"} for n in range(11)]
    parquet(root / "data/train-00000-of-00001.parquet", train)
    parquet(
        root / "data/test-00000-of-00001.parquet", [row | {"img_id": f"id{n}"} for n in (0, 11)]
    )
    prepared = prepare("kvasir-vqa", root, tmp_path / "out", variant="x1")
    assert counts(prepared) == (10, 1, 2)
    assert prepared.manifest["notes"]["test_images_in_train"] == 1
    [record, _] = prepared.records("test")
    assert record.image == "id0.jpg" and record.meta["question_type"] == ["polyp_type"]
    assert record.meta["complexity"] == 2
    with pytest.raises(DataError, match="no parquet file"):
        prepare("kvasir-vqa", tmp_path / "out/images", tmp_path / "none")


# --- VQA-Med 2019 --------------------------------------------------------------------------------


CATEGORIES = ("C1_Modality", "C2_Plane", "C3_Organ", "C4_Abnormality")


@pytest.fixture
def vqa_med(tmp_path: Path) -> Path:
    root = tmp_path / "vqa-med"
    for part, name, ending in (("Training", "Train", "train"), ("Validation", "Val", "val")):
        folder = root / f"ImageClef-2019-VQA-Med-{part}"
        picture(folder / f"{name}_images/synpic1.jpg")
        (folder / "QAPairsByCategory").mkdir()
        for category in CATEGORIES:
            line = "synpic1|what is it?|lung, pleura#spine (l5)\r\n"
            path = folder / f"QAPairsByCategory/{category}_{ending}.txt"
            path.write_bytes(line.encode())
        (folder / f"All_QA_Pairs_{ending}.txt").write_text("synpic1|what is it?|lung\n" * 4)
    folder = root / "VQAMed2019Test"
    for number in range(1, 5):
        picture(folder / f"VQAMed2019_Test_Images/synpic{number}.jpg")
    lines = (
        "synpic1|modality|is this a ct scan?|yes",
        "synpic2|abnormality|what is wrong?|glioma#(large) cystic mass#neoplasm",
        "synpic3|modality|contrast or not?|noncontrast (mri)",
        "synpic4|plane|what is it?|",
        "",
    )
    text = "\n".join(lines)
    (folder / "VQAMed2019_Test_Questions_w_Ref_Answers.txt").write_text(text)
    return root


def test_vqa_med_2019_with_categories_and_several_right_answers(
    vqa_med: Path, tmp_path: Path
) -> None:
    prepared = prepare("vqa-med-2019", vqa_med, tmp_path / "out")
    assert counts(prepared) == (4, 4, 3)
    kinds = [record.meta["question_type"] for record in prepared.records("train")]
    assert kinds == ["modality", "plane", "organ", "abnormality"]
    first = prepared.records("train")[0]
    assert first.answer == "lung, pleura"
    assert first.meta["accepted_answers"] == ["lung, pleura", "spine (l5)"]
    assert first.meta["raw_answer"] == "lung, pleura#spine (l5)"
    tested = by_id(prepared)
    closed, several, optional = tested.values()
    assert closed.answer_type == "CLOSED" and "accepted_answers" not in closed.meta
    assert closed.image == "VQAMed2019Test/VQAMed2019_Test_Images/synpic1.jpg"
    assert several.answer == "glioma"
    assert several.meta["accepted_answers"] == [
        "glioma", "(large) cystic mass", "large cystic mass", "cystic mass", "neoplasm"
    ]  # fmt: skip
    assert optional.meta["accepted_answers"] == [
        "noncontrast (mri)", "noncontrast mri", "noncontrast"
    ]  # fmt: skip
    assert reasons(prepared) == {"vqa-med-2019/test/3": "empty answer"}


def test_vqa_med_2019_in_parts_and_in_one_file(vqa_med: Path, tmp_path: Path) -> None:
    training = vqa_med / "ImageClef-2019-VQA-Med-Training"
    by_kind = training / "QAPairsByCategory"
    (by_kind / "C2_Plane_train.txt").unlink()
    with pytest.raises(DataError, match="of the four categories of train only C1_Modality"):
        prepare("vqa-med-2019", vqa_med, tmp_path / "out")
    for path in by_kind.iterdir():
        path.unlink()
    prepared = prepare("vqa-med-2019", training, tmp_path / "out")
    assert counts(prepared) == (4, 0, 0)
    assert "question_type" not in prepared.records("train")[0].meta


def test_vqa_med_2019_says_what_is_not_unpacked_or_cannot_be_read(
    vqa_med: Path, tmp_path: Path
) -> None:
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips/ImageClef-2019-VQA-Med-Training.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"Training\.zip not unpacked"):
        prepare("vqa-med-2019", tmp_path / "zips", tmp_path / "out")
    folder = vqa_med / "VQAMed2019Test"
    (folder / "VQAMed2019_Test_Images").rename(folder / "other")
    (folder / "VQAMed2019_Test_Images.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"Unpack VQAMed2019_Test_Images\.zip"):
        prepare("vqa-med-2019", folder, tmp_path / "out")
    (folder / "other").rename(folder / "images")
    path = folder / "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    path.write_text("synpic1|modality|is this a ct scan?\n")
    with pytest.raises(DataError, match=r"Answers\.txt:1: 3 parts\. A line is image\|category"):
        prepare("vqa-med-2019", folder, tmp_path / "out")
