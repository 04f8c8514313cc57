"""Which question an answer of another tool belongs to: by id, else by text and picture.

An id is believed where the texts agree: a row number fits every file of the same length, and says
nothing by itself. Where no id fits, the question's text is looked for, then the picture, then the
reference answer that the file holds. Questions that are still alike, such as "Is this normal?" on
many pictures without names, are told apart by the order of the file, where that is the order of
the reference from its first row on. What is still open after that is counted, and not guessed.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from exgra_med.data.talks import strip_placeholder
from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Asked, Prediction, Question

_WORD = re.compile(r"\w+")
_AGREE = 0.5
"""Of the joined rows so many must agree in their texts for an id to be believed."""
_AGREE_BY_NUMBER = 0.9
"""The same of row numbers, which fit any file."""
_AGREE_IN_ORDER = 0.9
"""Of the answers that a file holds, where it is joined by order."""
_TELLS = 0.5
"""Of the rows so many must have the picture, or the reference answer, of some question."""
EXAMPLES = 3
"""Of each kind of trouble that are shown."""
Told = TypeVar("Told", str, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Match:
    """For each answer the place of its question, and what could not be joined."""

    places: list[int | None]
    """None where an answer belongs to no question, or nothing says to which."""
    joined_by: str
    """In words, as "published id" or "question text and picture"."""
    ambiguous: list[int] = field(default_factory=list)
    """Answers that may belong to several questions."""
    other_text: list[int] = field(default_factory=list)
    """Answers whose id is that of a question with another text."""
    other_answer: list[int] = field(default_factory=list)
    """Answers to a question text that the reference has with other answers alone."""


def match(predictions: Sequence[Prediction], questions: Sequence[Question]) -> Match:
    """Find the question of each answer.

    Raises:
        ScoreError: not one was found.
    """
    rows = _Rows(predictions, questions)
    found = _by_name(rows) or _by_text(rows)
    if not any(place is not None for place in found.places):
        raise ScoreError(
            "No answer belongs to a question of the reference, neither by an id "
            f"({', '.join(map(repr, rows.names[0][:3]))} against {questions[0].id!r}) nor by "
            f"the text of the question ({_shown(rows.said(0))} against "
            f"{_shown(questions[0].text)}).",
            "Score against the reference that was answered.",
        )
    return found


def text_key(text: str) -> str:
    """A question as questions are compared: its words, without case, marks and placeholders.

    >>> text_key("<image>\\nIs the  liver normal ?") == text_key("is the liver normal?")
    True
    """
    plain = unicodedata.normalize("NFKC", strip_placeholder(text)).casefold()
    return " ".join(_WORD.findall(plain))


class _Rows:
    """Both sides, with everything by which they can be compared."""

    def __init__(self, predictions: Sequence[Prediction], questions: Sequence[Question]) -> None:
        self.predictions, self.questions = predictions, questions
        asked = [each.asked or Asked() for each in predictions]
        self.names = [
            list(dict.fromkeys((each.id, *about.names)))
            for each, about in zip(predictions, asked, strict=True)
        ]
        self.question_texts = [text_key(each.text) for each in questions]
        self.has_text = [about.question is not None for about in asked]
        in_prompt = _Prompts(self.question_texts)
        self.texts = [
            text_key(about.question) if about.question is not None else in_prompt.find(each.prompt)
            for each, about in zip(predictions, asked, strict=True)
        ]
        self.question_answers = [text_key(each.answer) for each in questions]
        answers = [None if about.answer is None else text_key(about.answer) for about in asked]
        self.answers = self._telling(answers, self.question_answers)
        picture = _picture_key([name for each in questions for name in each.images])
        self.question_pictures = [tuple(map(picture, each.images)) for each in questions]
        pictures = [tuple(map(picture, about.images)) or None for about in asked]
        self.pictures = self._telling(pictures, self.question_pictures)

    def _telling(self, own: list[Told | None], theirs: Sequence[Told]) -> list[Told | None]:
        """What rows say, or None for all, where the reference says it in other words.

        Files name pictures by the number of the row, and give an option's letter for its text.
        """
        known = set(zip(self.question_texts, theirs, strict=True))
        texts = set(self.question_texts)
        told = [
            (text, each) in known
            for text, each in zip(self.texts, own, strict=True)
            if each is not None and text in texts
        ]
        return own if told and sum(told) >= _TELLS * len(told) else [None] * len(own)

    def said(self, row: int) -> str:
        """The question of a row as its file has it."""
        prediction = self.predictions[row]
        asked = prediction.asked or Asked()
        return asked.question or prediction.prompt or ""

    def agree(self, row: int, place: int) -> bool | None:
        """Whether a row is about a question; None where the row tells nothing of it."""
        text = self.texts[row]
        if text is None:
            return None
        same = text == self.question_texts[place]
        for own, theirs in (
            (self.answers[row], self.question_answers[place]),
            (self.pictures[row], self.question_pictures[place]),
        ):
            same = same and own in (None, theirs)
        return same


def _picture_key(names: Iterable[str]) -> Callable[[str], str]:
    """How a picture is compared: by so many last parts of its path as tell the questions' apart."""
    parts = {_parts(name) for name in names}
    length = 1
    while len({each[-length:] for each in parts}) < len(parts):
        length += 1
    return lambda name: "/".join(_parts(name)[-length:])


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/").casefold())
    return (*path.parts[:-1], path.stem)


