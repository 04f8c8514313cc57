"""What is measured of an answer to a question: one entry a measure.

Tables, `scores.csv`, reports, comparisons, studies and the page loop over these entries, so a new
measure is one entry of `MEASURES`. A measure of another package is an entry point of the group
`exgra_med.measures` that names a `Measure`:

    def starts_alike(case: Case) -> float:
        return float(case.answer[:1].lower() == case.question.answer[:1].lower())

    STARTS_ALIKE = Measure("starts_alike", "same first letter", "all", strict=starts_alike)
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Pairing, Question
from exgra_med.evaluation.metrics import legacy, strict
from exgra_med.plugins import Registry

ScorerName = Literal["strict", "legacy", "legacy-pathvqa"]
SCORERS: tuple[ScorerName, ...] = ("strict", "legacy", "legacy-pathvqa")
Place = Literal["report", "compare", "groups"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Known open answers, under the rules of either scorer."""

    strict: strict.Candidates
    legacy: legacy.Candidates

    @classmethod
    def of(cls, answers: Iterable[str | int]) -> "Candidates":
        """From the texts of the answers."""
        texts = list(answers)
        return cls(strict.Candidates(texts), legacy.Candidates(texts))


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to one question."""

    answer: str
    question: Question
    candidates: Candidates | None = None
    """Known open answers, where the data set has some."""


Function = Callable[[Case], float | None]
"""A value from 0 to 1, or None where the question does not count."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure; its name is its key in `results.json`."""

    name: str
    label: str
    """As tables name it, lower case."""
    of: Literal["open", "closed", "all"]
    """Questions that count. One without an answer is worth 0."""
    strict: Function | None = None
    """The sound rule."""
    legacy: Function | None = None
    """The published rule of VQA-RAD and SLAKE, where there is one."""
    legacy_pathvqa: Function | None = None
    """The published rule of PathVQA; `legacy` where it is absent."""
    mean_of: tuple[str, ...] = ()
    """Instead of a function: the plain mean of other measures' means."""
    unit: str = "%"
    """`%` is shown times 100, anything else as it is."""
    shown: frozenset[Place] = frozenset({"report", "compare"})
    """Beside `results.json`, `scores.csv` and the table of `evaluate score`, which have all."""
    higher_is_better: bool = True
    """Whether a larger value is the better one."""
    needs_candidates: bool = False
    """Whether nothing can be said without known open answers."""

    @property
    def factor(self) -> float:
        """From a value to what is shown."""
        return 100.0 if self.unit == "%" else 1.0

    def function(self, scorer: ScorerName) -> Function | None:
        """The rule of a scorer; None where it has none."""
        if scorer == "strict":
            return self.strict
        if scorer == "legacy-pathvqa" and self.legacy_pathvqa is not None:
            return self.legacy_pathvqa
        return self.legacy

    def counts(self, question: Question) -> bool:
        """Whether a question counts for it."""
        return self.of == "all" or self.of == question.answer_type.lower()


def _overlap(name: str, label: str, field: str, shown: frozenset[Place]) -> Measure:
    """Strict and legacy word overlap: one of the four numbers that are computed together."""
    return Measure(
        name,
        label,
        "open",
        lambda case: getattr(strict.open_overlap(case.answer, case.question.answer), field),
        lambda case: getattr(legacy.overlap(case.answer, case.question.answer), field),
        shown=shown,
    )


def _bleu(name: str, label: str, shown: frozenset[Place]) -> Measure:
    return Measure(
        name,
        label,
        "open",
        lambda case: strict.bleu(case.answer, case.question.answer)[name],
        lambda case: legacy.bleu(case.answer, case.question.answer)[name],
        shown=shown,
    )


def _strict_closed(case: Case) -> float:
    question = case.question
    return strict.closed(case.answer, question.answer, question.text, question.options).hit


def _strict_candidate(case: Case) -> float | None:
    known = case.candidates
    return None if known is None else known.strict.hit(case.answer, case.question.answer)


def _legacy_candidate(case: Case) -> float | None:
    known = case.candidates
    return None if known is None else known.legacy.hit(case.answer, case.question.answer)


