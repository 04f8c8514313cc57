"""Why one file of answers has several scores, and which of them a claimed number may be.

Every published protocol is computed from the same answers. What lies between two numbers is found
by exchanging one part after the other, from the first number to the second: the steps add up to the
difference, and each step names the questions that it changed. No pair of protocols is known here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exgra_med.data.records import file_sha256
from exgra_med.errors import ScoreError
from exgra_med.evaluation import reading
from exgra_med.evaluation.answers import (
    pair,
    pairing_facts,
    read_candidates,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.claims import MOST_PERCENT, rounding_range, rounds_to
from exgra_med.evaluation.measures import Candidates, Case
from exgra_med.evaluation.protocols import protocols
from exgra_med.evaluation.protocols.protocol import (
    ALL_COUNT,
    BY_FIELD,
    BY_YES_NO,
    ONLY_ANSWERED,
    ONLY_READ,
    OVER_KINDS,
    OVER_QUESTIONS,
    OWN,
    WITH_OPTIONS,
    Answered,
    Count,
    Kind,
    Number,
    Protocol,
    Verdicts,
    count,
    counted,
    missing_for,
    with_intervals,
)
from exgra_med.evaluation.score import counts_of
from exgra_med.evaluation.tables import IN_OUR_WORDS
from exgra_med.terminal import Reporter, Silent

if TYPE_CHECKING:
    from exgra_med.evaluation.protocols.judging import Judged
    from exgra_med.llm.service import ServiceSettings

NUM_SAMPLES = 2000
_EVEN = 1e-9

SPLIT = "split"
DENOMINATOR = "denominator"
READING = "answer reading"
CANDIDATES = "candidate list"
JUDGE = "judge"
DROPPED = "dropped answers"
MEAN = "averaging"
CAUSES = (SPLIT, DENOMINATOR, READING, CANDIDATES, JUDGE, DROPPED, MEAN)
"""Of a difference, in the order of the steps."""


@dataclass(frozen=True, slots=True)
class ClaimedNumber:
    """A number that somebody reports of answers, without saying how it was counted."""

    text: str
    digits: Decimal
    """In percent, with as many digits as are reported."""

    @classmethod
    def of(cls, text: str) -> "ClaimedNumber":
        """From what stands in a table: `81.4`, `81.4 %`, or the share `0.814`.

        Raises:
            ScoreError: it is no number from 0 to 200.

        >>> ClaimedNumber.of("81.40").digits, ClaimedNumber.of("0.814").digits
        (Decimal('81.40'), Decimal('81.4'))
        """
        found = re.fullmatch(r"(\d{1,3})(?:[.,](\d{1,12}))?\s*%?", text.strip())
        digits = None if found is None else Decimal(".".join(filter(None, found.groups())))
        if digits is None or digits > MOST_PERCENT:
            raise ScoreError(
                f"{text!r} is no score.", "Give it in percent, such as 81.4, or as a share, 0.814."
            )
        is_share = digits <= 1 and digits.as_tuple().exponent != 0 and "%" not in text
        return cls(text.strip(), digits.scaleb(2) if is_share else digits)

    @property
    def value(self) -> float:
        """In percent."""
        return float(self.digits)

    def is_met_by(self, percent: float) -> bool:
        """Whether a score becomes this number by rounding."""
        return rounds_to(percent, self.digits)


@dataclass(frozen=True, slots=True)
class Row:
    """A number of a protocol on these answers."""

    protocol: Protocol
    number: Number
    is_stated: bool
    """Whether the protocol is stated for the data set."""
    count: Count | None
    missing: str
    """What it needs that is not there."""
    words: str | None = None
    """Whose a judge was asked in, as `Judge.words`; None where none was asked."""

    @property
    def name(self) -> str:
        """`medevalkit/closed`."""
        return f"{self.protocol.name}/{self.number.name}"

    @property
    def percent(self) -> float | None:
        """The score, where it could be computed."""
        return None if self.count is None or self.count.value is None else 100 * self.count.value


def explain_files(
    answers: Path,
    reference: Path,
    claimed: str | None = None,
    between: tuple[str, str] | None = None,
    candidates: Path | None = None,
    judge: "ServiceSettings | None" = None,
    judge_requests: Mapping[str, Path] | None = None,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Explain a file of answers; see `explain`.

    Args:
        answers: a file of answers, of this project or of another tool.
        reference: records, or a JSON file of the original.
        claimed: a number that somebody reports.
        between: two numbers.
        candidates: known open answers.
        judge: language model for the protocols that need one; what it said goes into `judged`.
        judge_requests: protocol -> file with the words to ask its judge in, instead of our own.
        progress: of the judging.

    Raises:
        DataError: a file is missing or cannot be read, or is no request to a judge.
        ScoreError: see `explain`; or a protocol of `judge_requests` has no judge that is asked.
        ServiceError: the judge cannot be asked.
    """
    if claimed is not None:
        ClaimedNumber.of(claimed)
    said, asked = read_predictions(answers), read_reference(reference)
    oddities = asked.oddities + said.oddities
    joined = pair(said.predictions, asked.questions)
    known = None if candidates is None else Candidates.of(read_candidates(candidates))
    answered = Answered.of(joined, known)
    judged: list[Judged] = []
    if judge is not None:
        # It loads what talks to services, which a call without a judge need not wait for.
        from exgra_med.evaluation.protocols import judging

        judges = judging.judges_of(protocols(dataset_of(answered)))
        judges = judging.in_words_of(judges, judge_requests or {})
        judged = judging.ask_judges(answered, judges, judge, progress or Silent())
        wording = {each.name: each.words for each in judges}
        verdicts = judging.verdicts_of(judges, judged)
        answered = replace(answered, verdicts=verdicts, wording=wording)
    return explain(answered, claimed, between) | {
        "judged": [asdict(each) for each in judged],
        "pairing": pairing_facts(joined),
        "answers_tool": said.tool,
        "answer_counts": counts_of(joined),
        "oddities": {name: number for name, number in sorted(oddities.items()) if number},
        "answers_sha256": file_sha256(answers),
    }


