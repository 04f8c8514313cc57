"""Which option an answer chooses: by a sound rule, and by the similarity of the original.

The original takes the option whose characters resemble the answer most (difflib), so a long wrong
answer drifts to the longest option; its evaluation drops questions that raise an error.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from exgra_med.evaluation.metrics.options import chosen_options
from exgra_med.evaluation.normalise import answer_text, words

_LETTER = re.compile(r"^\W*(?:option\s+|the answer is\s+)?\(?([A-H])(?:[).:]|\s*$)", re.IGNORECASE)


def choose_strictly(answer: str, options: Sequence[str]) -> int | None:
    """The option an answer names, by its words or by its letter; None for none or several.

    Options with equal words are one option, its first place counts. A letter counts where it stands
    alone in front ("B", "(B)", "B. MRI"); where letter and words disagree nothing is chosen.

    Args:
        answer: the model's text.
        options: option texts in the order they were shown.
    """
    places: dict[tuple[str, ...], int] = {}
    for place, option in enumerate(options):
        places.setdefault(words(option), place)
    named = chosen_options(
        words(answer), {str(place): (phrase,) for phrase, place in places.items() if phrase}
    )
    if words(answer) in places:
        named = {str(places[words(answer)])}
    by_words = {int(place) for place in named}
    letter = _LETTER.match(answer_text(answer))
    by_letter = ord(letter.group(1).upper()) - ord("A") if letter else None
    if by_letter is not None and by_letter < len(options):
        first = places[words(options[by_letter])]
        if not by_words or by_words == {first}:
            return first
        # "A" can itself be an option, or the article in front of one.
        return by_words.pop() if len(by_words) == 1 and len(words(answer)) == 1 else None
    return by_words.pop() if len(by_words) == 1 else None


def similarities(answer: str, options: Sequence[str]) -> list[float]:
    """How much each option resembles the raw answer, from 0 to 1 (difflib's ratio)."""
    return [SequenceMatcher(None, option, answer).ratio() for option in options]


def choose_by_similarity(answer: str, options: Sequence[str]) -> int | None:
    """The most similar option as in the original; the first of equals, None where nothing is."""
    best, chosen = 0.0, None
    for place, ratio in enumerate(similarities(answer, options)):
        if ratio > best:
            best, chosen = ratio, place
    return chosen
