"""Records that stay on disk are those that would be in memory, and cost a few bytes."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.data.conversation import choose_conversations
from exgra_med.data.records import (
    Met,
    Record,
    RecordsAside,
    StoredRecords,
    Turn,
    read_records,
    write_records,
)
from exgra_med.data.sources.rows import facts
from exgra_med.errors import DamagedFileError, DataError
from exgra_med.training.order import image_groups


def record(number: int, image: str | None = None, answer: str = "yes", **more: object) -> Record:
    turns = [Turn(role="user", text=f"Wie groß {number}?"), Turn(role="assistant", text=answer)]
    return Record(id=f"x/{number}", image=image, turns=turns, **more)  # type: ignore


RECORDS = [record(n, f"{n % 7}.png" if n % 5 else None, meta={"patient": n % 3}) for n in range(40)]


def stored(folder: Path, with_digests: bool = False) -> StoredRecords:
    write_records(folder / "some.jsonl", RECORDS, with_digests)
    return StoredRecords(folder / "some.jsonl")


@pytest.mark.parametrize("with_digests", [False, True])
def test_stored_records_are_the_records(tmp_path: Path, with_digests: bool) -> None:
    found = stored(tmp_path, with_digests)
    assert len(found) == len(RECORDS) and list(found) == RECORDS
    assert found[-1] == RECORDS[-1] and found[3:9:2] == RECORDS[3:9:2]
    assert found == found and list(pickle.loads(pickle.dumps(found))) == RECORDS
    assert found[::-3] == RECORDS[::-3] and found[-4:100] == RECORDS[-4:] and found[50:] == []
    for outside in (len(RECORDS), -len(RECORDS) - 1):
        with pytest.raises(IndexError):
            found[outside]


@pytest.mark.parametrize("with_digests", [False, True])
def test_a_file_may_be_empty_or_lack_its_last_line_end(tmp_path: Path, with_digests: bool) -> None:
    path = tmp_path / "some.jsonl"
    stored(tmp_path, with_digests)
    path.write_bytes(path.read_bytes()[:-1])
    assert list(StoredRecords(path)) == RECORDS
    path.write_bytes(b"")
    nothing = StoredRecords(path)
    assert len(nothing) == 0 and list(nothing) == nothing[:] == []
    with pytest.raises(IndexError):
        nothing[-1]


@pytest.mark.parametrize("with_digests", [False, True])
def test_line_ends_of_windows_change_no_record(tmp_path: Path, with_digests: bool) -> None:
    path = tmp_path / "some.jsonl"
    stored(tmp_path, with_digests)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(StoredRecords(path)) == RECORDS == read_records(path)
    if with_digests:
        path.write_bytes(path.read_bytes().replace(b'"3.png"', b'"4.png"', 1))
        with pytest.raises(DamagedFileError, match="not what was written"):
            read_records(path)


def test_records_of_a_file_that_was_changed_meanwhile_are_refused(tmp_path: Path) -> None:
    found = stored(tmp_path)
    packed = pickle.dumps(found)
    # Another file of that name: who has the first one open still reads that.
    write_records(found.path, RECORDS[:3])
    with pytest.raises(DamagedFileError, match="was changed or removed"):
        pickle.loads(packed)
    assert found[20] == RECORDS[20]
    found.path.unlink()
    with pytest.raises(DamagedFileError, match="was changed or removed"):
        pickle.loads(packed)
    found = stored(tmp_path)
    with found.path.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(DamagedFileError, match="was changed or removed"):
        found[20]


def test_blank_lines_and_a_mark_at_the_begin_belong_to_no_record(tmp_path: Path) -> None:
    lines = [json.dumps(each.to_json()) for each in RECORDS[:3]]
    text = "\ufeff" + lines[0] + "\n\n  \n" + lines[1] + "\r\n" + lines[2]
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    found = StoredRecords(tmp_path / "a.jsonl")
    assert list(found) == RECORDS[:3] == read_records(tmp_path / "a.jsonl")


def test_a_file_that_takes_the_place_is_not_read(tmp_path: Path) -> None:
    found = stored(tmp_path)
    write_records(tmp_path / "some.jsonl", RECORDS[:1])
    assert found[20] == RECORDS[20]


def test_a_fault_is_said_at_first(tmp_path: Path) -> None:
    write_records(tmp_path / "a.jsonl", RECORDS)
    with (tmp_path / "a.jsonl").open("ab") as stream:
        stream.write(b'{"id": "x/3"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:41: record 'x/3': turns"):
        StoredRecords(tmp_path / "a.jsonl")


def test_records_set_aside_come_back_as_they_are() -> None:
    aside = RecordsAside()
    odd = record(50, meta={"nothing": None, "list": [1, "ä"], "options": ["a", "b"]})
    for each in (*RECORDS, odd):
        aside.add(each)
    assert list(aside) == [*RECORDS, odd] and aside[2] == RECORDS[2]
    aside.add(RECORDS[0])
    assert aside[-1] == RECORDS[0]


@pytest.mark.parametrize(
    ("questions", "fraction", "group"),
    [(1, 1.0, None), (1, 0.3, None), (3, 1.0, None), (3, 0.5, None), (2, 0.5, "patient")],
)
def test_chosen_conversations_are_the_same_from_disk(
    tmp_path: Path, questions: int, fraction: float, group: str | None
) -> None:
    from_disk, from_memory = (
        choose_conversations(records, questions, fraction, 0, group)
        for records in (stored(tmp_path), RECORDS)
    )
    assert list(from_disk) == list(from_memory)
    assert from_disk[::2] == list(from_memory)[::2]


def test_groups_of_images_are_told_apart_as_by_their_names() -> None:
    groups, names = image_groups(RECORDS), [each.image_group for each in RECORDS]
    assert len(set(groups)) == len(set(names)) == len(set(zip(groups, names, strict=True)))


@given(st.lists(st.integers(0, 3000) | st.text(min_size=1, max_size=2)))
def test_met_knows_what_a_set_knows(values: list[object]) -> None:
    met, known = Met(), set()
    for value in values:
        assert met.add(value) == (value not in known)
        known.add(value)
    assert len(met) == len(known) and all(each in met for each in known)
    assert "never" not in met


def test_a_name_that_was_met_takes_few_bytes() -> None:
    met = Met()
    assert sum(met.add(f"name {number}") for number in range(50_000)) == 50_000
    assert met._slots.itemsize * len(met._slots) <= 32 * 50_000


def test_repeated_rows_are_named_in_the_order_of_the_first() -> None:
    def same(number: int, question: int) -> Record:
        turns = RECORDS[question].turns
        return Record(id=f"x/{number}", image=f"{question}.png", turns=turns)

    rows = [same(n, question) for n, question in enumerate([3, 1, 2, 1, 3, 3])]
    found = facts({"train": rows[:3], "test": rows[3:]})
    assert found["duplicate_triples"] == [["x/0", "x/4", "x/5"], ["x/1", "x/3"]]
