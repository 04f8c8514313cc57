"""The published VQA score (run_eval), bit for bit: for comparison with published tables only.

Known defects, kept on purpose: a closed answer counts as right wherever the reference stands inside
the prediction ("no" in "normal"); recall grows when a hit is repeated; "exact match" is a precision
over words; open accuracy falls back on the first candidate. docs/faithfulness.md lists them.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

# Sentence BLEU of one hypothesis against one reference, without smoothing.
#
# Papineni et al. 2002; equal to `nltk.translate.bleu_score.sentence_bleu` to the last bit, so that
# nltk is needed in tests only.


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


# Answer cleaning of the published evaluation, defects included, so that its numbers can be met.
#
# The rules descend from the VQA v2 evaluation: punctuation, number words, articles, contractions.
# Nothing here should be used for a new score; see `evaluation/metrics/strict.py` for that.


_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The published pattern misspells the look-behind, so a period before a digit is all that stays.
_PERIOD = re.compile(r"(?!<=\d)\.(?!\d)")
# re.UNICODE was handed over as `count`: after 32 periods the rest stay.
_MOST_PERIODS = int(re.UNICODE)

_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})

# Written with the apostrophe; the key is the same word without it.
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's I'm I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've
o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
""".split()
# Doubly contracted words are known with either apostrophe missing.
_DOUBLY = """
couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've
someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
""".split()


def _contractions() -> dict[str, str]:
    table: dict[str, str] = {word.replace("'", ""): word for word in _CONTRACTED}
    for word in _DOUBLY:
        first = word.index("'")
        second = word.rindex("'")
        table[word[:first] + word[first + 1 :]] = word
        table[word[:second] + word[second + 1 :]] = word
    for spelling in ("yall'd've", "y'alld've", "y'all'dve"):
        table[spelling] = "y'all'd've"
    for spelling in ("ow's'at", "'ows'at", "'ow'sat"):
        table[spelling] = "'ow's'at"
    table["somebody'd"] = "somebodyd"
    return table


_CONTRACTIONS = _contractions()


@lru_cache(maxsize=262_144)
def clean(text: str) -> str:
    """One pass of the published cleaning.

    Args:
        text: a prediction, a reference or a candidate.

    Returns:
        Lower-case words joined by single blanks.
    """
    text = text.lower()
    spaced = text
    drop_everything = _DIGIT_COMMA_DIGIT.search(text) is not None
    for mark in _PUNCTUATION:
        if mark in text:
            at_an_edge = f"{mark} " in text or f" {mark}" in text
            spaced = spaced.replace(mark, "" if at_an_edge or drop_everything else " ")
    spaced = _PERIOD.sub("", spaced, count=_MOST_PERIODS)
    words = (_NUMBER_WORDS.get(word, word) for word in spaced.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


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


@lru_cache(maxsize=65_536)
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


@lru_cache(maxsize=65_536)
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


# The published PathVQA score (run_eval_pvqa), which forgets wrong yes/no answers.
#
# Only there so that published PathVQA numbers can be explained: two right and three wrong answers
# give 100 %. Open answers are scored as in `legacy`.


def closed_hit_pathvqa(prediction: str, reference: str) -> int | None:
    """1 for a hit, 0 where neither "yes" nor "no" stands in the prediction, None where dropped.

    A prediction that holds "yes" or "no" anywhere but not the reference is wrong; the published
    script appends nothing for it, so it leaves the denominator.
    """
    answer = clean(prediction)
    if "yes" not in answer and "no" not in answer:
        return 0
    return 1 if clean(reference) in answer else None


# The yes/no table that the published script for modalities prints beside the legacy metrics.
#
# A reference "yes" is found by "yes" anywhere in the answer; a reference "no" is missed by "yes"
# anywhere in it and found by "no". An answer to "no" with neither word is in no cell.


Cell = Literal["tp", "fp", "tn", "fn"]


def yes_no_cell(prediction: str, reference: str) -> Cell | None:
    """The cell of a closed answer; None for other references, and where neither word occurs."""
    said, wanted = prediction.lower(), reference.strip().lower()
    if wanted == "yes":
        return "tp" if "yes" in said else "fn"
    if wanted == "no":
        return "fp" if "yes" in said else "tn" if "no" in said else None
    return None


def yes_no_table(pairs: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    """Counts, and precision, recall and F1 of "yes" in percent; None where there is no "yes".

    Args:
        pairs: prediction and reference of each closed question.
    """
    cells = Counter(yes_no_cell(*pair) for pair in pairs)
    hits, false, missed = cells["tp"], cells["fp"], cells["fn"]
    return {
        "tp": hits,
        "fp": false,
        "tn": cells["tn"],
        "fn": missed,
        "precision": _percent(hits, hits + false),
        "recall": _percent(hits, hits + missed),
        "f1": _percent(2 * hits, 2 * hits + false + missed),
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
