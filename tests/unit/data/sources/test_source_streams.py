"""Sources that are read as a stream: webdataset and parquet shards, the hub's parquet copies."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.errors import DataError


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 8), (number % 250, number // 250, 9)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as bundle:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))


def samples(start: int, stop: int) -> list[tuple[str, bytes]]:
    members = []
    for n in range(start, stop):
        members.append((f"part/{n:05d}.png", picture(n)))
        if n % 2:
            members.append((f"part/{n:05d}.txt", f"Caption {n}.".encode()))
        else:
            text = json.dumps({"caption": f"Caption {n}."})
            members.append((f"part/{n:05d}.json", text.encode()))
    return members


def test_webdataset_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards/b.tar", samples(150, 300))
    write_tar(tmp_path / "shards/a.tar", samples(0, 150))
    mapping = {"answer": "caption"}
    prepared = prepare("shards", tmp_path / "shards", tmp_path / "out", mapping=mapping)
    counts = prepared.manifest["counts"]
    assert counts["train"] + counts["validation"] == 300 and 0 < counts["validation"] < 12
    first = prepared.records("train")[0]
    assert first.question == "Describe this image." and first.answer == "Caption 0."
    assert first.id == "shards/train/a/0" and first.meta["published_id"] == "00000"
    images = [{r.images[0] for r in prepared.records(split)} for split in ("train", "validation")]
    assert images[0].isdisjoint(images[1])
    assert prepared.image_folder(100).open(first.images[0]).size == (9, 8)
    again = prepare("shards", tmp_path / "shards", tmp_path / "again", mapping=mapping)
    assert again.fingerprint == prepared.fingerprint


@pytest.mark.parametrize(
    "members, message",
    [
        ([("a.png", picture(1)), ("a.json", b"[1]")], "not an object"),
        ([("a.png", picture(1)), ("a.json", b"{")], "not valid JSON"),
        ([("a.png", picture(1)), ("a.txt", b"\xff\xfe")], "neither a picture nor"),
        ([("a.txt", b"no picture")], "No record is left"),
        ([("a.png", b"broken"), ("a.txt", b"x")], "cannot be used"),
    ],
)
def test_a_broken_shard_is_named(tmp_path: Path, members: list, message: str) -> None:
    write_tar(tmp_path / "shards/a.tar", members)
    with pytest.raises(DataError, match=message):
        prepare("shards", tmp_path / "shards", tmp_path / "out", mapping={"answer": "answer"})
    assert not (tmp_path / "out").exists()


def test_a_shard_with_a_link_and_a_folder_without_shards(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(DataError, match=r"no \*\.parquet"):
        prepare("shards", tmp_path / "shards", tmp_path / "out")
    with tarfile.open(tmp_path / "shards/a.tar", "w") as bundle:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(info)
    with pytest.raises(DataError, match="link or a device"):
        prepare("shards", tmp_path / "shards", tmp_path / "out")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_parquet_shards(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": picture(n)}, "caption": f"Caption {n}."} for n in range(40)]
    write_parquet(tmp_path / "shards/a.parquet", rows)
    mapping = {"answer": "caption"}
    prepared = prepare("shards", tmp_path / "shards", tmp_path / "out", mapping=mapping)
    assert sum(prepared.manifest["counts"].values()) == 40
    with pytest.raises(DataError, match="column 'answer' is missing"):
        prepare("shards", tmp_path / "shards", tmp_path / "other")
    (tmp_path / "shards/a.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(DataError, match="not a complete parquet file"):
        prepare("shards", tmp_path / "shards", tmp_path / "other", mapping=mapping)


def test_the_hub_copy_of_vqa_rad(tmp_path: Path) -> None:
    def rows(numbers: range) -> list[dict[str, Any]]:
        return [
            {"image": {"bytes": picture(n % 30)}, "question": f"is it {n}?", "answer": answer}
            for n in numbers
            for answer in ("yes", "the left lobe")
        ]

    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", rows(range(60)))
    write_parquet(tmp_path / "hub/data/test-00000-of-00001.parquet", rows(range(10)))
    prepared = prepare("vqa-rad", tmp_path / "hub", tmp_path / "out", variant="hub")
    counts = prepared.manifest["counts"]
    assert counts["train"] + counts["validation"] == 120 and counts["test"] == 20
    assert prepared.manifest["counts_by_type"]["test"] == {"CLOSED": 10, "OPEN": 10}
    held = {r.images[0] for r in prepared.records("validation")}
    others = {r.images[0] for split in ("train", "test") for r in prepared.records(split)}
    assert held and held.isdisjoint(others)
