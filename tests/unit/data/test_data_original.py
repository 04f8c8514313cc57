import json
from collections import Counter
from pathlib import Path

import pytest

from exgra_med.data.llava_format import parse_item, read_any, read_original
from exgra_med.data.records import write_records
from exgra_med.data.talks import strip_placeholder
from exgra_med.errors import DataError

CASES = Path(__file__).parents[2] / "golden/data/original_json/cases_input.json"
REFUSED = {"odd_number_of_messages": "last turn", "empty_answer": "message 1 is empty"}
REFUSED |= {"image_middle": "answer in turn 1", "two_images_in_text": "2 <image> for 1 image"}


def cases() -> list[dict]:
    return json.loads(CASES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_each_case_of_the_original_is_read_or_refused_by_name(case: dict) -> None:
    found: Counter[str] = Counter()
    if case["name"] in REFUSED:
        with pytest.raises(DataError, match=REFUSED[case["name"]]):
            parse_item(case, 3, "file.json", found)
        return
    record = parse_item(case, 3, "file.json", found)
    talk = case.get("conversations") or case.get("conversatons")
    long_talk = case.get("conversations_long") or case.get("conversatons_long")
    assert record.id == case["id"]
    assert record.image == case.get("image")
    assert "<image>" not in "".join(turn.text for turn in record.turns)
    assert record.answers == [strip_placeholder(str(m["value"])) for m in talk[1::2]]
    assert record.extended == [strip_placeholder(str(m["value"])) for m in long_talk[1::2]]


def test_the_placeholder_goes_wherever_it_stands() -> None:
    assert strip_placeholder("<image>\nWhere?") == "Where?"
    assert strip_placeholder("Where?\n<image>") == "Where?"
    assert strip_placeholder("Look at <image> and say.") == "Look at and say."
    assert strip_placeholder("Line 1\nLine 2") == "Line 1\nLine 2"


@pytest.mark.parametrize("short", ["conversations", "conversatons"])
@pytest.mark.parametrize("long", ["conversations_long", "conversatons_long", None])
def test_every_combination_of_spellings_is_read_and_reported(
    tmp_path: Path, short: str, long: str | None
) -> None:
    talk = [{"from": "human", "value": "Q\n<image>"}, {"from": "gpt", "value": 2}]
    item = {"id": 7, "image": "a.jpg", short: talk}
    if long:
        item[long] = [talk[0], {"from": "gpt", "value": "two of them"}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([item]))
    found: Counter[str] = Counter()
    [record] = read_original(path, found)
    assert record.turns[1].text == "2"
    assert record.extended == (["two of them"] if long else None)
    assert record.meta["published_id"] == 7
    assert found == Counter({short: 1} | ({long: 1} if long else {}))


def test_repeated_ids_of_the_original_get_their_row(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "train_0422", "conversations": talk}] * 3))
    assert [r.id for r in read_original(path)] == ["train_0422", "train_0422#1", "train_0422#2"]


def test_read_any_tells_the_two_formats_apart(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    path = tmp_path / "original.json"
    path.write_text("\ufeff \n" + json.dumps([{"id": "1", "conversations": talk}]))
    records = read_any(path)
    ours = tmp_path / "ours.jsonl"
    write_records(ours, records)
    assert read_any(ours) == records
