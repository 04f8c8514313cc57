"""The published VQA score (run_eval), bit for bit: for comparison with published tables only.

Known defects, kept on purpose: a closed answer counts as right wherever the reference stands inside
the prediction ("no" in "normal"); recall grows when a hit is repeated; "exact match" is a precision
over words; open accuracy falls back on the first candidate. docs/faithfulness.md lists them.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from exgra_med.evaluation.metrics.bleu import sentence_bleu
from exgra_med.evaluation.metrics.legacy_words import clean


class Overlap(NamedTuple):
    """Word overlap of a prediction with a reference, each from 0 to 1."""

    exact_match: float
    f1: float
    precision: float
    recall: float


_NOTHING = Overlap(0.0, 0.0, 0.0, 0.0)


def closed_hit(prediction: str, reference: str) -> int:
    """1 where the cleaned reference is a substring of the cleaned prediction, else 0."""
    return int(clean(reference) in clean(prediction))


def overlap(prediction: str, reference: str) -> Overlap:
    """Word scores of an open answer; both texts are cleaned twice, as published.

    A hit counts as often as the prediction repeats it, a miss once for each reference word:
    `overlap("left left left", "left lung").recall` is 3 / (3 + 1).
    """
    predicted = Counter(clean(clean(prediction)).split())
    expected = Counter(clean(clean(reference)).split())
    total = predicted.total()
    if not total or not expected:
        return _NOTHING
    distinct_hits = sum(word in predicted for word in expected)
    hits = sum(count for word, count in predicted.items() if word in expected)
    misses = sum(count for word, count in expected.items() if word not in predicted)
    if not hits:
        return _NOTHING
    precision = hits / total
    recall = hits / (hits + misses)
    return Overlap(
        exact_match=distinct_hits / total,
        f1=2 * precision * recall / (precision + recall),
        precision=precision,
        recall=recall,
    )


def bleu(prediction: str, reference: str) -> dict[str, float]:
    """`bleu`, `bleu_1`, `bleu_2`, `bleu_3` of the once-cleaned texts."""
    return sentence_bleu(clean(reference).split(), clean(prediction).split())


class Candidates:
    """Known open answers, onto which a prediction is mapped for open accuracy.

    Args:
        answers: answers of the training questions in the order of the candidate file.
    """

    def __init__(self, answers: Iterable[str | int]) -> None:
        self._texts = [clean(clean(str(answer))) for answer in answers]
        words = [frozenset(text.split()) for text in self._texts]
        self._sizes = np.array([max(1, len(each)) for each in words])
        having: dict[str, list[int]] = {}
        for index, each in enumerate(words):
            for word in each:
                having.setdefault(word, []).append(index)
        self._having = {word: np.array(rows) for word, rows in having.items()}
        self._cache: dict[str, str] = {}

    def closest(self, prediction: str) -> str:
        """The cleaned candidate with the largest share of its words in the prediction.

        The first one wins a tie, and the first of all where no word is shared.
        """
        text = clean(clean(prediction))
        if text not in self._cache:
            lists = [self._having[word] for word in set(text.split()) if word in self._having]
            best = 0
            if lists:
                hits = np.bincount(np.concatenate(lists), minlength=len(self._texts))
                best = int((hits / self._sizes).argmax())
            self._cache[text] = self._texts[best]
        return self._cache[text]

    def hit(self, prediction: str, reference: str) -> float:
        """1.0 where the closest candidate equals the reference as a string."""
        return float(self.closest(prediction) == clean(clean(reference)))
