"""Whether a model looks: the same questions with a blank, noise or another image.

A model whose score does not fall without its image answers from the question alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.errors import DataError
from exgra_med.evaluation.paired import paired_difference
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.questions import question_of
from exgra_med.evaluation.scorers import score_items
from exgra_med.evaluation.statistics import cluster_codes

Blindness = Literal["blank", "noise", "shuffled"]
BLINDNESS: tuple[Blindness, ...] = ("blank", "noise", "shuffled")
_GREY = (127, 127, 127)


@dataclass(frozen=True)
class BlankImages(ImageFolder):
    """Every image is grey, in its own size."""

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        return Image.new("RGB", super().open(name, where).size, _GREY)


@dataclass(frozen=True)
class NoiseImages(ImageFolder):
    """Every image is noise in its own size, the same noise for the same name."""

    seed: int = 0

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        width, height = super().open(name, where).size
        generator = np.random.default_rng([self.seed, *name.encode("utf-8")])
        return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def shuffled_records(records: Sequence[Record], seed: int = 0) -> list[Record]:
    """Records in which every image is replaced by another one of the same set.

    Args:
        records: with one image each; those without an image stay.
        seed: of the exchange, which never gives an image back to itself.

    Raises:
        DataError: there is only one image, so none can be exchanged.
    """
    names = sorted({name for record in records for name in record.images})
    if len(names) == 1:
        raise DataError("There is only one image, so images cannot be exchanged.")
    shuffled = names[:]
    random.Random(seed).shuffle(shuffled)
    # A circle through all images: none maps to itself.
    other = dict(zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True))
    return [
        record.model_copy(update={"image": [other[name] for name in record.images]})
        if record.images
        else record
        for record in records
    ]


def blinded(
    kind: Blindness, records: Sequence[Record], images: ImageFolder, seed: int = 0
) -> tuple[list[Record], ImageFolder]:
    """Records and images with which to ask the same questions without the right image."""
    if kind == "shuffled":
        return shuffled_records(records, seed), images
    if kind == "noise":
        return list(records), NoiseImages(images.root, images.max_pixels, seed)
    return list(records), BlankImages(images.root, images.max_pixels)


def visual_reliance(
    seeing: Sequence[Prediction],
    blind: Mapping[str, Sequence[Prediction]],
    records: Sequence[Record],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """What the right image is worth, question by question (strict score, in points).

    Args:
        seeing: answers with the right images.
        blind: answers by kind of blindness.
        records: the questions, with their right images.
        num_bootstrap_samples: resamples of the paired bootstrap.
        seed: of the resamples.

    Returns:
        Kind -> `average, open_recall, closed_accuracy` lost without the image, their `intervals`,
        and `same_answer`: the share of questions, in percent, answered with the very same text.
    """
    questions = [question_of(record) for record in records]
    clusters = cluster_codes([question.cluster for question in questions])
    with_image = pair(list(seeing), questions)
    values = score_items(with_image, "strict").values
    result: dict[str, Any] = {}
    for kind, predictions in blind.items():
        without = pair(list(predictions), questions)
        same = sum(
            a is not None and a == b
            for a, b in zip(with_image.answers, without.answers, strict=True)
        )
        result[kind] = paired_difference(
            values, score_items(without, "strict").values, clusters, num_bootstrap_samples, seed
        ) | {"same_answer": 100 * same / len(questions)}
    return result
