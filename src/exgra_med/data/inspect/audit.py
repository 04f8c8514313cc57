"""`data audit`: what of a test set is in training; images by name, bytes and look, and text."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.lookalikes import Looks, Twin, how_near, read_looks, twins
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import GUESSED, Prepared, Record, image_names
from exgra_med.errors import DataError
from exgra_med.files import is_folder
from exgra_med.terminal import ProgressCallback

REPHRASED_OVERLAP = 0.5
"""Share of common words from which two questions about one image with one answer are one."""

_NONE = "none"


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
        rephrased_by_phrase_type: the same by the training record's `phrase_type`; `none` counts
            those without.
        open_answers_in_train: open test answers that are an answer in training.
        open_answers: how many open test answers there are.
        guessed_types: test records that state no answer type, so that it is taken from the answer.
        near_pairs: test images that are not in training, with the training images they look like.
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
    near_pairs: list[Twin] = field(default_factory=list)

    def lines(self, train: str = "train", test: str = "test") -> list[str]:
        """The audit for a person, who calls the two sets so."""
        near = "not compared, give --images"
        if self.near_duplicate_images is not None:
            near = f"{self.near_duplicate_images} further {test} images look like a {train} image"
            near += f" ({how_near(self.near_pairs)})" if self.near_pairs else ""
        by_type = self.rephrased_by_phrase_type
        phrases = ", ".join(f"{n} {name}" for name, n in by_type.items() if set(by_type) > {_NONE})
        return [
            f"{self.test_images_in_train} of {self.test_images} {test} images are in {train}",
            near,
            f"{self.duplicate_questions} of {self.test_records} {test} questions are in {train}",
            f"{self.duplicate_image_questions} {test} questions are in {train} about the same "
            "image",
            f"{self.duplicate_records} {test} records are in {train}, answer included",
            f"{self.rephrased_questions} {test} records are in {train} in other words"
            + (f" ({phrases})" if phrases else ""),
            f"{self.open_answers_in_train} of {self.open_answers} open {test} answers are answers "
            f"in {train}" + (f" ({self.guessed_types} {GUESSED})" if self.guessed_types else ""),
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
        DataError: the folder or an image is missing, or one is broken.
    """
    looks = None
    if images is not None:
        if not is_folder(images):
            raise DataError(f"{images}: no such folder.", "Give the folder of the images.")
        names = image_names(train) | image_names(test)
        looks = _all_looks(ImageFolder(images, MAX_PIXELS), names, progress)
    return _audit(train, test, looks)


def audit_splits(
    prepared: Prepared, progress: ProgressCallback | None = None
) -> dict[tuple[str, str], Audit]:
    """Compare the splits of a prepared folder, each with every split before it.

    Returns:
        (earlier split, later split) -> what of the later one is in the earlier one.

    Raises:
        DataError: an image is missing or broken, or there is one split alone.
        DamagedFileError: a file was changed.
    """
    splits = {split: prepared.records(split) for split in prepared.splits}
    splits = {split: records for split, records in splits.items() if records}
    if len(splits) < 2:
        only = f"{next(iter(splits))} alone" if splits else "no split"
        raise DataError(
            f"{prepared.path} has records in {only}, so that there is nothing to compare.",
            "Give the training data first: exgra-med data audit TRAIN TEST.",
        )
    names = set().union(*map(image_names, splits.values()))
    looks = _all_looks(prepared.image_folder(MAX_PIXELS), names, progress)
    return {
        (earlier, later): _audit(splits[earlier], splits[later], looks)
        for earlier, later in combinations(splits, 2)
    }


def _all_looks(
    folder: ImageFolder, names: Iterable[str], progress: ProgressCallback | None
) -> Looks:
    looks = read_looks(folder, names, progress)
    if looks.not_read:
        raise next(iter(looks.not_read.values()))
    return looks


def _audit(train: Sequence[Record], test: Sequence[Record], looks: Looks | None) -> Audit:
    trained, tested = image_names(train), image_names(test)
    same = tested & trained
    pairs: list[Twin] = []
    if looks is not None:
        known = {looks.files[name] for name in trained}
        same |= {name for name in tested if looks.files[name] in known}
        pairs = twins(looks.only(tested - same), looks.only(trained))
    return Audit(
        test_images=len(tested),
        test_images_in_train=len(same),
        near_duplicate_images=None if looks is None else len({each.picture for each in pairs}),
        test_records=len(test),
        near_pairs=pairs,
        **_compare_texts(train, test),
    )


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
            str(other.meta.get("phrase_type", _NONE))
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
