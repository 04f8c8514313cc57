import pytest

from exgra_med.data.conversation import choose_conversations
from exgra_med.data.records import Record, Turn
from exgra_med.data.subset import group_of, images_for_share, nested_subset
from exgra_med.errors import DataError

TURNS = [Turn(role="user", text="Q"), Turn(role="assistant", text="A")]
RECORDS = [Record(id=f"x/train/{n}", turns=TURNS) for n in range(500)]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_subsets_are_nested_and_in_order(seed: int) -> None:
    previous: set[str] = set()
    for fraction in (0.001, 0.1, 0.4, 0.75, 1.0):
        subset = nested_subset(RECORDS, fraction, seed)
        ids = [record.id for record in subset]
        assert len(ids) == max(1, round(500 * fraction))
        assert previous <= set(ids)
        assert ids == [r.id for r in RECORDS if r.id in set(ids)]
        previous = set(ids)


def test_a_record_keeps_its_place_when_others_are_added() -> None:
    few = {r.id for r in nested_subset(RECORDS[:250], 0.2, 0)}
    many = {r.id for r in nested_subset(RECORDS, 0.2, 0)}
    assert len(few & many) > 30


def test_another_seed_takes_others() -> None:
    ids = [{r.id for r in nested_subset(RECORDS, 0.1, seed)} for seed in (0, 1)]
    assert ids[0] != ids[1]


def _grouped() -> list[Record]:
    return [
        Record(id=f"x/train/{n}", image=f"{n // 5}.jpg", turns=TURNS, meta={"patient": n // 15})
        for n in range(300)
    ]


@pytest.mark.parametrize("group, size", [("image", 5), ("patient", 15)])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_stay_whole_and_nested(group: str, size: int, seed: int) -> None:
    records = _grouped()
    previous: set[str] = set()
    for fraction in (0.001, 0.1, 0.4, 0.75, 1.0):
        subset = [record.id for record in nested_subset(records, fraction, seed, group)]
        assert len(subset) % size == 0
        assert abs(len(subset) - 300 * fraction) <= size
        assert previous <= set(subset)
        assert subset == [r.id for r in records if r.id in set(subset)]
        whole = {group_of(r, group) for r in records if r.id in set(subset)}
        assert len(subset) == size * len(whole)
        previous = set(subset)


def test_conversations_keep_the_field_they_are_grouped_by() -> None:
    records = [r.model_copy(update={"meta": r.meta | {"options": ["a"]}}) for r in _grouped()]
    chosen = choose_conversations(records, 5, 0.5, 0, "patient")
    assert len(chosen) == 30 and all(len(each.turns) == 10 for each in chosen)
    assert all(set(each.meta) == {"patient"} for each in chosen)


def test_one_group_is_taken_whole() -> None:
    records = _grouped()[:5]
    assert list(nested_subset(records, 0.1, 0, "image")) == records


def test_a_record_without_the_field_is_named() -> None:
    with pytest.raises(DataError, match=r"x/train/0.*'hospital'"):
        nested_subset(_grouped(), 0.5, 0, "hospital")


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="fraction"):
        nested_subset(RECORDS, fraction, 0)


def test_whole_images_are_chosen_near_the_share() -> None:
    counts = {f"{n}.jpg": 3 + n % 5 for n in range(100)}
    chosen = images_for_share(counts, 0.1, 0, "validation")
    total = sum(counts[name] for name in chosen)
    assert abs(total - 0.1 * sum(counts.values())) <= 4
    assert chosen != images_for_share(counts, 0.1, 0, "test")
