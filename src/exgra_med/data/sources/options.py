"""The options of a closed question, in every shape that public sets use, and the answer among them.

A data set is read one way where one way fits all its answers: as the texts of the options, else as
their letters, else as numbers counted from 0 or from 1. What can be read two ways is refused.
"""

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise, takewhile
from string import ascii_uppercase
from token import STRING
from tokenize import TokenError, generate_tokens
from typing import Any

from exgra_med.data.sources.values import plain_text
from exgra_med.errors import DataError

_HINT = (
    'Give a list, a dict by letter, columns A B C D, "A. CT B. MRI", or texts separated by "|", '
    '";" or lines.'
)
_NAME = re.compile(
    r"(option|options|opt|op|choice|choices)?[\s_-]*([A-Za-z]|\d{1,2})", re.IGNORECASE
)
"""A letter or number by itself, or behind the word option: `B`, `option_b`, `opb`, `Choice B`."""
_FRONT = re.compile(
    r"[(\[（]?(?:([A-Za-zＡ-Ｚａ-ｚ])\s?[)\]）.:．：、]\s*|(\d{1,2})[)\]）.:．：、]\s+)"
)
"""A mark in front of a text: `B. `, `(B) `, `B: `, `2. `; but 1.5 and 1:10 are numbers."""
_INLINE = re.compile(rf"(?:^|(?<=[\s,，、])){_FRONT.pattern}")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-")
_LISTS_OF_PARTS = (("label", "text"), ("key", "value"), ("letter", "text"), ("id", "text"))


@dataclass(frozen=True, slots=True)
class Options:
    """The answers that a question lets choose from, in their order."""

    texts: list[str]
    marks: list[str]
    """What each is called: the letter or number that the row gives it, else A, B, C."""
    marked: bool
    """Whether the row itself gives the marks."""


def read_options(value: Any, where: str) -> Options | None:
    """The options of one cell or field; None where it is empty.

    Args:
        value: a list, a dict by letter, parallel lists (`{"label", "text"}`), a list of such pairs,
            JSON or Python text of these, `A. CT B. MRI`, or texts separated by `|`, `;` or lines.

    Raises:
        DataError: another shape, fewer than two options, or an empty one between others.
    """
    if isinstance(value, str):
        value = _decoded(value.strip(), where)
    if value is None or value != value or (hasattr(value, "__len__") and not len(value)):
        return None
    if isinstance(value, dict):
        pairs = _of_dict(value, where)
    elif isinstance(value, (list, tuple)):
        pairs = [_of_item(item, where) for item in value]
    else:
        raise DataError(f"{where}: the options are a {type(value).__name__}.", _HINT)
    return _checked(pairs, where)


def option_columns(names: Sequence[str]) -> list[str]:
    """The columns that hold one option each (`A`, `option_b`, `opc`, `Choice D`), in order."""
    families: dict[str, dict[str, str]] = {}
    for name in names:
        match = _NAME.fullmatch(name.strip())
        if match and (match[1] or match[2].isalpha()):
            families.setdefault((match[1] or "").lower(), {})[match[2].upper()] = name
    for family in families.values():
        for marks in (ascii_uppercase, map(str, range(100)), map(str, range(1, 100))):
            # One after the other: a column X or Z beside A and B is something else.
            found = [family[mark] for mark in takewhile(family.__contains__, marks)]
            if len(found) > 1:
                return found
    return []


def options_of_columns(
    row: Mapping[str, Any], columns: Sequence[str], where: str
) -> Options | None:
    """The options that stand in a column each; None where all of them are empty.

    Raises:
        DataError: fewer than two are filled.
    """
    return read_options({name: row.get(name) for name in columns}, where)


def _decoded(text: str, where: str) -> Any:
    """A text as the list or dict that it writes down."""
    if text[:1] not in ("[", "{", "("):
        return _split(text, where)
    if text.startswith("(") and _FRONT.match(text):
        return _split(text, where)
    value = decoded_list(text)
    if value is None:
        raise DataError(f"{where}: the options {text[:60]!r} cannot be read.", _HINT)
    return value


