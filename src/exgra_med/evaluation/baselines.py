"""What answers well without understanding: scores that stand beside every score of a model.

`majority` gives the most frequent training answer of the question's type; `text_nearest` the answer
of the most similar training question, without any image; `same_image_nearest` the same among the
training questions about the same image, which is what a leak between splits is worth.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.answers import Prediction, Question

BASELINE_LABELS = {
    "majority": "most frequent training answer",
    "text_nearest": "nearest training question, no image",
    "same_image_nearest": "nearest training question on the same image",
}
_WORD = re.compile(r"[^\W_]+")


def baseline_predictions(
    train: Sequence[Question], test: Sequence[Question]
) -> dict[str, list[Prediction]]:
    """Answers of each baseline to the test questions.

    Similarity is the cosine between the sets of lower-case words; the first of equally similar
    training questions wins. Only training questions of the same answer type are looked at, except
    where an image has none of that type.

    Args:
        train: training questions with answers.
        test: questions to answer.

    Returns:
        Baseline -> predictions; `same_image_nearest` only where a test image occurs in training.
    """
    if not train:
        return {}
    most_frequent = {
        kind: Counter(each.answer for each in train if each.answer_type == kind).most_common(1)
        for kind in ("OPEN", "CLOSED")
    }
    nearest = _Nearest(train)
    train_images = {image for each in train for image in each.images}
    answers: dict[str, list[str]] = {name: [] for name in BASELINE_LABELS}
    for question in test:
        common = most_frequent[question.answer_type]
        answers["majority"].append(common[0][0] if common else "")
        text_answer, image_answer = nearest.answers(question)
        answers["text_nearest"].append(text_answer)
        answers["same_image_nearest"].append(image_answer)
    if not any(image in train_images for each in test for image in each.images):
        del answers["same_image_nearest"]
    return {
        name: [Prediction(each.id, text) for each, text in zip(test, texts, strict=True)]
        for name, texts in answers.items()
    }


class _Nearest:
    """Training questions indexed by word."""

    def __init__(self, train: Sequence[Question]) -> None:
        self._answers = [each.answer for each in train]
        sets = [_word_set(each.text) for each in train]
        self._sizes = np.array([max(1, len(each)) for each in sets], dtype=np.float64)
        is_open = np.array([each.answer_type == "OPEN" for each in train])
        self._of_type = {
            "OPEN": (is_open, is_open.nonzero()[0]),
            "CLOSED": (~is_open, (~is_open).nonzero()[0]),
        }
        having: dict[str, list[int]] = {}
        by_image: dict[str, list[int]] = {}
        for index, (each, found) in enumerate(zip(train, sets, strict=True)):
            for word in found:
                having.setdefault(word, []).append(index)
            for image in each.images:
                by_image.setdefault(image, []).append(index)
        self._having = {word: np.array(rows) for word, rows in having.items()}
        self._by_image = {image: np.array(rows) for image, rows in by_image.items()}

    def answers(self, question: Question) -> tuple[str, str]:
        """Answer of the nearest question anywhere, and among those on the same images."""
        of_type, places = self._of_type[question.answer_type]
        if not len(places):
            return "", ""
        similarity = self._similarity(question)
        anywhere = int(places[similarity[places].argmax()])
        rows = [self._by_image[image] for image in question.images if image in self._by_image]
        if not rows:
            return self._answers[anywhere], self._answers[anywhere]
        same = np.unique(np.concatenate(rows))
        if of_type[same].any():
            same = same[of_type[same]]
        best = int(same[similarity[same].argmax()])
        return self._answers[anywhere], self._answers[best]

    def _similarity(self, question: Question) -> NDArray[np.float64]:
        """The squared cosine times the size of the question, in the order of the cosine."""
        found = _word_set(question.text)
        lists = [self._having[word] for word in found if word in self._having]
        if not lists:
            return np.zeros(len(self._answers))
        shared = np.bincount(np.concatenate(lists), minlength=len(self._answers))
        # One division of whole numbers keeps equal similarities equal, so that the first one wins.
        return shared * shared / self._sizes


def _word_set(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
