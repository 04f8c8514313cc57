"""Scores of a VQA answer: the published ones, bit for bit, and the strict ones.

Strict: a closed answer is right only where exactly one option is chosen and it is the reference.
What cannot be read, abstains, or names several options is wrong, and says so in its `Verdict`. Open
answers are compared as sets of words. How an answer is read stands in `evaluation/reading.py`.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation.reading import (
    ABSTAIN,
    ABSTENTIONS,
    NO,
    NORMALISER_VERSION,
    OLDER_NORMALISER,
    YES,
    YES_NO,
    Options,
    answer_text,
    chosen_options,
    items,
    options_of,
    read_options,
    words,
)

# The published VQA score (run_eval), bit for bit: for comparison with published tables only.
#
# Known defects, kept on purpose: a closed answer counts as right wherever the reference stands
# inside the prediction ("no" in "normal"); recall grows when a hit is repeated; "exact match" is a
# precision over words; open accuracy falls back on the first candidate. docs/faithfulness.md lists
# them.

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
    Each is from 0 to 1.
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
    counts, limits = _ngrams(hypothesis, n), _ngrams(reference, n)
    clipped = sum(min(count, limits[gram]) for gram, count in counts.items() if gram in limits)
    return Fraction(clipped, max(1, len(hypothesis) - n + 1))


def _ngrams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


# Answer cleaning of the published evaluation, defects included, so that its numbers can be met.
#
# The rules descend from the VQA v2 evaluation: punctuation, number words, articles, contractions.
# Nothing here should be used for a new score.

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
        for place in (word.index("'"), word.rindex("'")):
            table[word[:place] + word[place + 1 :]] = word
    for spelling in ("yall'd've", "y'alld've", "y'all'dve"):
        table[spelling] = "y'all'd've"
    for spelling in ("ow's'at", "'ows'at", "'ow'sat"):
        table[spelling] = "'ow's'at"
    table["somebody'd"] = "somebodyd"
    return table


_CONTRACTIONS = _contractions()


@lru_cache(maxsize=65_536)
def published_words(text: str) -> str:
    """One pass of the published cleaning: lower-case words joined by single blanks."""
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


def published_closed_hit(prediction: str, reference: str) -> int:
    """1 where the cleaned reference is a substring of the cleaned prediction, else 0."""
    return int(published_words(reference) in published_words(prediction))


@lru_cache(maxsize=65_536)
def published_overlap(prediction: str, reference: str) -> Overlap:
    """Word scores of an open answer; both texts are cleaned twice, as published.

    A hit counts as often as the prediction repeats it, a miss once for each reference word:
    `overlap("left left left", "left lung").recall` is 3 / (3 + 1).
    """
    predicted = Counter(published_words(published_words(prediction)).split())
    expected = Counter(published_words(published_words(reference)).split())
    total = predicted.total()
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
def published_bleu(prediction: str, reference: str) -> dict[str, float]:
    """`bleu`, `bleu_1`, `bleu_2`, `bleu_3` of the once-cleaned texts."""
    return sentence_bleu(published_words(reference).split(), published_words(prediction).split())


class WordIndex:
    """Texts, as their words, by the words that they have."""

    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        self._num_texts = len(texts)
        having: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            for word in set(text):
                having.setdefault(word, []).append(row)
        self._having = {word: np.array(rows) for word, rows in having.items()}

    def shared(self, words: Iterable[str]) -> NDArray[np.int64] | None:
        """How many of the words each text has, (texts,); None where no text has any."""
        rows = [self._having[word] for word in set(words) if word in self._having]
        return np.bincount(np.concatenate(rows), minlength=self._num_texts) if rows else None


class PublishedCandidates:
    """Known open answers in the order of their file; open accuracy maps a prediction onto one."""

    def __init__(self, answers: Iterable[str | int]) -> None:
        self._texts = [published_words(published_words(str(answer))) for answer in answers]
        words = [frozenset(text.split()) for text in self._texts]
        self._sizes = np.array([max(1, len(each)) for each in words])
        self._index = WordIndex(words)
        self._cache: dict[str, str] = {}

    def closest(self, prediction: str) -> str:
        """The cleaned candidate with the largest share of its words in the prediction.

        The first one wins a tie, and the first of all where no word is shared.
        """
        text = published_words(published_words(prediction))
        if text not in self._cache:
            hits = self._index.shared(text.split())
            best = 0 if hits is None else int((hits / self._sizes).argmax())
            self._cache[text] = self._texts[best]
        return self._cache[text]

    def hit(self, prediction: str, reference: str) -> float:
        """1.0 where the closest candidate equals the reference as a string."""
        return float(self.closest(prediction) == published_words(published_words(reference)))


# The published PathVQA score (run_eval_pvqa), which forgets wrong yes/no answers.
#
# Only there so that published PathVQA numbers can be explained: two right and three wrong answers
# give 100 %. Open answers are scored as in `legacy`.


def published_closed_hit_pathvqa(prediction: str, reference: str) -> int | None:
    """1 for a hit, 0 where neither "yes" nor "no" stands in the prediction, None where dropped.

    A prediction that holds "yes" or "no" anywhere but not the reference is wrong; the published
    script appends nothing for it, so it leaves the denominator.
    """
    answer = published_words(prediction)
    if "yes" not in answer and "no" not in answer:
        return 0
    return 1 if published_words(reference) in answer else None


# The yes/no table that the published script for modalities prints beside the legacy metrics.
#
# A reference "yes" is found by "yes" anywhere in the answer; a reference "no" is missed by "yes"
# anywhere in it and found by "no". An answer to "no" with neither word is in no cell.


def yes_no_cell(prediction: str, reference: str) -> Literal["tp", "fp", "tn", "fn"] | None:
    """The cell of a closed answer; None for other references, and where neither word occurs."""
    said, wanted = prediction.lower(), reference.strip().lower()
    if wanted == "yes":
        return "tp" if "yes" in said else "fn"
    if wanted == "no":
        return "fp" if "yes" in said else "tn" if "no" in said else None
    return None


def yes_no_table(pairs: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    """Counts, and precision, recall and F1 of "yes" in percent; None where there is no "yes"."""
    cells = Counter(yes_no_cell(*pair) for pair in pairs)
    hits, false, missed = cells["tp"], cells["fp"], cells["fn"]
    return {
        "tp": hits,
        "fp": false,
        "tn": cells["tn"],
        "fn": missed,
        "precision": percent(hits, hits + false),
        "recall": percent(hits, hits + missed),
        "f1": percent(2 * hits, 2 * hits + false + missed),
    }


def percent(part: float, whole: int) -> float | None:
    """A share in percent; None of nothing."""
    return 100 * part / whole if whole else None


SCORER_VERSION = "2"
"""Of the reading of answers; 1 knew no thoughts, wrappers and letters."""
OLDER_SCORER = "1"

_ABSTAIN: Options = {ABSTAIN: ABSTENTIONS}


class Verdict(StrEnum):
    """What became of a closed answer; everything but `right` scores 0."""

    RIGHT = "right"
    WRONG = "wrong"
    SEVERAL = "several_options"
    ABSTAINED = "abstained"
    UNPARSED = "unparsed"


@dataclass(frozen=True, slots=True)
class ClosedScore:
    """Reading of one closed answer."""

    verdict: Verdict
    chosen: str | None
    """The option that was read, in cleaned words; None where none or several were."""
    expected: str
    """The option that the reference names."""

    @property
    def hit(self) -> int:
        """1 where right, else 0."""
        return int(self.verdict is Verdict.RIGHT)


@lru_cache(maxsize=65_536)
def yes_or_no(text: str, version: str = NORMALISER_VERSION) -> str | None:
    """Whether a reference answer is "yes" or "no" (in English or Chinese), or None for neither.

    >>> yes_or_no("Yes."), yes_or_no("left"), yes_or_no("没有")
    ('yes', None, 'no')
    """
    found = words(text, version)
    for label in (YES, NO):
        if found in YES_NO[label]:
            return label
    return None


@lru_cache(maxsize=65_536)
def closed(
    prediction: str,
    reference: str,
    question: str = "",
    given: tuple[str, ...] = (),
    version: str = NORMALISER_VERSION,
) -> ClosedScore:
    """Read a closed answer and compare the option it chooses with the reference.

    Options are `given` where the data set lists them, or else taken from the question where it
    names them ("left or right").
    """
    expected = yes_or_no(reference, version)
    if expected is not None:
        options: Options = YES_NO
        order = [yes_or_no(each, version) or each for each in given]
    else:
        options = options_of(reference, question, given, version)
        named = chosen_options(words(reference, version), options)
        expected = named.pop() if len(named) == 1 else " ".join(words(reference, version))
        order = [" ".join(words(each, version)) for each in given]
    if version == OLDER_NORMALISER:
        answer = words(prediction, version)
        is_reference = bool(answer) and answer == words(reference, version)
        chosen = chosen_options(answer, options | _ABSTAIN)
    else:
        answer = words(_spoken(prediction, reference, version))
        is_reference = bool(answer) and answer == words(reference)
        chosen = read_options(prediction, options | _ABSTAIN, order)
    if is_reference:
        return ClosedScore(Verdict.RIGHT, expected, expected)
    abstained = ABSTAIN in chosen
    chosen = chosen - {ABSTAIN}
    if len(chosen) > 1:
        return ClosedScore(Verdict.SEVERAL, None, expected)
    if not chosen:
        verdict = Verdict.ABSTAINED if abstained else Verdict.UNPARSED
        return ClosedScore(verdict, None, expected)
    (choice,) = chosen
    return ClosedScore(Verdict.RIGHT if choice == expected else Verdict.WRONG, choice, expected)


def _spoken(prediction: str, reference: str, version: str) -> str:
    """What of a reply is compared with a reference; all of it where it is the reference."""
    if version == OLDER_NORMALISER or words(prediction) == words(reference):
        return prediction
    return answer_text(prediction)


@lru_cache(maxsize=65_536)
def open_overlap(prediction: str, reference: str, version: str = NORMALISER_VERSION) -> Overlap:
    """Recall, precision and F1 over the sets of words, so that repeating a hit gains nothing.

    `exact_match` is 1 where the words are equal, or the items of a list in any order.

    >>> open_overlap("left left left", "left lung").recall
    0.5
    """
    said = _spoken(prediction, reference, version)
    predicted, expected = words(said, version), words(reference, version)
    hits = len(set(predicted) & set(expected))
    if not hits:
        return _NOTHING
    precision = hits / len(set(predicted))
    recall = hits / len(set(expected))
    exact = predicted == expected or items(said, version) == items(reference, version)
    return Overlap(float(exact), 2 * precision * recall / (precision + recall), precision, recall)


@lru_cache(maxsize=65_536)
def bleu(prediction: str, reference: str, version: str = NORMALISER_VERSION) -> dict[str, float]:
    """BLEU of the cleaned words; an n-gram that is absent gives 0."""
    said = words(_spoken(prediction, reference, version), version)
    scores = sentence_bleu(list(words(reference, version)), list(said))
    # Without smoothing an absent n-gram leaves about 1e-231; a sound score says zero.
    return {name: value if value > 1e-70 else 0.0 for name, value in scores.items()}


class Candidates:
    """Maps an answer onto the known answer with the highest F1; a tie between answers is no hit."""

    def __init__(self, answers: Iterable[str | int], version: str = NORMALISER_VERSION) -> None:
        self._version = version
        unique = {words(str(answer), version) for answer in answers} - {()}
        self._known = sorted(unique)
        self._sizes = np.array([len(set(candidate)) for candidate in self._known])
        self._index = WordIndex(self._known)
        self._closest: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def hit(self, prediction: str, reference: str) -> float:
        """1.0 where the closest known answer has the words of the reference."""
        found = words(_spoken(prediction, reference, self._version), self._version)
        if found not in self._closest:
            self._closest[found] = self._find(found)
        return float(self._closest[found] == words(reference, self._version))

    def _find(self, found: tuple[str, ...]) -> tuple[str, ...] | None:
        hits = self._index.shared(found)
        if hits is None:
            return None
        scores = 2 * hits / (len(set(found)) + self._sizes)
        best = int(scores.argmax())
        return self._known[best] if (scores == scores[best]).sum() == 1 else None


# Which yes/no questions ask whether something is there: "yes" then claims a finding.

_IS_THERE = re.compile(
    r"(?:is|are|was|were|is/are|are/is) there\b"
    r"|(?:does|do|did) (?:the|this|these) (?:picture|image|scan|film|radiograph|x-?ray|ct|mri|"
    r"patient|slide|figure)s? (?:contain|show|have|demonstrate|depict|reveal)\b"
    r"|(?:does|do) .+ (?:appear|exist) in (?:the|this) (?:picture|image|scan|film)\b"
    r"|can .+ be (?:seen|observed|detected|identified|visuali[sz]ed|found)\b"
    r"|(?:is|are|was|were) .+ (?:present|visible|seen|observed|detected|identified|visuali[sz]ed)"
    r"(?: (?:in|on|within|at|here)\b.*)?\W*$",
    re.IGNORECASE,
)
_TURNED_ROUND = re.compile(
    r"\b(?:no|not|without|absent|free of|normal|healthy)\b|n't\b", re.IGNORECASE
)


def asks_existence(question: str) -> bool:
    """Whether an English yes/no question asks if something is there, so that "yes" claims it.

    Questions with a negation, and those after what is normal, are left out: there "yes" claims
    nothing.

    >>> asks_existence("Is there a mass?"), asks_existence("Is the lung normal?")
    (True, False)
    """
    text = " ".join(question.split())
    return _IS_THERE.match(text) is not None and _TURNED_ROUND.search(text) is None
