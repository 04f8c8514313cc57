import json
from collections import Counter
from pathlib import Path

import pytest

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared
from exgra_med.data.sources import vqa_rad
from exgra_med.data.sources.source import PrepareOptions
from exgra_med.errors import DataError
from exgra_med.recipe.load import load_recipe
from exgra_med.training.order import num_steps


def collect(folder: Path, variant: str = "official", seed: int = 0) -> vqa_rad.Collected:
    return vqa_rad.collect(folder, PrepareOptions(variant, seed, 10**7))


def by_id(collected: vqa_rad.Collected) -> dict[str, vqa_rad.Record]:
    return {r.meta["published_id"]: r for rows in collected.splits.values() for r in rows}


def test_quirks_of_the_release(rad: Path, change_rad) -> None:
    change_rad(0, qid="0", answer=2, answer_type="OPEN")
    change_rad(1, answer_type="CLOSED ", answer="Maybe")
    change_rad(2, question=" Heart \tlungs? ", question_type="ATRIB, PRSE")
    records = by_id(collect(rad))
    assert records["0"].answer == "2" and records["0"].meta["raw_answer"] == 2
    assert records["1"].answer_type == "CLOSED" and "options" not in records["1"].meta
    assert records["2"].question == "Heart \tlungs?"
    assert records["2"].meta["raw_question"] == " Heart \tlungs? "
    assert records["2"].meta["question_type"] == "ATTRIB, PRES"


def test_blanks_of_keys_are_stripped(rad: Path, rad_row, write_rad) -> None:
    row = rad_row(0)
    row["answer_type "] = row.pop("answer_type")
    write_rad([row])
    assert by_id(collect(rad))["0"].answer_type == "CLOSED"


def test_validation_is_whole_images_of_train(rad: Path) -> None:
    collected = collect(rad)
    split_images = {split: {r.images[0] for r in rows} for split, rows in collected.splits.items()}
    assert split_images["validation"]
    assert split_images["validation"].isdisjoint(split_images["train"] | split_images["test"])
    assert all(r.meta["official_split"] == "train" for r in collected.splits["validation"])


@pytest.mark.parametrize("seed", range(5))
def test_the_image_disjoint_variant_shares_no_image(
    rad: Path, seed: int, rad_row, write_rad
) -> None:
    rows = [rad_row(n, image_name=f"i{n % 40}.jpg") for n in range(120)]
    write_rad(rows)
    splits = collect(rad, "image-disjoint", seed).splits
    images = [{r.images[0] for r in rows} for rows in splits.values()]
    assert sum(len(part) for part in images) == len(set.union(*images)) == 40
    assert all(images)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"answer_type": "OPNE"}, "qid 3: unknown answer_type 'OPNE'"),
        ({"phrase_type": "frame"}, r"row 3 \(qid 3\): phrase_type 'frame'"),
        ({"answer": {"a": 1}}, "qid 3: 'answer' is neither"),
        ({"answer": ["a", "b"]}, "qid 3: 'answer' is a list of 2"),
        ({"qid": 2}, "qid 2: the qid comes twice"),
    ],
)
def test_a_row_that_cannot_be_understood_is_named(
    rad: Path, changes: dict, message: str, change_rad
) -> None:
    change_rad(3, **changes)
    with pytest.raises(DataError, match=message):
        collect(rad)


def test_a_part_of_the_release_says_so(rad: Path) -> None:
    assert collect(rad).notes["completeness"] == "partial: 12 of 2248 rows"


def test_a_random_resplit_of_the_release_is_refused(rad: Path, rad_row, write_rad) -> None:
    write_rad([rad_row(n) for n in range(2248)])
    with pytest.raises(DataError, match="train CLOSED: expected 1027 rows, found 2248"):
        collect(rad)


def test_duplicates_are_listed(rad: Path, change_rad) -> None:
    change_rad(4, question="Same?", image_name="synpic0.jpg")
    change_rad(8, question="Same?", image_name="synpic0.jpg")
    [pair] = collect(rad).notes["duplicate_triples"]
    assert sorted(name.rpartition("/")[2] for name in pair) == ["4", "8"]


