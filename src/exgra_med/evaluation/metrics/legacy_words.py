"""Answer cleaning of the published evaluation, defects included, so that its numbers can be met.

The rules descend from the VQA v2 evaluation: punctuation, number words, articles, contractions.
Nothing here should be used for a new score; see `evaluation/normalise.py` for that.
"""

import re
from functools import lru_cache

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
