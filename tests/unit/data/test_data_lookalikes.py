"""Pictures that look alike, over folders of any kind, and what a person gets to see of them."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.images import ImageFolder
from exgra_med.data.lookalikes import Place, compare, with_a_twin
from exgra_med.data.prepare import MAX_PIXELS, prepare
from exgra_med.data.records import Record, Turn, write_records
from exgra_med.errors import DataError, ExgraMedError


def scene(seed: int) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 100), Image.Resampling.BICUBIC)


def fill(folder: Path, **seeds: int) -> Path:
    """A folder with one picture a name."""
    (folder / "deep").mkdir(parents=True)
    for name, seed in seeds.items():
        scene(seed).save(folder / f"deep/{name}.png")
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "audit", *map(str, arguments)])
    if isinstance(result.exception, ExgraMedError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def of(path: Path) -> Place:
    return Place.of(path, MAX_PIXELS)


def own(folder: Path, **splits: dict[str, int]) -> Path:
    """A prepared folder: split -> picture -> its seed."""
    source = folder.with_name(f"{folder.name}-source")
    (source / "images").mkdir(parents=True)
    for split, seeds in splits.items():
        rows = []
        for name, seed in seeds.items():
            scene(seed).save(source / f"images/{name}.png")
            rows.append({"image": f"{name}.png", "question": f"What is {name}?", "answer": "a"})
        (source / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    prepare("custom", source, folder)
    return folder


def test_two_folders_of_pictures_are_compared_and_nothing_is_left_out_in_silence(
    tmp_path: Path,
) -> None:
    train = fill(tmp_path / "train", a=1, b=2, c=3)
    test = fill(tmp_path / "test", other=9)
    (test / "same.png").write_bytes((train / "deep/a.png").read_bytes())
    scene(2).resize((60, 50)).save(test / "smaller.JPG", format="JPEG", quality=60)
    (test / "notes.txt").write_text("no picture")
    (test / "broken.png").write_bytes((train / "deep/c.png").read_bytes()[:200])
    (test / ".DS_Store").write_bytes(b"x")
    (test / "manifest.json").write_text("[]")
    (test / "linked").symlink_to(train)

    found = compare(of(train), of(test))

    assert (found.test_pictures, found.test_with_twin, found.test_with_same_bytes) == (3, 2, 1)
    assert (found.train_pictures, found.train_with_twin) == (3, 2)
    assert [(each.picture, each.twin, each.same_bytes) for each in found.twins] == [
        ("same.png", "deep/a.png", True),
        ("smaller.JPG", "deep/b.png", False),
    ]
    assert all(each.bits <= 6 for each in found.twins) and found.twins[0].bits == 0
    unread = ["broken.png", "linked", "manifest.json", "notes.txt"]
    assert list(found.not_read[str(test)]) == unread
    code, text = run(train, test)
    assert code == 0
    assert f"2 of 3 pictures of {test} have a twin in {train}; 2 of 3 the other way" in text
    assert "at most 6 of 64 bits" in text and f"not compared: 4 of the files of {test}" in text


def test_dicom_files_are_pictures_too(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from picture_cases import dicom_bytes

    train, test = fill(tmp_path / "train", a=1, b=2), tmp_path / "test"
    test.mkdir()
    pixels = np.asarray(scene(2)).astype(np.uint16) * 100
    (test / "IM_0001").write_bytes(dicom_bytes(pixels, SamplesPerPixel=1))
    found = compare(of(train), of(test))
    assert [(each.picture, each.twin) for each in found.twins] == [("IM_0001", "deep/b.png")]


def test_a_prepared_folder_stands_beside_a_plain_one(tmp_path: Path) -> None:
    prepared = own(tmp_path / "mine", train={"a": 1, "b": 2}, test={"c": 3})
    plain = fill(tmp_path / "plain", x=3, y=7)
    found = compare(of(prepared), of(plain))
    assert [(each.picture, each.twin) for each in found.twins] == [("deep/x.png", "c.png")]
    assert found.train_pictures == 3


def test_the_splits_of_one_prepared_folder_are_compared(tmp_path: Path) -> None:
    folder = own(
        tmp_path / "mine",
        train={"a": 1, "b": 2},
        validation={"c": 3, "a": 1},
        test={"d": 4, "e": 5},
    )
    scene(2).resize((90, 75)).save(tmp_path / "twin.png")
    source = tmp_path / "mine-source"
    (source / "images/d.png").write_bytes((tmp_path / "twin.png").read_bytes())
    prepare("custom", source, folder, overwrite=True)

    code, text = run(folder, "--out", tmp_path / "twins.json")
    assert code == 0
    assert "validation against train:\n  1 of 2 validation images are in train" in text
    assert "1 further test images look like a train image" in text
    assert "test against validation:\n  0 of 2" in text
    [row] = json.loads((tmp_path / "twins.json").read_text())
    assert row["comparison"] == "test against train"
    assert (row["picture"], row["twin"], row["same_bytes"]) == ("d.png", "b.png", False)
    code, text = run(folder, "--json")
    assert json.loads(text)["test against train"]["near_duplicate_images"] == 1


def test_pairs_are_written_as_a_list_and_as_a_page(tmp_path: Path) -> None:
    train = fill(tmp_path / "train", **{"a&b": 1, "c": 3})
    test = fill(tmp_path / "test", copy=1)
    assert run(train, test, "--out", tmp_path / "twins.CSV")[0] == 0
    with (tmp_path / "twins.CSV").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    assert (row["picture"], row["twin"], row["bits"]) == ("deep/copy.png", "deep/a&b.png", "0")
    assert run(train, test, "--out", tmp_path / "twins.html")[0] == 0
    page = (tmp_path / "twins.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "deep/a&amp;b.png" in page and "1 pairs" in page


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "train/../train"], "are the same folder"),
        (["train"], "not a prepared folder"),
        (["train", "nowhere"], "no such folder"),
        (["train", "empty"], "there are no files in it"),
        (["train", "texts"], "none of its files can be read as a picture"),
        (["train", "texts/a.csv"], "is a file"),
        (["train", "texts", "--images", "train"], "--images is for files of records"),
        (["train", "texts", "--out", "x.xlsx"], "not .csv, .json or .html"),
        (["train", "prepared"], "the folder images/ is missing"),
        (["one.jsonl", "./one.jsonl"], "are the same file"),
        (["one.jsonl", "none.jsonl"], "none.jsonl: there are no records in it"),
        (["none.jsonl", "one.jsonl"], "none.jsonl: there are no records in it"),
        (["one.jsonl", "two.jsonl", "--images", "nowhere"], "nowhere: no such folder"),
        (["one.jsonl", "two.jsonl", "--images", "one.jsonl"], "one.jsonl: no such folder"),
        (["one.jsonl", "two.jsonl", "--images", "empty"], "'a.png' is missing"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("train"), a=1)
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.csv").write_text("a,b\n")
    prepared = own(tmp_path / "mine", train={"a": 1})
    shutil.copytree(prepared, "prepared", ignore=shutil.ignore_patterns("images"))
    turns = [Turn(role="user", text="Where?"), Turn(role="assistant", text="left")]
    for name in ("one", "two"):
        write_records(Path(f"{name}.jsonl"), [Record(id="1", image="a.png", turns=turns)])
    Path("none.jsonl").touch()
    code, text = run(*arguments)
    assert code == 2 and said in " ".join(text.split()) and "Traceback" not in text


def test_one_split_alone_cannot_be_compared_with_another(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", test={"c": 3})
    code, text = run(folder)
    assert code == 2 and "has records in test alone, so that there" in " ".join(text.split())
    (folder / "test.jsonl").write_bytes(b"")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"]["test.jsonl"] = hashlib.sha256(b"").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, text = run(folder)
    assert code == 2 and "has records in no split" in " ".join(text.split())


def test_a_broken_picture_is_no_twin_and_stops_nothing(tmp_path: Path) -> None:
    root = fill(tmp_path / "x", a=1, b=1, c=4)
    (root / "deep/c.png").write_bytes(b"\x89PNG broken")
    folder = ImageFolder(root / "deep", MAX_PIXELS)
    assert with_a_twin(folder, ["a.png", "c.png", "gone.png"], ["b.png"]) == {"a.png": "b.png"}


def test_a_place_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files"):
        Place.of(tmp_path, MAX_PIXELS)