@pytest.fixture(scope="module")
def complete(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare("vqa-rad", shared / "data/vqa_rad", tmp_path_factory.mktemp("rad") / "out")


def test_the_complete_release_has_the_published_counts(complete: Prepared) -> None:
    counts = complete.manifest["counts"]
    types = complete.manifest["counts_by_type"]
    assert counts["train"] + counts["validation"] == 1797
    assert types["train"]["CLOSED"] + types["validation"]["CLOSED"] == 1027
    assert (counts["test"], types["test"]) == (451, {"CLOSED": 272, "OPEN": 179})
    assert complete.manifest["images"]["count"] == 314
    assert complete.manifest["notes"]["completeness"] == "complete"
    assert len(complete.manifest["notes"]["duplicate_triples"]) == 4
    without = complete.manifest["notes"]["closed_without_options"]
    assert {name.rpartition("/")[2] for name in without} == {"823", "1308", "2126", "2127", "2156"}


def test_options_of_the_complete_release_hold_the_answer(complete: Prepared) -> None:
    sizes: Counter[int] = Counter()
    for split in complete.splits:
        for record in complete.records(split):
            options = record.meta.get("options", [])
            sizes[len(options)] += 1
            plain = [option.lower() for option in options]
            assert not plain or record.answer.lower().removeprefix("the ") in [
                option.removeprefix("the ") for option in plain
            ], record.id
    assert sizes[0] == 949 + 5


def test_the_med_vqa_files_have_the_published_counts(shared: Path) -> None:
    collected = collect(shared / "data/vqa_rad", "med-vqa")
    counts = {split: len(list(rows)) for split, rows in collected.splits.items()}
    assert counts["train"] + counts["validation"] == 3064 and counts["test"] == 451
    frames = [r for r in by_id(collected).values() if r.meta["phrase_type"] == "frame"]
    assert len(frames) == 1267


@pytest.mark.parametrize(
    ("variant", "expected", "steps"),
    [("official", (1620, 177, 451), 390), ("med-vqa", (2759, 305, 451), 660)],
)
def test_what_is_left_for_training_by_variant(
    shared: Path, variant: str, expected: tuple[int, int, int], steps: int
) -> None:
    splits = collect(shared / "data/vqa_rad", variant).splits
    sizes = [len(list(splits[name])) for name in ("train", "validation", "test")]
    assert tuple(sizes) == expected
    stage = load_recipe("finetune/vqa-rad").recipe.stages["vqa"]
    parts = stage.gradient_accumulation_steps
    assert num_steps(sizes[0], stage.batch_size, parts, stage.epochs) == steps


def test_the_split_of_yang_puts_each_question_where_its_authors_did(
    rad: Path, rad_row, write_rad
) -> None:
    table = json.loads(Path(vqa_rad.__file__).with_name("vqa_rad_split_yang.json").read_text())
    by_qid = {qid: split for split in ("train", "validation", "test") for qid in table[split]}
    assert sorted(by_qid) == list(range(2248))
    assert [len(table[split]) for split in ("train", "validation", "test")] == [785, 728, 735]
    # One fewer, as a file of 2,248 rows must have the published kinds of answers.
    write_rad([rad_row(n, image_name=f"{n}.jpg") for n in range(2247)])
    splits = collect(rad, "yang-2024").splits
    for split, records in splits.items():
        wanted = [qid for qid in sorted(table[split]) if qid < 2247]
        assert [int(r.meta["published_id"]) for r in records] == wanted


def test_the_split_of_yang_refuses_another_release(rad: Path, rad_row, write_rad) -> None:
    write_rad([rad_row(1, image_name="a.jpg"), rad_row(3, image_name="a.jpg")])
    with pytest.raises(DataError, match=r"qid 3 about a\.jpg does not fit"):
        collect(rad, "yang-2024")
    write_rad([rad_row(2248)])
    with pytest.raises(DataError, match="qid 2248"):
        collect(rad, "yang-2024")


@pytest.mark.slow
def test_the_split_of_yang_shares_no_image_in_the_release(shared: Path) -> None:
    splits = collect(shared / "data/vqa_rad", "yang-2024").splits
    images = [{r.images[0] for r in records} for records in splits.values()]
    assert [len(each) for each in images] == [109, 102, 103]
    assert len(set.union(*images)) == 314
    assert [len(records) for records in splits.values()] == [785, 728, 735]