def decoded_list(text: str) -> Any:
    """The list or dict that a text writes down in JSON or Python; None where it does not."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        value = _python_value(text)
    return value if isinstance(value, (list, tuple, dict)) else None


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice, and the first value would be lost")
    return dict(pairs)


def _python_value(text: str) -> Any:
    """A Python literal, without the two things in which Python loses a text in silence."""
    try:
        with warnings.catch_warnings():
            # Python warns of a backslash in a text.
            warnings.simplefilter("ignore")
            return _literal(text)
    except (ValueError, SyntaxError, TypeError, TokenError, MemoryError, RecursionError):
        return None


def _literal(text: str) -> Any:
    tokens = [each for each in generate_tokens(StringIO(text).readline) if each.string.strip()]
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Dict):
            _unique([(ast.literal_eval(key), None) for key in node.keys if key])
    strings = [each.type == STRING for each in tokens]
    if any(one and other for one, other in pairwise(strings)):
        # An array printed by numpy has no commas, and Python would join its texts into one.
        is_array = text[0] + text[-1] == "[]" and all(strings[1:-1])
        return [ast.literal_eval(each.string) for each in tokens[1:-1]] if is_array else None
    return ast.literal_eval(text)


def _split(text: str, where: str) -> Any:
    if text.lower() in ("", "none", "nan", "null"):
        return None
    for separator in ("|", "\n", ";"):
        parts = [part.strip() for part in text.split(separator)]
        if len(parts) == 1:
            continue
        if separator == "\n":
            parts = [part for part in parts if part]
        fronts = [_FRONT.match(part) for part in parts]
        if separator == ";" and any(fronts) and not all(fronts) and _INLINE.search(text, 1):
            break
        return parts if parts[-1] else parts[:-1]
    else:
        marked = _inline(text)
        if marked:
            return marked
    raise DataError(f"{where}: the options {text[:60]!r} cannot be told apart.", _HINT)


def _inline(text: str) -> dict[str, str] | None:
    """`A. CT B. MRI` as a dict; None where a mark is missing or may stand in two places."""
    marks = list(_INLINE.finditer(text))
    if not marks or marks[0].start() or _mark(marks[0]) not in ("A", "a", "1"):
        return None
    chosen = marks[:1]
    while True:
        expected = chr(ord(_mark(chosen[-1])) + 1)
        later = [mark for mark in marks if mark.start() >= chosen[-1].end()]
        # "C. C. difficile": a mark right behind itself begins the text.
        places = [mark for mark in later if _mark(mark) == expected]
        places = [m for m in places if not any(m.start() == other.end() for other in places)]
        if not places:
            break
        if len(places) > 1:
            return None
        chosen.append(places[0])
    ends = [*(mark.start() for mark in chosen[1:]), len(text)]
    texts = [
        text[mark.end() : end].strip(" \t,，、")
        for mark, end in zip(chosen, ends, strict=True)
    ]  # fmt: skip
    if len(chosen) < 2 or not all(texts):
        return None
    return {_mark(mark): each for mark, each in zip(chosen, texts, strict=True)}


def _mark(front: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", front[1] or front[2])


def _of_dict(value: dict[str, Any], where: str) -> list[tuple[str, Any]]:
    for label, text in _LISTS_OF_PARTS:
        labels, texts = value.get(label), value.get(text)
        if isinstance(labels, list) and isinstance(texts, list) and len(labels) == len(texts):
            return list(zip(map(str, labels), texts, strict=True))
    pairs = []
    for key, text in value.items():
        match = _NAME.fullmatch(str(key).strip())
        if not match:
            raise DataError(f"{where}: the options have the key {key!r}, not a letter.", _HINT)
        pairs.append((match[2].upper(), text))
    if len({mark for mark, _ in pairs}) != len(pairs):
        raise DataError(f"{where}: an option's letter is given twice.")
    return sorted(pairs, key=lambda pair: (len(pair[0]), pair[0]))


def _of_item(item: Any, where: str) -> tuple[str, Any]:
    if not isinstance(item, dict):
        return "", item
    for label, text in (*_LISTS_OF_PARTS, ("label", "content"), ("option", "text")):
        if label in item and text in item:
            return str(item[label]).strip().upper(), item[text]
    if len(item) == 1:
        return _of_dict(item, where)[0]
    raise DataError(f"{where}: an option is an object with {', '.join(map(str, item))}.", _HINT)


def _checked(pairs: list[tuple[str, Any]], where: str) -> Options | None:
    texts = [plain_text(text, f"{where}: an option") for _, text in pairs]
    marks = [mark for mark, _ in pairs]
    marked = bool(marks) and all(marks)
    # Tables with columns A to E hold questions with fewer options.
    if not any(texts):
        return None
    if not marked:
        while not texts[-1]:
            texts.pop()
        marks = list(ascii_uppercase[: len(texts)])
        if not all(texts):
            raise DataError(f"{where}: an empty option between others.")
        if len(texts) > len(marks):
            raise DataError(f"{where}: more options than letters.")
    kept = [(mark, text) for mark, text in zip(marks, texts, strict=True) if text]
    marks, texts = [mark for mark, _ in kept], [text for _, text in kept]
    fronts = [_FRONT.match(text) for text in texts]
    given = [_mark(front).upper() if front else "" for front in fronts]
    numbered = [] if marked else [str(number + 1) for number in range(len(texts))]
    bare = [text[front.end() :].strip() for text, front in zip(texts, fronts, strict=True) if front]
    if given in (marks, numbered) and all(bare):
        marks, texts, marked = given, bare, True
    if len(texts) < 2:
        raise DataError(f"{where}: {texts[0]!r} is the only option.", _HINT)
    return Options(texts, marks, marked)


def answers_among(rows: Sequence[tuple[str, str, Options]]) -> list[int]:
    """Which option each answer of a data set is.

    Args:
        rows: where it stands, the answer as text, and its options.

    Raises:
        DataError: an answer is none of the options, or can be read two ways; names the row.
    """
    read = {name: [rule(answer, options) for _, answer, options in rows] for name, rule in _RULES}
    fitting = [name for name, places in read.items() if None not in places]
    if fitting == ["from 0", "from 1"]:
        raise DataError(
            f"{rows[0][0]}: the answers are numbers, and nothing says whether the first option is "
            "0 or 1.",
            "Write the letters or the texts of the options.",
        )
    # Where nothing fits all, what fits most says which row is the odd one.
    chosen = (
        fitting[0] if fitting else max(read, key=lambda name: len(rows) - read[name].count(None))
    )
    places = []
    for number, (where, answer, options) in enumerate(rows):
        by_text, by_mark = read["text"][number], read["mark"][number]
        place = read[chosen][number]
        if not fitting and chosen in ("text", "mark"):
            place = by_mark if by_text is None else by_text
        undecided = {"text", "mark"} <= set(fitting) and options.marked
        if (undecided or not fitting) and None not in (by_text, by_mark) and by_text != by_mark:
            raise DataError(
                f"{where}: the answer {answer!r} is the text of one option and the letter of "
                "another.",
                "Write the whole text of the option, or take letters out of the options.",
            )
        if place is None:
            raise DataError(
                f"{where}: the answer {answer!r} is none of the options "
                f"{', '.join(map(repr, options.texts))}.",
                "An answer is an option's text or its letter.",
            )
        places.append(place)
    return places


def plain_option(text: str) -> str:
    """An option or answer as they are compared: case, width, blanks and a final stop apart.

    A minus, a hyphen and a dash are one sign, which is never lost.
    """
    text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    folded = " ".join(text.casefold().split())
    return folded.removesuffix(".").rstrip()


def _by_text(answer: str, options: Options) -> int | None:
    if answer in options.texts:
        return options.texts.index(answer)
    plain = [plain_option(text) for text in options.texts]
    same = {text for text, each in zip(options.texts, plain, strict=True)
            if each == plain_option(answer)}  # fmt: skip
    if len(same) == 1:
        return options.texts.index(same.pop())
    # "B. MRI", where B is MRI.
    front = _FRONT.match(unicodedata.normalize("NFKC", answer))
    place = _place_of(_mark(front), options) if front else None
    if front and place is not None:
        rest = unicodedata.normalize("NFKC", answer)[front.end() :]
        if plain_option(rest) == plain[place]:
            return place
    return None


def _by_mark(answer: str, options: Options) -> int | None:
    plain = unicodedata.normalize("NFKC", answer).strip(" \t()[].:*")
    match = _NAME.fullmatch(plain)
    return _place_of(match[2], options) if match else None


def _place_of(mark: str, options: Options) -> int | None:
    mark = mark.upper()
    return options.marks.index(mark) if mark in options.marks else None


def _by_number(first: int) -> Callable[[str, Options], int | None]:
    def place(answer: str, options: Options) -> int | None:
        place = int(answer) - first if answer.isdecimal() else -1
        return place if 0 <= place < len(options.texts) else None

    return place


_RULES: tuple[tuple[str, Callable[[str, Options], int | None]], ...] = (
    ("text", _by_text),
    ("mark", _by_mark),
    ("from 0", _by_number(0)),
    ("from 1", _by_number(1)),
)


# Options that no field says: yes and no, or words of the question itself.

YES_NO = ["Yes", "No"]

_CHINESE = [["是", "不是"], ["是的", "不是"], ["有", "没有"], ["存在", "不存在"]]
_CHINESE += [["包含", "不包含"], ["会", "不会"], ["正常", "不正常"], ["是", "否"]]

_ARTICLES = {"a", "an", "the"}
_STOPS = {"is", "are", "was", "were", "be", "seen", "in", "on", "of", "located", "appear", "taken"}
_STOPS |= {"does", "do", "has", "have", "with", "or", "to", "at", "this", "image", "use"}
_STOPS |= {"not", "no", "non"}
_ADJECTIVES = {"left", "right", "gray", "grey", "white", "more", "less", "upper", "lower"}
_LONGEST = 3


def closed_options(question: str, answer: str) -> list[str] | None:
    """The answers a closed question lets choose from, in the question's order; never a guess.

    They are yes and no, or words of the question itself. The words around "or" are only taken
    where the answer is one of the two, word for word.

    Args:
        question: the question, without any prompt suffix.
        answer: the reference answer; decides where an option in the question begins and ends.

    Returns:
        Two or more options, one of which is the answer but for case; None where the question does
        not say them.
    """
    if _plain(answer).rstrip(".!").rstrip() in ("yes", "no"):
        return list(YES_NO)
    for pair in _CHINESE:
        if answer in pair:
            return list(pair)
    text = re.sub(r"[?.\"]", " ", question).strip()
    # `..., A, B, or C ...` with one or two words each; the first may carry words before it.
    listed = re.search(r"([\w-]+(?: weighted)?), ([\w-]+(?: weighted)?), or ([\w-]+)", text)
    if listed and _plain(answer) in map(_plain, listed.groups()):
        return list(listed.groups())
    parts = re.split(r"\s(?:or|vs)\s", text, flags=re.IGNORECASE)
    if len(parts) != 2:
        return None
    for pair in _pairs(parts[0].split(), parts[1].split()):
        matches = [_plain(option) == _plain(answer) for option in pair]
        if matches.count(True) == 1:
            return list(pair)
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").split())


def _pairs(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    """Candidate options, the most plainly parallel readings first."""
    if not left or not right:
        return []
    if right[0].lower() in _ARTICLES:
        # "a physical injury or a medical process": two whole noun phrases.
        right = right[1:]
        starts = [i for i, word in enumerate(left) if word.lower() in _ARTICLES]
        phrase = left[starts[-1] + 1 :] if starts else []
        lengths = range(len(phrase), 0, -1)
        return _clean([(" ".join(phrase), " ".join(right[:length])) for length in lengths])
    pairs = [(left[-1], right[0])]
    for length in range(2, min(_LONGEST, len(right)) + 1):
        if left[-1].lower() in _ADJECTIVES:
            # "left or right kidney": the noun belongs to both.
            tail = " ".join(right[1:length])
            pairs.append((f"{left[-1]} {tail}", " ".join(right[:length])))
        elif len(left) > 1 and left[-2].lower() in _ARTICLES:
            pairs.append((left[-1], " ".join(right[:length])))
    for length in range(2, min(_LONGEST, len(left)) + 1):
        pairs.append((" ".join(left[-length:]), " ".join(right[:length])))
    return _clean(pairs)


def _clean(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Readings whose options are whole phrases: no verb, preposition or possessive at an edge."""
    return [
        pair
        for pair in pairs
        if all(
            words and words[0] not in _STOPS | _ARTICLES and words[-1] not in _STOPS
            for words in (option.lower().split() for option in pair)
        )
        and not any("'s" in option for option in pair)
    ]
