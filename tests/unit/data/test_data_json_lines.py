from pathlib import Path

import pytest

from exgra_med.data.records import Record, Turn, iterate_records, read_records, write_records
from exgra_med.errors import DataError, WriteError


def make(name: str, **more: object) -> Record:
    turns = [Turn(role="user", text="Wo? – 在哪"), Turn(role="assistant", text="here\u2028there")]
    return Record(id=name, turns=turns, **more)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records = [
        make("a/1", image="x/y.png", extended=["long"], answer_type="OPEN", meta={"organ": "HEAD"}),
        make("a/2"),
    ]
    path = tmp_path / "train.jsonl"
    assert write_records(path, records) == 2
    assert read_records(path) == records
    assert [item.name for item in tmp_path.iterdir()] == ["train.jsonl"]


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_records(path, [make("1")])
    with path.open("ab") as stream:
        stream.write(b"broken\n")
    records = iterate_records(path)
    assert next(records).id == "1"
    with pytest.raises(DataError, match=r"x\.jsonl:2: not valid JSON"):
        next(records)


def test_ids_must_be_unique(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(DataError, match="'1' comes twice"):
        write_records(path, [make("1"), make("1")])
    assert not list(tmp_path.iterdir())
    write_records(path, [make("1")])
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match=r"x\.jsonl:2: the id '1' comes twice"):
        read_records(path)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")
    with pytest.raises(WriteError, match="No space left") as caught:
        write_records(path, [make("1")])
    assert caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]
