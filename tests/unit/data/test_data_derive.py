import json
from pathlib import Path

import pytest

from exgra_med.captions.merge import merge_captions
from exgra_med.data.derive import open_answers, write_split
from exgra_med.data.inspect.statistics import statistics
from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError

SAMPLE = open_prepared("bundled:vqa-rad-sample")


def test_a_new_split_keeps_every_record_and_shares_no_image(tmp_path: Path) -> None:
    out = write_split(SAMPLE, validation=0.2, test=0.3, seed=1, out=tmp_path / "out")
    images = [{r.images[0] for r in out.records(split)} for split in out.splits]
    assert len(set.union(*images)) == sum(map(len, images)) == 48
    assert sum(out.manifest["counts"].values()) == 336
    assert abs(out.manifest["counts"]["test"] - 0.3 * 336) < 8
    assert out.manifest["made_from"]["fingerprint"] == SAMPLE.fingerprint


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.0)])
def test_shares_must_leave_something(tmp_path: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="leave nothing"):
        write_split(SAMPLE, *shares, seed=0, out=tmp_path / "out")


def write_captions(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_captions_join_by_record_id_or_published_id(rad: Path, tmp_path: Path) -> None:
    plain = prepare("vqa-rad", rad, tmp_path / "plain")
    train = plain.records("train")
    rows = [{"id": r.id, "extended": ["Long."]} for r in train[:-1]]
    rows += [{"id": train[-1].meta["published_id"], "extended": "Longer."}]
    captions = write_captions(tmp_path / "long.jsonl", rows)
    merge_captions(str(plain.path), captions, tmp_path / "merged")
    merged = open_prepared(tmp_path / "merged")
    expected = [["Long."]] * (len(train) - 1) + [["Longer."]]
    assert [r.extended for r in merged.records("train")] == expected
    assert merged.manifest["made_from"]["training_records_without"] == 0


def test_captions_that_do_not_fit_are_an_error(rad: Path, tmp_path: Path) -> None:
    plain = prepare("vqa-rad", rad, tmp_path / "plain")
    first = plain.records("train")[0].id
    cases = {
        "no id of it is in": [{"id": "other", "extended": ["x"]}],
        "have no extended answer": [{"id": first, "extended": ["x"]}],
        "2 extended answers for 1": [{"id": first, "extended": ["x", "y"]}],
        "comes twice": [{"id": first, "extended": ["x"]}] * 2,
        "not a list of texts": [{"id": first, "extended": [""]}],
    }
    for message, rows in cases.items():
        captions = write_captions(tmp_path / "long.jsonl", rows)
        with pytest.raises(DataError, match=message):
            merge_captions(str(plain.path), captions, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
    captions = write_captions(tmp_path / "long.jsonl", [{"id": first, "extended": ["x"]}])
    merged = merge_captions(str(plain.path), captions, tmp_path / "merged", allow_missing=True)
    assert merged["without"] == len(plain.records("train")) - 1


def test_captions_in_the_layout_of_the_original(rad: Path, tmp_path: Path) -> None:
    plain = prepare("vqa-rad", rad, tmp_path / "plain")
    items = [
        {
            "id": record.meta["published_id"],
            "conversations": [
                {"from": "human", "value": f"{record.question}\n<image>"},
                {"from": "gpt", "value": f"A long {record.answer}."},
            ],
        }
        for record in plain.records("train")
    ]
    (tmp_path / "long.json").write_text(json.dumps(items))
    merge_captions(str(plain.path), tmp_path / "long.json", tmp_path / "merged")
    merged = open_prepared(tmp_path / "merged")
    assert merged.records("train")[0].extended == ["A long Yes."]


def test_candidates_are_open_answers_once_in_lower_case() -> None:
    answers = open_answers(SAMPLE.records("train"))
    assert len(answers) == len(set(answers)) > 50
    assert all(answer == answer.lower() for answer in answers)
    assert "yes" not in answers


def test_statistics_count_what_is_there() -> None:
    numbers = statistics(SAMPLE)["train"]
    assert numbers["records"] == 198 and numbers["images"] == 28
    assert numbers["with_extended_answers"] == 198
    assert sum(numbers["organ"].values()) == 198
    assert numbers["commonest_answers"]["no"] > 10
