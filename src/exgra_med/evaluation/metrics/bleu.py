"""Sentence BLEU of one hypothesis against one reference, without smoothing.

Papineni et al. 2002; equal to `nltk.translate.bleu_score.sentence_bleu` to the last bit, so that
nltk is needed in tests only.
"""

import math
import sys
from collections import Counter
from fractions import Fraction

BLEU_WEIGHTS: dict[str, tuple[float, float, float, float]] = {
    "bleu": (0.25, 0.25, 0.25, 0.25),
    "bleu_1": (1, 0, 0, 0),
    "bleu_2": (0, 1, 0, 0),
    "bleu_3": (0, 0, 1, 0),
}


def sentence_bleu(reference: list[str], hypothesis: list[str]) -> dict[str, float]:
    """BLEU under each weighting of the published table.

    `bleu` weighs the precisions of 1- to 4-grams alike; `bleu_n` is the precision of n-grams alone,
    times the brevity penalty. A precision of zero becomes the smallest positive float, as in nltk.

    Args:
        reference: words of the reference answer.
        hypothesis: words of the prediction.

    Returns:
        `bleu`, `bleu_1`, `bleu_2`, `bleu_3`, each from 0 to 1.
    """
    if set(reference).isdisjoint(hypothesis):
        return dict.fromkeys(BLEU_WEIGHTS, 0.0)
    precisions = [_modified_precision(reference, hypothesis, n) for n in (1, 2, 3, 4)]
    penalty = 1.0
    if len(hypothesis) <= len(reference):
        penalty = math.exp(1 - len(reference) / len(hypothesis))
    logs = [math.log(value if value else sys.float_info.min) for value in precisions]
    return {
        name: penalty
        * math.exp(math.fsum(weight * log for weight, log in zip(weights, logs, strict=True)))
        for name, weights in BLEU_WEIGHTS.items()
    }


def _modified_precision(reference: list[str], hypothesis: list[str], n: int) -> Fraction:
    counts = _ngrams(hypothesis, n)
    limits = _ngrams(reference, n)
    clipped = sum(min(count, limits[gram]) for gram, count in counts.items() if gram in limits)
    return Fraction(clipped, max(1, len(hypothesis) - n + 1))


def _ngrams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
