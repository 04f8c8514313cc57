"""Which words of an extended answer are new, and which words of the answer are gone."""

import re
from difflib import SequenceMatcher
from typing import NamedTuple

_PIECE = re.compile(r"\w+(?:['’.,/-]\w+)*|\W+")


class Piece(NamedTuple):
    """A stretch of text; `differs` where the other text does not have it."""

    text: str
    differs: bool


def differences(answer: str, extended: str) -> tuple[list[Piece], list[Piece]]:
    """The answer with the words that are gone, and the extension with those that were added.

    Words are compared in lower case and in order; what stands between them never differs alone.

    >>> differences("Left lung", "The left lung.")[1]
    [Piece(text='The ', differs=True), Piece(text='left lung.', differs=False)]
    """
    ours, theirs = _PIECE.findall(answer), _PIECE.findall(extended)
    old, new = _words(ours), _words(theirs)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    kept_old: set[int] = set()
    kept_new: set[int] = set()
    for block in matcher.get_matching_blocks():
        kept_old.update(range(block.a, block.a + block.size))
        kept_new.update(range(block.b, block.b + block.size))
    return _pieces(ours, kept_old), _pieces(theirs, kept_new)


def _words(pieces: list[str]) -> list[str]:
    return [piece.lower() for piece in pieces if _is_word(piece)]


def _is_word(piece: str) -> bool:
    return piece[0].isalnum() or piece[0] == "_"


def _pieces(parts: list[str], kept: set[int]) -> list[Piece]:
    joined: list[Piece] = []
    number, differs = -1, False
    for part in parts:
        if _is_word(part):
            number += 1
            differs = number not in kept
        if joined and joined[-1].differs == differs:
            joined[-1] = Piece(joined[-1].text + part, differs)
        else:
            joined.append(Piece(part, differs))
    return joined
