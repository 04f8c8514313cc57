"""The sound VQA score: closed answers read as words and options, open answers as sets of words.

A closed answer is right only where exactly one option is chosen and it is the reference. What
cannot be read, abstains, or names several options is wrong, and says so in its `Verdict`.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from exgra_med.evaluation.metrics.legacy import Overlap
from exgra_med.evaluation.metrics.options import (
    ABSTAIN,
    ABSTENTIONS,
    NO,
    YES,
    YES_NO,
    Options,
    chosen_options,
    options_of,
)
from exgra_med.evaluation.normalise import items, words

SCORER_VERSION = "1"

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
def yes_or_no(text: str) -> str | None:
    """Whether a reference answer is "yes" or "no" (in English or Chinese), or None for neither.

    >>> yes_or_no("Yes."), yes_or_no("left"), yes_or_no("没有")
    ('yes', None, 'no')
    """
    found = words(text)
    for label in (YES, NO):
        if found in YES_NO[label]:
            return label
    return None


@lru_cache(maxsize=262_144)
def closed(
    prediction: str, reference: str, question: str = "", given: tuple[str, ...] = ()
) -> ClosedScore:
    """Read a closed answer and compare the option it chooses with the reference.

    Args:
        prediction: the model's text, of any length.
        reference: the reference answer.
        question: the question; options are taken from it where it names them ("left or right").
        given: options of the record, where the data set lists them.
    """
    expected = yes_or_no(reference)
    if expected is not None:
        options: Options = YES_NO
    else:
        options = options_of(reference, question, given)
        named = chosen_options(words(reference), options)
        expected = named.pop() if len(named) == 1 else " ".join(words(reference))
    answer = words(prediction)
    if answer and answer == words(reference):
        return ClosedScore(Verdict.RIGHT, expected, expected)
    chosen = chosen_options(answer, options | _ABSTAIN)
    abstained = ABSTAIN in chosen
    chosen.discard(ABSTAIN)
    if len(chosen) > 1:
        return ClosedScore(Verdict.SEVERAL, None, expected)
    if not chosen:
        verdict = Verdict.ABSTAINED if abstained else Verdict.UNPARSED
        return ClosedScore(verdict, None, expected)
    (choice,) = chosen
    return ClosedScore(Verdict.RIGHT if choice == expected else Verdict.WRONG, choice, expected)


def open_overlap(prediction: str, reference: str) -> Overlap:
    """Recall, precision and F1 over the sets of words, so that repeating a hit gains nothing.

    `exact_match` is 1 where the words are equal, or the items of a list in any order.

    >>> open_overlap("left left left", "left lung").recall
    0.5
    """
    predicted, expected = words(prediction), words(reference)
    hits = len(set(predicted) & set(expected))
    if not hits:
        return Overlap(0.0, 0.0, 0.0, 0.0)
    precision = hits / len(set(predicted))
    recall = hits / len(set(expected))
    exact = predicted == expected or items(prediction) == items(reference)
    return Overlap(float(exact), 2 * precision * recall / (precision + recall), precision, recall)
