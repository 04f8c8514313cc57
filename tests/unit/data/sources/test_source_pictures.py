"""How rows name their images: paths of other systems, several images, bytes, and what is none."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import prepare
from exgra_med.data.sources.pictures import RowImages
from exgra_med.errors import DataError


def png(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 8), (number, 60, 30)).save(stream, "PNG")
    return stream.getvalue()


BASE64 = base64.b64encode(png()).decode()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "images/sub").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "sub/c.png", "x y, z.png", "U.JPG.png"]):
        (folder / "images" / name).write_bytes(png(number))
    return folder


@pytest.fixture
def images(mine: Path) -> RowImages:
    return RowImages.of(ImageFolder(mine / "images", 10_000))


@pytest.mark.parametrize(
    "written, found",
    [
        ("a.png", ["a.png"]),
        (" a.png ", ["a.png"]),
        ("./a.png", ["a.png"]),
        ("sub/./c.png", ["sub/c.png"]),
        ("sub//c.png", ["sub/c.png"]),
        (".\\a.png", ["a.png"]),
        ("images/a.png", ["a.png"]),
        ("images\\a.png", ["a.png"]),
        ("mine/images/a.png", ["a.png"]),
        ("Images/A.PNG", ["a.png"]),
        ("a.PNG", ["a.png"]),
        ("A.png", ["a.png"]),
        ("a", ["a.png"]),
        ("sub/c.png", ["sub/c.png"]),
        ("sub\\c.png", ["sub/c.png"]),
        ("images\\Sub\\C", ["sub/c.png"]),
        ("/data/scans/sub/c.png", ["sub/c.png"]),
        ("C:\\scans\\a.png", ["a.png"]),
        ("x y, z.png", ["x y, z.png"]),
        ("u.jpg.PNG", ["U.JPG.png"]),
        (["a.png", "b.png"], ["a.png", "b.png"]),
        ([], []),
        (None, []),
        ("", []),
        ([None, "a.png"], ["a.png"]),
        ("a.png|b.png", ["a.png", "b.png"]),
        ("a.png; b.png;", ["a.png", "b.png"]),
        ("a.png\nb.png", ["a.png", "b.png"]),
        ('["a.png", "b.png"]', ["a.png", "b.png"]),
        ("['a.png', 'b.png']", ["a.png", "b.png"]),
        ("['a.png' 'b.png']", ["a.png", "b.png"]),
        ({"bytes": None, "path": "a.png"}, ["a.png"]),
        ({"bytes": None, "path": None}, []),
        ([{"path": "a.png"}, {"path": "b.png"}], ["a.png", "b.png"]),
        ("absent.png", ["absent.png"]),
        ("sub\\absent.png", ["sub\\absent.png"]),
        ("../a.png", ["../a.png"]),
        ("scan.dcm#frame=3", ["scan.dcm#frame=3"]),
        ("series/#slices=8", ["series/#slices=8"]),
        ("images/sub/#slices=8", ["sub/#slices=8"]),
        ("images\\sub\\#slices=8", ["sub/#slices=8"]),
    ],
    ids=repr,
)
def test_a_name_is_understood_where_one_file_can_be_meant(
    images: RowImages, written: Any, found: list[str]
) -> None:
    assert images.names(written, "row 1") == found


def test_a_name_that_may_be_two_files_stays_as_it_is(mine: Path, images: RowImages) -> None:
    (mine / "images/A.PNG").write_bytes(png(8))
    (mine / "images/b.jpg").write_bytes(png(9))
    assert images.names("a.png", "row 1") == ["a.png"]
    assert images.names("A.PNG", "row 1") == ["A.PNG"]
    assert images.names("a.Png", "row 1") == ["a.Png"]
    assert images.names("b", "row 1") == ["b"]


def test_a_folder_of_images_in_another_case(mine: Path) -> None:
    (mine / "images").rename(mine / "Images")
    row = {"image": "images/a.PNG", "question": "Q?", "answer": "x"}
    (mine / "train.json").write_text(json.dumps([row]), encoding="utf-8")
    [record] = prepare("custom", mine, mine.parent / "out").records("train")
    assert record.image == "a.png"


def test_accents_written_in_two_ways(mine: Path, images: RowImages) -> None:
    (mine / "images/e\u0301.png").write_bytes(png())
    assert images.names("\u00e9.png", "row 1") == ["e\u0301.png"]


def test_a_slice_of_a_volume_keeps_its_choice(mine: Path, images: RowImages) -> None:
    (mine / "images/head.nii.gz").write_bytes(b"x")
    written = "images\\Head.NII.gz#axis=2,slice=40"
    assert images.names(written, "row 1") == ["head.nii.gz#axis=2,slice=40"]


@pytest.mark.parametrize(
    "value",
    [png(), {"bytes": png(), "path": "x.png"}, BASE64, f"data:image/png;base64,{BASE64}",
     [{"bytes": png()}]],
    ids=["bytes", "struct", "base64", "data URL", "list"],
)  # fmt: skip
def test_an_image_in_the_row_itself(images: RowImages, value: Any) -> None:
    [name] = images.names(value, "row 1")
    assert name.endswith(".png") and len(name) == 28
    assert images.read_bytes(name) == png() and images.stored_name(name) == name


@pytest.mark.parametrize(
    "value, message",
    [
        ("https://example.org/a.png", "is a URL.*Download it into the folder images/"),
        ("s3://bucket/a.png", "is a URL"),
        ("/data/mine/images/z.png", "absolute path.*relative to the image folder.*'z.png'"),
        ("C:\\data\\z.png", "absolute path.*'z.png'"),
        ("d:/data/z.png", "absolute path"),
        ("~/z.png", "absolute path"),
        ("\\\\server\\share\\z.png", "absolute path"),
        (BASE64[:101], "base64 that is broken or cut short"),
        ({"<image_00>": "a.png"}, "an object with '<image_00>'"),
        (True, "the image is a bool"),
        (2.5, "the image is a float"),
    ],
)
def test_what_lies_elsewhere_is_refused_with_the_way_out(
    images: RowImages, value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"^row 1: .*{message}"):
        images.names(value, "row 1")


@pytest.mark.parametrize(
    "columns",
    [
        {"image": ["a.png", "b.png"]},
        {"images": ["a.png", "b.png"]},
        {"image_paths": '["a.png", "b.png"]'},
        {"img": "a.png|images/b.png"},
        {"image_1": "a.png", "image_2": "b.png", "image_3": None},
        {"image1": "a.png", "image2": "b.png"},
    ],
)
def test_several_images_of_a_row(mine: Path, columns: dict[str, Any]) -> None:
    row = columns | {"question": "Which changed?", "answer": "left"}
    (mine / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    [record] = prepare("custom", mine, mine.parent / "out").records("train")
    assert record.image == ["a.png", "b.png"]
    assert record.meta == {"published_id": "0", "split": "train"}


def test_the_summary_keeps_the_way_out_and_counts_by_fault(mine: Path) -> None:
    (mine / "images/cut.png").write_bytes(png()[:40])
    names = ["gone.png", "lost.png", "far.png", "cut.png", "../a.png", "a.png"]
    rows = [{"image": name, "question": "Q?", "answer": "x"} for name in names]
    (mine / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        prepare("custom", mine, mine.parent / "out")
    lines = re.split(r" \(\d\) ", str(caught.value))
    assert lines[0] == "5 records have an image that cannot be used:"
    assert lines[1].startswith("custom/train/0 and 2 more: the image 'gone.png' is missing")
    assert str(mine / "images") in lines[1]
    assert "custom/train/3: the image 'cut.png'" in lines[2]
    assert "custom/train/4: the image '../a.png' leaves the image folder" in lines[3]
    assert "without '..'" in lines[3] and "--drop-broken-images" in lines[3]
    prepared = prepare("custom", mine, mine.parent / "out", drop_broken_images=True)
    assert prepared.manifest["counts"]["train"] == 1
    assert str(mine) not in json.dumps(prepared.manifest["dropped"])


# --- parquet -------------------------------------------------------------------------------------


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def hub(folder: Path, rows: list[dict[str, Any]]) -> Path:
    others = [{"image": {"bytes": png(200 + n), "path": None}, "question": "Q?", "answer": "x"}
              for n in range(3)]  # fmt: skip
    for split in ("train", "validation", "test"):
        part = rows if split == "train" else others
        write_parquet(folder / f"data/{split}-00000-of-00001.parquet", part)
    return folder


SOURCES = [("custom", None), ("vqa-rad", "hub"), ("pathvqa", None)]


@pytest.mark.parametrize("name, variant", SOURCES)
def test_parquet_values_follow_the_one_rule(tmp_path: Path, name: str, variant: str) -> None:
    image = {"bytes": png(), "path": "x.png"}
    answers = [3.0, None, 2.5]
    rows = [{"image": image, "question": "How many?", "answer": value} for value in answers]
    prepared = prepare(name, hub(tmp_path / "hub", rows), tmp_path / "out", variant=variant)
    assert [record.answer for record in prepared.records("train")] == ["3", "2.5"]
    assert prepared.manifest["dropped"] == [{"id": f"{name}/train/1", "reason": "empty answer"}]
    assert prepared.manifest["images"]["count"] == 4


@pytest.mark.parametrize("name, variant", SOURCES)
def test_parquet_images_as_a_list_or_as_paths(tmp_path: Path, name: str, variant: str) -> None:
    several = [{"bytes": png(1), "path": None}, {"bytes": png(2), "path": None}]
    rows = [
        {"image": several, "question": "Which changed?", "answer": "left"},
        {"image": several[:1], "question": "Lung?", "answer": "Yes."},
        {"image": several[:1], "question": "Heart?", "answer": "No, it is not"},
    ]
    prepared = prepare(name, hub(tmp_path / "hub", rows), tmp_path / "out", variant=variant)
    first, second, third = prepared.records("train")
    assert isinstance(first.image, list) and len(first.image) == 2
    assert second.image == first.image[0] == third.image
    if name != "custom":
        assert (second.answer_type, third.answer_type) == ("CLOSED", "OPEN")
        assert second.meta["options"] == ["Yes", "No"]


@pytest.mark.parametrize("name, variant", SOURCES)
def test_parquet_paths_without_bytes_are_found_or_named(
    tmp_path: Path, name: str, variant: str
) -> None:
    rows = [{"image": {"bytes": None, "path": "A.png"}, "question": "Lung?", "answer": "yes"}]
    folder = hub(tmp_path / "hub", rows)
    with pytest.raises(DataError, match=r"'A.png' is missing\. It was looked for in"):
        prepare(name, folder, tmp_path / "out", variant=variant)
    (folder / "images").mkdir()
    (folder / "images/a.png").write_bytes(png(7))
    [record] = prepare(name, folder, tmp_path / "out", variant=variant).records("train")
    assert record.image == "a.png"


def test_the_hub_copy_without_untested_images_has_no_validation_split(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png()}, "question": f"Q{n}?", "answer": "yes"} for n in range(3)]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"hub/{split}-00000-of-00001.parquet", rows)
    prepared = prepare("vqa-rad", tmp_path / "hub", tmp_path / "out", variant="hub")
    assert prepared.manifest["counts"] == {"train": 3, "validation": 0, "test": 3}


def test_parquet_talks_with_their_images(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "<image> and <image>?"},
            {"role": "assistant", "content": "Two."}]  # fmt: skip
    images = [{"bytes": png(1), "path": None}, {"bytes": png(2), "path": "x.png"}]
    write_parquet(tmp_path / "mine/train.parquet", [{"messages": talk, "images": images}])
    [record] = prepare("custom", tmp_path / "mine", tmp_path / "out").records("train")
    assert record.question == "<image> and <image>?" and len(record.images) == 2


def test_a_table_with_its_images_inside(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    large = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(large, "PNG")
    text = base64.b64encode(large.getvalue()).decode()
    table = f"index\timage\tquestion\tA\tB\tanswer\n0\t{text}\tWhich?\tCT\tMRI\tB\n"
    assert len(table) > 140_000
    (tmp_path / "mine/test.tsv").write_text(table, encoding="utf-8")
    prepared = prepare("custom", tmp_path / "mine", tmp_path / "out")
    [record] = prepared.records("test")
    assert (record.answer, record.meta["options"]) == ("MRI", ["CT", "MRI"])
    assert prepared.image_folder(10**6).open(record.images[0]).size == (400, 400)


def test_parquet_of_people(tmp_path: Path) -> None:
    row = {"image": png(), "question": b"Which?", "answer": 1, "options": ["CT", "MRI"],
           "thumbnail": b"\xff\xd8", "age": 55.0, "seen": None}  # fmt: skip
    write_parquet(tmp_path / "mine/train.parquet", [row, row | {"answer": 0}])
    prepared = prepare("custom", tmp_path / "mine", tmp_path / "out")
    first, second = prepared.records("train")
    assert (first.question, first.answer, second.answer) == ("Which?", "MRI", "CT")
    assert first.meta["age"] == 55.0 and first.meta["seen"] is None
    assert prepared.manifest["notes"]["columns_left_out"] == ["thumbnail"]
    with pytest.raises(DataError, match="there is no column 'image'"):
        write_parquet(tmp_path / "mine/train.parquet", [{"question": "Q?", "answer": "x"}])
        prepare("custom", tmp_path / "mine", tmp_path / "other")
