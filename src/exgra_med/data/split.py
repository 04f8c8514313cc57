"""Splits by image: no image of one side is on the other."""

from collections.abc import Mapping

from exgra_med.data.subset import seeded_key


def images_for_share(counts: Mapping[str, int], share: float, seed: int, salt: str) -> set[str]:
    """Choose whole images until they hold about a share of all records.

    Args:
        counts: records per image.
        share: wanted share of the records, 0..1.
        seed: another seed chooses others.
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
