"""Seeded choices that do not depend on order: nested subsets, and splits by whole images."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from exgra_med.data.on_demand import Picked
from exgra_med.data.records import Record
from exgra_med.errors import DataError


def seeded_key(seed: int, name: str) -> str:
    """A pseudo-random sort key that depends on nothing but the seed and the name."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def nested_subset(
    records: Sequence[Record], fraction: float, seed: int, group: str | None = None
) -> Sequence[Record]:
    """Take a share of the records, in their order; 10 % lies inside 40 %, and 40 % inside all.

    Args:
        fraction: share in (0, 1]; round(n * fraction) records are taken, at least one. With
            `group`, whole groups are taken: the first ones of a drawn order, at least one, whose
            number of records is nearest to the share.
        group: `image`, or the name of a field of `meta`: records that agree in it are a group.

    Raises:
        DataError: the fraction is not in (0, 1], or a record lacks the field.
    """
    if not 0.0 < fraction <= 1.0:
        raise DataError(f"a fraction of {fraction} is not above 0 and at most 1.")
    if fraction == 1.0 or not records:
        return records
    if group is not None:
        keys = [group_of(record, group) for record in records]
        taken = images_for_share(Counter(keys), fraction, seed, "subset") or set(keys)
        return Picked(records, [row for row, key in enumerate(keys) if key in taken])
    count = max(1, round(len(records) * fraction))
    ranked = sorted(range(len(records)), key=lambda row: (seeded_key(seed, records[row].id), row))
    return Picked(records, sorted(ranked[:count]))


def group_of(record: Record, group: str) -> str:
    """The group of a record: its images, or a field of its `meta`.

    Raises:
        DataError: the record lacks the field.
    """
    if group == "image":
        return record.image_group
    if record.meta.get(group) is None:
        raise DataError(
            f"Record {record.id!r} has no {group!r} in its meta, by which records are grouped.",
            "Prepare the data with that field, or group by `image`.",
        )
    return str(record.meta[group])


def stratum_of(record: Record, stratify: str | None) -> str:
    """What a record is counted as where shares are kept; one for all where nothing is asked for.

    Raises:
        DataError: the record lacks the field of `meta`.
    """
    if stratify is None:
        return ""
    if stratify == "answer_type":
        return record.known_type
    if record.meta.get(stratify) is None:
        raise DataError(
            f"Record {record.id!r} has no {stratify!r} in its meta, whose shares are to be kept.",
            "Give `answer_type`, or a field that every record has.",
        )
    return str(record.meta[stratify])


def images_for_share(counts: Mapping[str, int], share: float, seed: int, salt: str) -> set[str]:
    """Choose whole images until they hold about a share of all records, for a split by image.

    Args:
        counts: records per image.
        share: wanted share of the records, 0..1.
        salt: name of the side that is chosen, so that two choices do not follow one order.

    Returns:
        The images; the record count is the nearest to the share that the order allows, and at least
        one image where there are two.
    """
    if len(counts) < 2:
        return set()
    wanted = share * sum(counts.values())
    chosen: set[str] = set()
    total = 0
    for image in sorted(counts, key=lambda name: seeded_key(seed, f"{salt}:{name}")):
        if chosen and total + counts[image] / 2 > wanted:
            break
        chosen.add(image)
        total += counts[image]
    return chosen


def held_out_images(
    counts: Mapping[str, int], validation: float, test: float, seed: int
) -> dict[str, str]:
    """Image -> `test` or `validation` for shares of all records; other images are for training."""
    tested = images_for_share(counts, test, seed, "test") if test else set()
    rest = {image: count for image, count in counts.items() if image not in tested}
    share = validation / (1 - test)
    chosen = images_for_share(rest, share, seed, "validation") if validation else set()
    return dict.fromkeys(tested, "test") | dict.fromkeys(chosen, "validation")


def held_out_groups(
    strata: Mapping[str, Mapping[str, int]], validation: float, test: float, seed: int
) -> dict[str, str]:
    """Group -> `test` or `validation` for shares of all records and of each stratum.

    With one stratum it is `held_out_images`. With several, groups are looked at in a drawn order,
    and one is taken where the held-out counts of all strata get nearer to their shares by it, by
    the sum of squares.

    Args:
        strata: records of each group by stratum.
    """
    counts = {group: sum(each.values()) for group, each in strata.items()}
    if len({name for each in strata.values() for name in each}) < 2:
        return held_out_images(counts, validation, test, seed)
    totals: Counter[str] = Counter()
    for each in strata.values():
        totals.update(each)
    held: dict[str, str] = {}
    for side, share in (("test", test), ("validation", validation)):
        missing = {name: share * total for name, total in totals.items()}
        free = [name for name in strata if name not in held]
        free.sort(key=lambda name: seeded_key(seed, f"{side}:{name}"))

        def gain(group: str, missing: Mapping[str, float] = missing) -> float:
            """|m|^2 - |m - g|^2, where m is missing and g is what the group brings."""
            return sum(n * (2 * missing[name] - n) for name, n in strata[group].items())

        if not share or len(free) < 2:
            continue
        for group in free:
            if gain(group) > 0:
                held[group] = side
                for name, number in strata[group].items():
                    missing[name] -= number
        if side not in held.values():
            # Groups are larger than the share: the one that misses it least.
            held[max(free, key=gain)] = side
    return held


def untested_images(
    train: Mapping[str, int], tested: Collection[str], share: float, seed: int
) -> set[str]:
    """Images for a validation split that is taken from train: none that a test question shows.

    Choosing a checkpoint must not see test images, and train keeps its published overlap.
    """
    free = {image: count for image, count in train.items() if image not in tested}
    share = min(1.0, share * sum(train.values()) / max(1, sum(free.values())))
    return images_for_share(free, share, seed, "validation")
