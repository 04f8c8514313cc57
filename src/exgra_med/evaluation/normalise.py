"""Sound cleaning of answers for new scores: Unicode-safe, nothing lost silently, versioned.

Raise `NORMALISER_VERSION` whenever a score can change; it is written into every result.
"""

import re
import unicodedata
from functools import lru_cache

NORMALISER_VERSION = "1"

_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
}
_ARTICLES = frozenset({"a", "an", "the"})
# Numbers keep their decimal point; ideographs and kana are words of one character each, because
# Chinese and Japanese have no blanks; every other run of letters, marks and digits is a word.
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?%?(?![^\W_])"
    r"|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[^\W_]"
    r"|[\u0300-\u036f]|(?<=\w)['](?=\w))+"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Models trained on the published template repeat the role or start another turn.
_ROLE = re.compile(r"^\s*(?:#{2,}\s*)?(?:assistant|gpt|answer)\s*[::]\s*", re.IGNORECASE)
_NEXT_TURN = re.compile(r"#{3}.*", re.DOTALL)


def answer_text(text: str) -> str:
    """The answer itself: without a leading role name ("Assistant:") and without a next turn."""
    text = _ROLE.sub("", text, count=1)
    return _NEXT_TURN.sub("", text).strip()


@lru_cache(maxsize=262_144)
def words(text: str) -> tuple[str, ...]:
    """Comparable words of an answer.

    Args:
        text: any text; role names and further turns are taken off first.

    Returns:
        Case-folded NFKC words without articles, number words as digits; Chinese by character.
    """
    text = unicodedata.normalize("NFKC", answer_text(text)).replace("’", "'").casefold()
    text = _THOUSANDS.sub("", text)
    found = (_NUMBER_WORDS.get(word, word) for word in _TOKEN.findall(text))
    return tuple(word for word in found if word not in _ARTICLES)


_LIST = re.compile(r"[,;、，；\t]|\band\b|和", re.IGNORECASE)


def items(text: str) -> frozenset[tuple[str, ...]]:
    """The parts of a list answer ("Liver, Heart and Spleen") as a set: order does not count."""
    parts = (words(part) for part in _LIST.split(_THOUSANDS.sub("", answer_text(text))))
    return frozenset(part for part in parts if part)


def contains(sequence: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    """Whether the phrase stands in the sequence as whole neighbouring words."""
    return bool(positions(sequence, phrase))


def positions(sequence: tuple[str, ...], phrase: tuple[str, ...]) -> list[int]:
    """Every index at which the phrase begins in the sequence; none for an empty phrase."""
    length = len(phrase)
    if not length:
        return []
    return [i for i in range(len(sequence) - length + 1) if sequence[i : i + length] == phrase]
