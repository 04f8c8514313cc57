"""`data audit`: what of a test set is in training; images by name, bytes and look, and text."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.fft import dctn

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import GUESSED, Record, file_sha256
from exgra_med.terminal import ProgressCallback

NEAR_BITS = 6
"""Perceptual hashes that differ in at most so many of 64 bits count as the same picture."""

REPHRASED_OVERLAP = 0.5
"""Share of common words from which two questions about one image with one answer are one."""

_SIDE = 32
_KEPT = 8


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly equal under scaling, compression and slight changes of contrast.

    The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey version against their median
    (the "pHash" of Zauner 2010).
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    frequencies = dctn(pixels)[:_KEPT, :_KEPT].ravel()
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(left: list[int], right: list[int], bits: int = NEAR_BITS) -> list[tuple[int, int]]:
    """(row of left, row of right) of hashes that differ in at most `bits` bits, in order."""
    if not left or not right:
        return []
    wanted = np.array(right, dtype=np.uint64)
    pairs = []
    for row, value in enumerate(left):
        distance = np.bitwise_count(wanted ^ np.uint64(value))
        pairs += [(row, int(column)) for column in np.flatnonzero(distance <= bits)]
    return pairs


@dataclass
class Audit:
    """What of the test set was in training; every number counts test images or test records.

    Of several images of a record, any one counts.

    Args:
        test_images_in_train: of these, how many are in training under the same name or with the
            same bytes.
        near_duplicate_images: of the others, how many look like a training image.
        duplicate_questions: records whose question text is in training, about any image.
        duplicate_image_questions: records whose image and question are in training.
        duplicate_records: records whose image, question and answer are in training.
        rephrased_questions: records for which training has the same image and answer and a question
            that shares half of its words.
        rephrased_by_phrase_type: the same by the training record's `phrase_type`, where it has one.
        open_answers_in_train: open test answers that are an answer in training.
        open_answers: how many open test answers there are.
        guessed_types: test records that state no answer type, so that it is taken from the answer.
    """

    test_images: int
    test_images_in_train: int
    near_duplicate_images: int | None
    test_records: int
    duplicate_questions: int
    duplicate_image_questions: int
    duplicate_records: int
    rephrased_questions: int
    rephrased_by_phrase_type: dict[str, int]
    open_answers_in_train: int
    open_answers: int
    guessed_types: int
    near_pairs: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The audit for a person."""
        near = "not compared, give --images"
        if self.near_duplicate_images is not None:
            near = f"{self.near_duplicate_images} further test images look like a training image"
        phrases = ", ".join(f"{n} {name}" for name, n in self.rephrased_by_phrase_type.items())
        return [
            f"{self.test_images_in_train} of {self.test_images} test images are in train",
            near,
            f"{self.duplicate_questions} of {self.test_records} test questions are in train",
            f"{self.duplicate_image_questions} test questions are in train about the same image",
            f"{self.duplicate_records} test records are in train, answer included",
            f"{self.rephrased_questions} test records are in train in other words"
            + (f" ({phrases})" if phrases else ""),
            f"{self.open_answers_in_train} of {self.open_answers} open test answers are answers in "
            "train" + (f" ({self.guessed_types} {GUESSED})" if self.guessed_types else ""),
        ]


def audit(
    train: Sequence[Record],
    test: Sequence[Record],
    images: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Compare a test set with a training set.

    Args:
        images: folder of the images of both; compared by name only where absent.

    Raises:
        DataError: an image is missing or broken.
    """
    train_images = sorted({name for record in train for name in record.images})
    test_images = sorted({name for record in test for name in record.images})
    same = set(test_images) & set(train_images)
    pairs: list[tuple[str, str]] = []
    if images is not None:
        by_bytes, pairs = _compare(test_images, train_images, same, images, progress)
        same |= by_bytes
    return Audit(
        test_images=len(test_images),
        test_images_in_train=len(same),
        near_duplicate_images=None if images is None else len({name for name, _ in pairs} - same),
        test_records=len(test),
        near_pairs=[pair for pair in pairs if pair[0] not in same],
        **_compare_texts(train, test),
    )


def _compare(
    test: list[str], train: list[str], same: set[str], root: Path, progress: ProgressCallback | None
) -> tuple[set[str], list[tuple[str, str]]]:
    """Test images with the bytes of a training image, and pairs that look alike."""
    folder = ImageFolder(root, MAX_PIXELS)
    exact: dict[str, str] = {}
    looks: dict[str, int] = {}
    every = sorted({*test, *train})
    for done, name in enumerate(every, start=1):
        exact[name] = file_sha256(folder.locate(name))
        looks[name] = perceptual_hash(folder.open(name))
        if progress:
            progress("pictures", done, len(every))
    known = {exact[name] for name in train}
    by_bytes = {name for name in test if exact[name] in known}
    others = [name for name in test if name not in same | by_bytes]
    found = near_pairs([looks[name] for name in others], [looks[name] for name in train])
    return by_bytes, [(others[row], train[column]) for row, column in found]


def _compare_texts(train: Sequence[Record], test: Sequence[Record]) -> dict[str, Any]:
    """The text fields of an `Audit`."""
    questions = {_plain(record.question) for record in train}
    answers = {_plain(record.answer) for record in train}
    about_image: set[tuple[str, str]] = set()
    by_image_answer: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in train:
        for image in record.images:
            about_image.add((image, _plain(record.question)))
            by_image_answer[image, _plain(record.answer)].append(record)
    names = ("duplicate_questions", "duplicate_image_questions", "duplicate_records")
    names += ("rephrased_questions", "open_answers_in_train", "open_answers", "guessed_types")
    counts = dict.fromkeys(names, 0)
    phrases: Counter[str] = Counter()
    for record in test:
        question, answer = _plain(record.question), _plain(record.answer)
        others = [other for image in record.images for other in by_image_answer[image, answer]]
        kinds = {
            str(other.meta.get("phrase_type", "none"))
            for other in others
            if word_overlap(record.question, other.question) >= REPHRASED_OVERLAP
        }
        phrases.update(kinds)
        is_open = record.known_type == "OPEN"
        counts["duplicate_questions"] += question in questions
        counts["duplicate_image_questions"] += any(
            (image, question) in about_image for image in record.images
        )
        counts["duplicate_records"] += question in {_plain(other.question) for other in others}
        counts["guessed_types"] += record.answer_type is None
        counts["open_answers"] += is_open
        counts["open_answers_in_train"] += is_open and answer in answers
        counts["rephrased_questions"] += bool(kinds)
    return {**counts, "rephrased_by_phrase_type": dict(sorted(phrases.items()))}


def word_overlap(left: str, right: str) -> float:
    """Share of common words of two texts: |both| / |either|."""
    words = [set(re.findall(r"\w+", text.lower())) for text in (left, right)]
    either = words[0] | words[1]
    return len(words[0] & words[1]) / len(either) if either else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