class _Prompts:
    """Finds the question in a prompt, which has more lines, words before it, or options."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._known = set(texts) - {""}
        self._by_length = sorted(self._known, key=len, reverse=True)
        self._found: dict[str, str | None] = {}

    def find(self, prompt: str | None) -> str | None:
        """The longest question that the prompt holds; None where it holds none."""
        if prompt is None:
            return None
        if prompt not in self._found:
            self._found[prompt] = self._look(prompt)
        return self._found[prompt]

    def _look(self, prompt: str) -> str | None:
        lines = [line for line in prompt.splitlines() if line.strip()]
        # A line may begin with "Question:".
        parts = [prompt, *lines, *(line.partition(":")[2] for line in lines)]
        whole = [key for key in map(text_key, parts) if key in self._known]
        if whole:
            return max(whole, key=len)
        inside = f" {text_key(prompt)} "
        return next((text for text in self._by_length if f" {text} " in inside), None)


def _by_name(rows: _Rows) -> Match | None:
    """Joined by the first kind of name under which the texts agree."""
    questions = rows.questions
    published = [str(each.meta.get("published_id", "")) for each in questions]
    # From 0 as programs count, from 1 as people do.
    numbered = [[str(number + first) for number in range(len(questions))] for first in (0, 1)]
    kinds = [
        ("id", [each.id for each in questions], _AGREE),
        ("published id", published, _AGREE),
        ("row number, from 0", numbered[0], _AGREE_BY_NUMBER),
        ("row number, from 1", numbered[1], _AGREE_BY_NUMBER),
    ]
    fitting = []
    for kind, names, least in kinds:
        if len(set(names)) < len(names) or "" in names:
            continue
        by_numbers = names in numbered
        counted = {row[0] for row in rows.names} == set(numbered[0])
        known = {name: place for place, name in enumerate(names)}
        places = [next((known[name] for name in row if name in known), None) for row in rows.names]
        joined = [(row, place) for row, place in enumerate(places) if place is not None]
        verdicts = [rows.agree(row, place) for row, place in joined]
        # A prompt may be in words of its own; of a question that stands apart that is a fault.
        told = [
            verdict
            for (row, _), verdict in zip(joined, verdicts, strict=True)
            if verdict is not None and (verdict or by_numbers or rows.has_text[row])
        ]
        # Numbers from 0 on are rows, unless the texts say that they are published ids.
        is_known = bool(told) or not (by_numbers or (kind == "published id" and counted))
        if not joined or not is_known or sum(told) < least * len(told):
            continue
        wrong = [
            row
            for (row, _), verdict in zip(joined, verdicts, strict=True)
            if verdict is False and rows.has_text[row]
        ]
        for row in wrong:
            places[row] = None
        fitting.append(Match(places, kind, other_text=wrong))
        if not by_numbers:
            break
    numbers = sum(each.joined_by.startswith("row number") for each in fitting)
    # Where both ways to count fit, all questions are alike, and neither is known to be right.
    return None if numbers > 1 or not fitting else fitting[0]


def _by_text(rows: _Rows) -> Match:
    by_text: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(rows.question_texts):
        by_text[text].append(place)
    other_answer, groups = [], defaultdict(list)
    for row, text in enumerate(rows.texts):
        candidates = by_text.get(text or "", [])
        if candidates and rows.pictures[row] is not None:
            candidates = [p for p in candidates if rows.question_pictures[p] == rows.pictures[row]]
        if candidates and rows.answers[row] is not None:
            same = [p for p in candidates if rows.question_answers[p] == rows.answers[row]]
            if not same and rows.pictures[row] is None:
                other_answer.append(row)
            # On the same picture a reference that was mended later is still the same question.
            candidates = same or (candidates if rows.pictures[row] is not None else [])
        if candidates:
            groups[tuple(candidates)].append(row)
    in_order = _in_order(rows)
    places: list[int | None] = [None] * len(rows.predictions)
    ambiguous, num_by_order = [], 0
    for candidates, members in groups.items():
        texts = {rows.predictions[row].text for row in members}
        is_named = len(candidates) == 1 and rows.pictures[members[0]] is not None
        if is_named or (len(candidates) == len(members) == 1):
            chosen = [candidates[0]] * len(members)
        elif in_order and all(in_order.get(row) in candidates for row in members):
            chosen = [in_order[row] for row in members]
            num_by_order += len(members)
        elif len(texts) == 1 and len(candidates) == len(members):
            # One answer to all of them, so that it is the same however they are joined.
            chosen = [*candidates]
        else:
            ambiguous += members
            continue
        for row, place in zip(members, chosen, strict=True):
            places[row] = place
    told = ["question text"]
    told += ["picture"] * any(each is not None for each in rows.pictures)
    told += ["reference answer"] * any(each is not None for each in rows.answers)
    how = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    if num_by_order:
        how += f"; {num_by_order} that are alike by their order in the file"
    return Match(places, how, sorted(ambiguous), other_answer=sorted(other_answer))


def _in_order(rows: _Rows) -> dict[int, int]:
    """Row -> question, where the file has the questions in their order from the first one on."""
    said, known = set(rows.texts), set(rows.question_texts)
    own = [row for row, text in enumerate(rows.texts) if text in known]
    theirs = [place for place, text in enumerate(rows.question_texts) if text in said]
    pairs = list(zip(own, theirs, strict=False))
    texts = [rows.texts[row] for row in own]
    if not own or len(own) > len(theirs):
        return {}
    if texts != [rows.question_texts[place] for place in theirs[: len(own)]]:
        return {}
    # An order is worth something where another one would look otherwise.
    if Counter(texts).most_common(1)[0][1] > len(texts) / 2:
        return {}
    told = [(row, place) for row, place in pairs if rows.answers[row] is not None]
    same = sum(rows.answers[row] == rows.question_answers[place] for row, place in told)
    return dict(pairs) if same >= _AGREE_IN_ORDER * len(told) else {}


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return f"“{flat if len(flat) <= 60 else f'{flat[:57]}...'}”"


def examples(match: Match, predictions: Sequence[Prediction]) -> dict[str, list[str]]:
    """For each kind of trouble its first answers, by row and question."""
    unplaced = {*match.ambiguous, *match.other_text, *match.other_answer}
    extra = [row for row, place in enumerate(match.places) if place is None and row not in unplaced]
    kinds = {
        "extra": extra,
        "ambiguous": match.ambiguous,
        "other_text": match.other_text,
        "other_answer": match.other_answer,
    }

    def shown(row: int) -> str:
        prediction = predictions[row]
        asked = prediction.asked or Asked()
        text = asked.question or prediction.prompt or ""
        pictures = f" ({', '.join(asked.images)})" if asked.images else ""
        return f"{prediction.id}{pictures}: {_shown(text)}"

    return {
        kind: [shown(row) for row in found[:EXAMPLES]] for kind, found in kinds.items() if found
    }
