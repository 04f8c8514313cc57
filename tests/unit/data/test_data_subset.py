import pytest

from exgra_med.data.records import Record, Turn
from exgra_med.data.subset import images_for_share, nested_subset
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