def explain(
    answered: Answered,
    claimed: str | None = None,
    between: tuple[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Every published number of these answers, and what lies between them.

    Args:
        answered: questions and answers.
        claimed: a number that somebody reports.
        between: two numbers, such as `("strict/closed", "medevalkit/closed")`; where absent, the
            claimed number or the strict one against every other of its kind.
        seed: of the resamples.

    Returns:
        JSON-ready: `dataset`, `num_questions`, `num_images`, `numbers`, `claim`, `variants`,
        `compared_with`, `differences`, `notes` (known confusions by name) and `conclusion`.

    Raises:
        ScoreError: the claim is no number, or a number of `between` is not there.
    """
    claim = None if claimed is None else ClaimedNumber.of(claimed)
    dataset = dataset_of(answered)
    rows = _rows(answered, dataset, seed)
    if between is not None:
        base, other = (_find(rows, name) for name in between)
        pairs = [(base, other)]
    else:
        base = _base(rows, claim, answered)
        pairs = [(base, each) for each in _comparable(rows, base)]
    differences = [difference(*each, answered) for each in pairs]
    met = [] if claim is None else [each for each in rows if _meets(each, claim)]
    is_found = any(each.is_stated for each in met)
    variants = [] if claim is None or is_found else _variants(rows, answered, claim)
    notes = _notes(differences, answered) + _luck(rows)
    return {
        "dataset": dataset,
        "num_questions": len(answered.questions),
        "num_images": int(answered.clusters.max()) + 1,
        "numbers": [_entry(each, claim) for each in rows],
        "claim": None if claim is None else {"text": claim.text, "percent": claim.value},
        "variants": variants,
        "compared_with": base.name,
        "differences": differences,
        "notes": notes,
        "conclusion": _conclusion(rows, claim, met, variants, dataset),
    }


def dataset_of(answered: Answered) -> str | None:
    """The data set, or its bundled sample, whose name all ids begin with; None where they do not
    tell."""
    names = {each.id.partition("/")[0].removesuffix("-sample") for each in answered.questions}
    known = {dataset for protocol in protocols() for dataset in protocol.datasets}
    return names.pop() if len(names) == 1 and names <= known else None


def _rows(answered: Answered, dataset: str | None, seed: int) -> list[Row]:
    """Numbers of the protocols that are stated for the data set, then all others."""
    rows = []
    for protocol in protocols():
        is_stated = dataset is None or dataset in protocol.datasets
        for number in protocol.numbers:
            missing = missing_for(number, answered)
            made = None if missing else count(number, answered)
            if made is not None and made.value is None:
                missing = "no question counts"
            words = _words(number, answered)
            rows.append(Row(protocol, number, is_stated, made, missing, words))
    counts = [each.count for each in rows if each.is_stated and each.count is not None]
    found = iter(with_intervals(counts, answered, NUM_SAMPLES, seed))
    shown = [
        replace(each, count=next(found)) if each.is_stated and each.count is not None else each
        for each in rows
    ]
    return sorted(shown, key=lambda each: not each.is_stated)


def _words(number: Number, answered: Answered) -> str | None:
    judges = [reading.judge for reading in number.readings if reading.judge is not None]
    asked = [each.name for each in judges if (answered.verdicts or {}).get(each.name)]
    return (answered.wording or {}).get(asked[0]) if asked else None


def _find(rows: Sequence[Row], name: str) -> Row:
    row = next((each for each in rows if each.name == name), None)
    if row is None:
        known = ", ".join(each.name for each in rows if each.is_stated)
        raise ScoreError(f"There is no number {name!r}.", f"Known: {known}.")
    if row.percent is None:
        raise ScoreError(f"The number {name!r} cannot be computed: it {row.missing}.")
    return row


def _meets(row: Row, claim: ClaimedNumber) -> bool:
    return row.percent is not None and claim.is_met_by(row.percent)


def _base(rows: Sequence[Row], claim: ClaimedNumber | None, answered: Answered) -> Row:
    """The number that the others are compared with: the claimed one, or the strict accuracy."""
    counted = [each for each in rows if each.percent is not None]
    if not counted:
        raise ScoreError("No protocol counts any of these questions.")
    usable = [each for each in counted if each.is_stated] or counted
    if claim is not None:
        return min(usable, key=lambda each: abs((each.percent or 0.0) - claim.value))
    num_choices = sum(map(WITH_OPTIONS.keeps, answered.questions))
    order = ["strict/closed", "strict/open_recall"]
    order.insert(0 if 2 * num_choices > len(answered.questions) else 2, "strict-choices/accuracy")
    return min(
        usable, key=lambda each: order.index(each.name) if each.name in order else len(order)
    )


def _comparable(rows: Sequence[Row], base: Row) -> list[Row]:
    """Other numbers over the same types of question, stated for the data set."""
    return [
        each
        for each in rows
        if each.is_stated
        and each.percent is not None
        and each.name != base.name
        and each.number.of == base.number.of
    ]


# One part after the other.


def _exchanges(first: Number, second: Number) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Cause, words of the part in both numbers, and the fields that take it over."""
    yield SPLIT, first.asked.words, second.asked.words, {"asked": second.asked}
    words = [f"{each.of} questions; {each.typing.words}" for each in (first, second)]
    yield DENOMINATOR, words[0], words[1], {"typing": second.typing, "of": second.of}
    # What the first number drops comes back before answers are read in another way, and what the
    # second one drops leaves after it, so that either is a step of its own.
    if first.dropping != second.dropping:
        yield DROPPED, first.dropping.words, ALL_COUNT.words, {"dropping": ALL_COUNT}
    kinds: tuple[Kind, ...] = ("closed", "open")
    for kind in kinds:
        old, new = first.reading(kind), second.reading(kind)
        cause = READING
        if old.needs_candidates or new.needs_candidates:
            cause = CANDIDATES
        if old.judge != new.judge:
            cause = JUDGE
        yield cause, f"{kind}: {old.words}", f"{kind}: {new.words}", {kind: new}
    if first.dropping != second.dropping:
        yield DROPPED, ALL_COUNT.words, second.dropping.words, {"dropping": second.dropping}
    yield MEAN, first.mean.words, second.mean.words, {"mean": second.mean}


def difference(first: Row, second: Row, answered: Answered) -> dict[str, Any]:
    """What lies between two numbers, in steps that add up to it.

    Returns:
        `first`, `second` (names), `value` (points, second minus first) and `steps`, each with
        `cause`, `first` and `second` (words of the part), `before`, `after` (percent), `points` and
        `questions`: those whose value changed, with both values (None where not counted) and
        `sign`, what is special about the answer.
    """
    now = usable = replace(first.number, open=first.number.reading("open"))
    before = count(now, answered)
    steps, waiting = [], []
    for cause, old, new, fields in _exchanges(first.number, second.number):
        now = replace(now, **fields)
        waiting.append((cause, old, new))
        # A mixture may need a judge that neither number needs; then two parts make one step.
        if missing_for(now, answered):
            continue
        after = count(now, answered)
        changed = _changed((usable, before), (now, after), answered)
        points = 100 * ((after.value or 0.0) - (before.value or 0.0))
        if changed or abs(points) > _EVEN:
            told = [each for each in waiting if each[1] != each[2]]
            causes, olds, news = zip(*told or waiting, strict=True)
            steps.append(
                {
                    "cause": " and ".join(dict.fromkeys(causes)),
                    "first": "; ".join(olds),
                    "second": "; ".join(news),
                    "before": _percent(before),
                    "after": _percent(after),
                    "points": points,
                    "questions": changed,
                }
            )
        usable, before, waiting = now, after, []
    value = (second.percent or 0.0) - (first.percent or 0.0)
    return {"first": first.name, "second": second.name, "value": value, "steps": steps}


def _percent(made: Count) -> float | None:
    return None if made.value is None else 100 * made.value


def _changed(
    first: tuple[Number, Count], second: tuple[Number, Count], answered: Answered
) -> list[dict[str, Any]]:
    old, new = first[1].values, second[1].values
    same = (np.isnan(old) & np.isnan(new)) | (np.abs(old - new) < _EVEN)
    found = []
    for row in map(int, np.flatnonzero(~same)):
        question, case = answered.questions[row], answered.cases[row]
        hidden = [] if case is None else hidden_in(case.answer, question.answer)
        numbers = (first[0], second[0])
        if case is None or not _decide(hidden, case, numbers, answered.verdicts):
            hidden = []
        said = "" if case is None else case.answer
        found.append(
            {
                "id": question.id,
                "question": question.text,
                "reference": question.answer,
                "answer": None if case is None else said,
                "before": _number(old[row]),
                "after": _number(new[row]),
                "sign": INSIDE if hidden else sign_of(said, question.answer),
                "words": hidden,
            }
        )
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _decide(
    words: Sequence[str], case: Case, numbers: tuple[Number, Number], verdicts: Verdicts | None
) -> bool:
    """Whether one of the numbers reads the answer in another way once these words are masked."""
    if not words:
        return False
    hidden = frozenset(words)
    text = _WORD.sub(lambda each: "#" if each[0].lower() in hidden else each[0], case.answer)
    masked = replace(case, answer=text)
    values = [[counted(n, each, verdicts) for each in (case, masked)] for n in numbers]
    return any(not np.isclose(*pair, equal_nan=True) for pair in values)


INSIDE = "inside another word"
NOTHING_SAID = "empty answer"
EQUAL = "the reference but for case, signs or articles"
BOTH = "yes and no in one answer"
AROUND = "more words around the reference"
SOME = "some words of the reference"
OTHER = "another answer"
_WORD = re.compile(r"[^\W_]+")


def hidden_in(answer: str, reference: str) -> list[str]:
    """Words of an answer in which yes, no, or another reference is hidden.

    >>> hidden_in("The lung is normal, not so the heart.", "no")
    ['normal', 'not']
    """
    expected = " ".join(reading.words(reference))
    parts = ("yes", "no") if expected in ("yes", "no") else (reference.strip().lower(),)
    words = sorted({each.lower() for each in _WORD.findall(answer)})
    return [each for each in words if any(part and part in each and part != each for part in parts)]


def sign_of(answer: str, reference: str) -> str:
    """What is special about an answer beside its reference.

    >>> sign_of("Yes.", "yes"), sign_of("Yes and no", "yes")
    ('the reference but for case, signs or articles', 'yes and no in one answer')
    """
    said, expected = reading.words(answer), reading.words(reference)
    if not said:
        return NOTHING_SAID
    if said == expected:
        return EQUAL
    if expected in (("yes",), ("no",)) and {"yes", "no"} <= set(said):
        return BOTH
    if reading.positions(said, expected):
        return AROUND
    return SOME if set(said) & set(expected) else OTHER


# What is told.


def _entry(row: Row, claim: ClaimedNumber | None) -> dict[str, Any]:
    made = row.count
    bounds = None if made is None or made.interval is None else made.interval
    return {
        "name": row.name,
        "title": row.protocol.title,
        "label": row.number.label,
        "of": row.number.of,
        "value": row.percent,
        "interval": None if bounds is None else [100 * each for each in bounds],
        "count": 0 if made is None else made.num_questions,
        "is_stated": row.is_stated,
        "is_main": row.number.is_main,
        "is_exact": row.protocol.is_exact,
        "words": row.words,
        "missing": row.missing,
        "meets_claim": None if claim is None else _meets(row, claim),
        "split": row.protocol.split,
        "prompt": row.protocol.prompt,
        "source": row.protocol.source.text,
    }


_MOST_VARIANTS = 2


def _variants(
    rows: Sequence[Row], answered: Answered, claim: ClaimedNumber
) -> list[dict[str, Any]]:
    """Stated numbers with one part exchanged for another known one that meet the claim."""
    found = []
    for row in rows:
        if not row.is_stated or row.percent is None:
            continue
        means = (OVER_QUESTIONS, OVER_KINDS) if row.number.of == "all" else ()
        parts: list[tuple[str, Any]] = [
            *(("typing", each) for each in (BY_FIELD, BY_YES_NO)),
            *(("dropping", each) for each in (ALL_COUNT, ONLY_ANSWERED, ONLY_READ)),
            *(("mean", each) for each in means),
        ]
        for part, new in parts:
            other = replace(row.number, **{part: new})
            if other == row.number or missing_for(other, answered):
                continue
            made = count(other, answered)
            if made.value is not None and claim.is_met_by(100 * made.value):
                found.append(
                    {
                        "name": row.name,
                        "but": new.words,
                        "value": 100 * made.value,
                        "count": made.num_questions,
                    }
                )
    return found


def _notes(differences: Sequence[Mapping[str, Any]], answered: Answered) -> list[dict[str, str]]:
    """The known confusions that occur between these numbers, each by its name."""
    found = {}
    for each in differences:
        for step in each["steps"]:
            if DENOMINATOR in step["cause"]:
                found.setdefault("denominators", _denominators(answered))
            if DROPPED in step["cause"] and step["questions"]:
                found.setdefault(f"dropped {each['second']}", _dropped(each, step))
    hidden: dict[str, list[str]] = {}
    for each in differences:
        for step in each["steps"]:
            for question in step["questions"] if READING in step["cause"] else ():
                if question["sign"] == INSIDE:
                    hidden.setdefault(question["id"], question["words"])
    if hidden:
        counted = Counter(word for words in hidden.values() for word in words)
        shown = ", ".join(f"“{word}” ({number})" for word, number in counted.most_common(5))
        found["substring"] = (
            f"Substring: {len(hidden)} answers are read in two ways, because a reading finds yes, "
            f"no or the reference inside another word: {shown}."
        )
    return [{"name": name.partition(" ")[0], "text": text} for name, text in found.items()]


def _draws(row: Row) -> tuple[int, float]:
    """How many answers of a number are drawn blindly, and how far that moves one run (95 %)."""
    made = row.count
    if made is None or not any(each.draws for each in row.number.readings):
        return 0, 0.0
    chances = made.values[(made.values > 0) & (made.values < 1)]
    spread = 1.96 * float(np.sqrt((chances * (1 - chances)).sum()))
    return len(chances), 100 * spread / max(made.num_questions, 1)


def _luck(rows: Sequence[Row]) -> list[dict[str, str]]:
    """What the published code draws blindly, for each stated number that does."""
    found = []
    for row in rows:
        number, spread = _draws(row) if row.is_stated else (0, 0.0)
        if number:
            text = (
                f"Drawn letters: the published code reads {number} answers of {row.name} by "
                f"drawing a letter. Here stands the expected score; most single runs lie within "
                f"{spread:.1f} points of it."
            )
            found.append({"name": "drawn", "text": text})
    return found


def _denominators(answered: Answered) -> str:
    sizes = []
    for typing in (BY_FIELD, BY_YES_NO):
        kinds = Counter(typing.kind(each) for each in answered.questions)
        sizes.append(f"{kinds['open']}/{kinds['closed']}")
    moved = [q for q in answered.questions if BY_FIELD.kind(q) != BY_YES_NO.kind(q)]
    if not moved:
        return "Denominators: the numbers do not count the same questions."
    examples = ", ".join(f"“{each}”" for each in list(dict.fromkeys(q.answer for q in moved))[:4])
    return (
        f"Open/closed denominators: {sizes[0]} by the data set's own field, {sizes[1]} where "
        f"closed means yes or no. {len(moved)} questions change sides, with answers such as "
        f"{examples}."
    )


def _dropped(each: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    left = [question for question in step["questions"] if question["after"] is None]
    come = [question for question in step["questions"] if question["before"] is None]
    of, moved = (each["second"], left) if left else (each["first"], come)
    blank = sum(not (question["answer"] or "").strip() for question in moved)
    return (
        f"Dropped answers: {len(moved)} questions leave the denominator of {of} instead of "
        f"counting as wrong ({blank} of them empty or missing): {abs(step['points']):.1f} points."
    )


def _conclusion(
    rows: Sequence[Row],
    claim: ClaimedNumber | None,
    met: Sequence[Row],
    variants: Sequence[Mapping[str, Any]],
    dataset: str | None,
) -> str:
    """What to make of it, in a few plain sentences."""
    known = [each for each in rows if each.percent is not None and each.is_stated]
    here = f" for {dataset}" if dataset else ""
    values = [each.percent for each in known if each.percent is not None]
    span = f"{min(values):.1f} to {max(values):.1f}" if values else "nothing"
    if claim is None:
        return (
            f"These answers score {span} under the {len(known)} numbers that are published{here}. "
            "Numbers of different rows are not to be compared."
        )
    stated = [each for each in met if each.is_stated]
    others = [each for each in met if not each.is_stated]
    if stated:
        names = "; ".join(
            f"{e.name} ({e.number.label}: {e.percent:.2f} of {_questions(e)})" for e in stated
        )
        more = " It cannot be told which of them it is." if len(stated) > 1 else ""
        if vague := sorted({each.protocol.title for each in stated if not each.protocol.is_exact}):
            more += f" {', '.join(vague)}: no code is published, so the number can be off."
        if reworded := [each.name for each in stated if each.words == OWN]:
            more += f" {', '.join(reworded)}: {IN_OUR_WORDS}, so the number can be off."
        return f"{claim.text} is, to its rounding, {names}.{more}"
    nearest = min(known, key=lambda each: abs((each.percent or 0.0) - claim.value))
    first = (
        f"No protocol{here} gives {claim.text} for these answers; the nearest is {nearest.name} "
        f"({nearest.percent:.2f}, {_questions(nearest)})."
    )
    hints = []
    if others:
        names = ", ".join(f"{each.name} ({each.percent:.2f})" for each in others)
        hints.append(f"Rules of another data set give it: {names}.")
    low, high = rounding_range(claim.digits)
    for row in known:
        reach = _draws(row)[1]
        if reach and low - reach <= (row.percent or 0.0) <= high + reach:
            hints.append(
                f"It can be one run of {row.name} ({row.percent:.2f} expected), which draws "
                "letters."
            )
    for each in variants[:_MOST_VARIANTS]:
        hints.append(
            f"{each['name']} would give it ({each['value']:.2f} of {each['count']} questions) if "
            f"one part were another: {each['but']}."
        )
    if hints:
        return " ".join([first, *hints])
    waiting = sum(each.is_stated and "judge" in each.missing for each in rows)
    judged = f" {waiting} numbers need a judge and were not computed." if waiting else ""
    return f"{first} Nor does a change of one part of any of them.{judged}"


def _questions(row: Row) -> str:
    return f"{row.count.num_questions if row.count else 0} questions"
