"""Left and right: a model that sees the side must change its answer when the image is mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.evaluation.normalise import words
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.statistics import wilson

_SIDES = {"left": "left", "right": "right", "左": "left", "右": "right"}
_OTHER = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class MirroredImages(ImageFolder):
    """Every image is mirrored, so that left becomes right."""

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        return ImageOps.mirror(super().open(name, where))


def side_of(text: str) -> str | None:
    """The one side that a text names; None for none or both.

    >>> side_of("Left lung"), side_of("left and right")
    ('left', None)
    """
    sides = {_SIDES[word] for word in words(text) if word in _SIDES}
    return sides.pop() if len(sides) == 1 else None


def sided_records(records: Sequence[Record]) -> list[Record]:
    """Questions about one image whose reference answer names one side."""
    return [each for each in records if len(each.images) == 1 and side_of(each.answer)]


def mirror_probe(
    seeing: Sequence[Prediction], mirrored: Sequence[Prediction], records: Sequence[Record]
) -> dict[str, Any]:
    """How often the side that is answered follows the image when that is mirrored.

    Args:
        seeing: answers to the images as they are.
        mirrored: answers to the mirrored images.
        records: from `sided_records`.

    Returns:
        `num` questions; of these, in percent, `follows` (the other side is answered; with Wilson's
        `interval`), `stays` (the same side) and `no_side` (one answer names no side). None without
        questions. A model that ignores the image stays.
    """
    before = {each.id: side_of(each.text) for each in seeing}
    after = {each.id: side_of(each.text) for each in mirrored}
    sides = [(before.get(each.id), after.get(each.id)) for each in records]
    num = len(sides)
    follows = sum(a is not None and b == _OTHER[a] for a, b in sides)
    stays = sum(a is not None and a == b for a, b in sides)
    bounds = wilson(follows, num)

    def percent(count: int) -> float | None:
        return 100 * count / num if num else None

    return {
        "num": num,
        "follows": percent(follows),
        "interval": None if bounds is None else [100 * bounds[0], 100 * bounds[1]],
        "stays": percent(stays),
        "no_side": percent(num - follows - stays),
    }