_NOWHERE: frozenset[Place] = frozenset()
_REPORT: frozenset[Place] = frozenset({"report"})
_EVERYWHERE: frozenset[Place] = frozenset({"report", "compare", "groups"})
MEASURES: tuple[Measure, ...] = (
    Measure(
        "average",
        "average of open recall and closed accuracy",
        "all",
        mean_of=("open_recall", "closed_accuracy"),
    ),
    _overlap("open_recall", "open recall", "recall", _EVERYWHERE),
    Measure(
        "closed_accuracy",
        "closed accuracy",
        "closed",
        strict=_strict_closed,
        legacy=lambda case: legacy.closed_hit(case.answer, case.question.answer),
        legacy_pathvqa=lambda case: legacy.closed_hit_pathvqa(case.answer, case.question.answer),
        shown=_EVERYWHERE,
    ),
    _overlap("open_f1", "open F1", "f1", _REPORT),
    _overlap("open_precision", "open precision", "precision", _REPORT),
    _overlap("open_exact_match", "open exact match", "exact_match", _REPORT),
    Measure(
        "open_accuracy",
        "open accuracy over known answers",
        "open",
        strict=_strict_candidate,
        legacy=_legacy_candidate,
        shown=_REPORT,
        needs_candidates=True,
    ),
    _bleu("bleu", "BLEU", _NOWHERE),
    _bleu("bleu_1", "BLEU-1", _REPORT),
    _bleu("bleu_2", "BLEU-2", _NOWHERE),
    _bleu("bleu_3", "BLEU-3", _NOWHERE),
)
"""Measures of this project, in the order of the tables."""
_PLUGGED_IN = Registry("measure", "exgra_med.measures", {}, ScoreError)


def measures(place: Place | None = None) -> list[Measure]:
    """Every measure, or those that are shown in a place: ours, then those of other packages.

    Raises:
        ScoreError: a measure of another package cannot be used.
    """
    known = [*MEASURES, *_plugged_in()]
    return [each for each in known if place is None or place in each.shown]


@functools.cache
def _plugged_in() -> tuple[Measure, ...]:
    found = []
    for name in _PLUGGED_IN.names():
        measure = _PLUGGED_IN.find(name)
        if not isinstance(measure, Measure) or measure.name != name:
            raise ScoreError(
                f"The entry point {name!r} of exgra_med.measures is no Measure of that name.",
                "Let it name an exgra_med.evaluation.measures.Measure.",
            )
        if name in {each.name for each in MEASURES}:
            raise ScoreError(
                f"A package adds a measure {name!r}, and exgra-med has one of that name.",
                "Uninstall the package, or let its measure take another name.",
            )
        found.append(
            replace(
                measure,
                strict=_guarded(name, measure.strict),
                legacy=_guarded(name, measure.legacy),
                legacy_pathvqa=_guarded(name, measure.legacy_pathvqa),
            )
        )
    return tuple(found)


def _guarded(name: str, function: Function | None) -> Function | None:
    """Foreign code that fails, or gives no number, becomes one sentence."""
    if function is None:
        return None

    def guarded(case: Case) -> float | None:
        try:
            value = function(case)
            return None if value is None else float(value)
        except Exception as error:
            raise ScoreError(
                f"The measure {name!r} of another package fails on the question "
                f"{case.question.id!r}: {type(error).__name__}: {error}.",
                "Mend or uninstall that package.",
            ) from error

    return guarded


def as_scorer(name: str) -> ScorerName:
    """The scorer of that name.

    Raises:
        ScoreError: there is none.
    """
    for scorer in SCORERS:
        if scorer == name:
            return scorer
    raise ScoreError(f"Unknown scorer {name!r}.", f"Known are {', '.join(SCORERS)}.")


def item_values(
    pairing: Pairing,
    scorer: ScorerName,
    chosen: Sequence[Measure],
    candidates: Candidates | None = None,
) -> NDArray[np.float64]:
    """Every measure of every question.

    Args:
        pairing: questions and answers.
        scorer: whose rules.
        chosen: measures with a function; those that are means of others have none.
        candidates: known open answers.

    Returns:
        (questions, measures) from 0 to 1; NaN where a question does not count for a measure. A
        question without an answer is worth 0. Questions that the published scripts skip (an answer
        type with blanks) count for `strict` alone.
    """
    values = np.full((len(pairing.questions), len(chosen)), np.nan)
    rules = [(place, each, each.function(scorer)) for place, each in enumerate(chosen)]
    for row, (question, answer) in enumerate(zip(pairing.questions, pairing.answers, strict=True)):
        if scorer != "strict" and question.type_had_blanks:
            continue
        case = Case(answer or "", question, candidates)
        for place, measure, rule in rules:
            known = candidates is not None or not measure.needs_candidates
            if rule is None or not known or not measure.counts(question):
                continue
            value = 0.0 if answer is None else rule(case)
            values[row, place] = np.nan if value is None else value
    return values


def with_functions(chosen: Iterable[Measure]) -> list[Measure]:
    """Those measures that are computed question by question."""
    return [each for each in chosen if not each.mean_of]


def parts_of(measure: Measure) -> tuple[str, ...]:
    """Names of the measures whose plain mean it is; its own for one with a function."""
    return measure.mean_of or (measure.name,)


def by_name(name: str) -> Measure:
    """The measure of a name.

    Raises:
        ScoreError: there is none.
    """
    known: Mapping[str, Measure] = {each.name: each for each in measures()}
    if name not in known:
        raise ScoreError(f"There is no measure {name!r}.", f"Known: {', '.join(known)}.")
    return known[name]
