"""What is measured of an answer to a question: one entry a measure; and means with intervals.

Tables, `scores.csv`, reports, comparisons, studies and the page loop over these entries, so a new
measure is one entry of `MEASURES`. A measure of another package is an entry point of the group
`exgra_med.measures` that names a `Measure`:

    def starts_alike(case: Case) -> float:
        return float(case.answer[:1].lower() == case.question.answer[:1].lower())

    STARTS_ALIKE = Measure("starts_alike", "same first letter", "all", strict=starts_alike)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import answer_of, has_thoughts
from exgra_med.errors import ScoreError
from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answers import Pairing, Question
from exgra_med.evaluation.statistics import (
    MANY_CLUSTERS,
    PairedTest,
    cluster_bootstrap,
    mean_interval,
    paired_tests,
    scored,
)
from exgra_med.plugins import Registry

ScorerName = Literal["strict", "legacy", "legacy-pathvqa", "strict-1"]
SCORERS: tuple[ScorerName, ...] = ("strict", "legacy", "legacy-pathvqa", "strict-1")
"""`strict-1` is the strict scorer of before, which explains older scores."""
STRICT = frozenset({"strict", "strict-1"})
Place = Literal["report", "compare", "groups"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Known open answers, under the rules of either scorer."""

    strict: metrics.Candidates
    legacy: metrics.PublishedCandidates
    strict_1: metrics.Candidates

    @classmethod
    def of(cls, answers: Iterable[str | int]) -> "Candidates":
        """From the texts of the answers."""
        texts = list(answers)
        return cls(
            metrics.Candidates(texts),
            metrics.PublishedCandidates(texts),
            metrics.Candidates(texts, reading.OLDER_NORMALISER),
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to one question."""

    answer: str
    """What the model wrote, without thoughts."""
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
    strict_1: Function | None = None
    """The sound rule as it was in version 1; `strict` where it is absent."""

    @property
    def factor(self) -> float:
        """From a value to what is shown."""
        return 100.0 if self.unit == "%" else 1.0

    def function(self, scorer: ScorerName) -> Function | None:
        """The rule of a scorer; None where it has none."""
        if scorer == "strict":
            return self.strict
        if scorer == "strict-1":
            return self.strict_1 or self.strict
        if scorer == "legacy-pathvqa" and self.legacy_pathvqa is not None:
            return self.legacy_pathvqa
        return self.legacy

    def counts(self, question: Question) -> bool:
        """Whether a question counts for it."""
        return self.of == "all" or self.of == question.answer_type.lower()


def _overlap(name: str, label: str, field: str, shown: frozenset[Place]) -> Measure:
    """Strict and legacy word overlap: one of the four numbers that are computed together."""

    def strict(case: Case, version: str = reading.NORMALISER_VERSION) -> float:
        return getattr(metrics.open_overlap(case.answer, case.question.answer, version), field)

    return Measure(
        name,
        label,
        "open",
        strict=strict,
        strict_1=lambda case: strict(case, reading.OLDER_NORMALISER),
        legacy=lambda case: getattr(
            metrics.published_overlap(case.answer, case.question.answer), field
        ),
        shown=shown,
    )


def _bleu(name: str, label: str, shown: frozenset[Place]) -> Measure:
    def strict(case: Case, version: str = reading.NORMALISER_VERSION) -> float:
        return metrics.bleu(case.answer, case.question.answer, version)[name]

    return Measure(
        name,
        label,
        "open",
        strict=strict,
        strict_1=lambda case: strict(case, reading.OLDER_NORMALISER),
        legacy=lambda case: metrics.published_bleu(case.answer, case.question.answer)[name],
        shown=shown,
    )


def read_closed(
    answer: str, question: Question, version: str = reading.NORMALISER_VERSION
) -> metrics.ClosedScore:
    """The strict reading of the answer to a closed question."""
    about = (question.answer, question.text, question.options)
    return metrics.closed(answer, *about, version)


def _candidate(case: Case, rule: Literal["strict", "legacy", "strict_1"]) -> float | None:
    if case.candidates is None:
        return None
    return getattr(case.candidates, rule).hit(case.answer, case.question.answer)


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
        strict=lambda case: read_closed(case.answer, case.question).hit,
        strict_1=lambda case: read_closed(case.answer, case.question, reading.OLDER_NORMALISER).hit,
        legacy=lambda case: metrics.published_closed_hit(case.answer, case.question.answer),
        legacy_pathvqa=lambda case: metrics.published_closed_hit_pathvqa(
            case.answer, case.question.answer
        ),
        shown=_EVERYWHERE,
    ),
    _overlap("open_f1", "open F1", "f1", _REPORT),
    _overlap("open_precision", "open precision", "precision", _REPORT),
    _overlap("open_exact_match", "open exact match", "exact_match", _REPORT),
    Measure(
        "open_accuracy",
        "open accuracy over known answers",
        "open",
        strict=lambda case: _candidate(case, "strict"),
        strict_1=lambda case: _candidate(case, "strict_1"),
        legacy=lambda case: _candidate(case, "legacy"),
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


@cache
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
                strict_1=_guarded(name, measure.strict_1),
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
                f"{case.question.id!r}: {type(error).__name__}: {' '.join(str(error).split())}.",
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
    """Every measure (with a function; means of others have none) of every question.

    Returns:
        (questions, measures) from 0 to 1; NaN where a question does not count for a measure. A
        question without an answer is worth 0. Questions that the published scripts skip (an answer
        type with blanks) count for `strict` alone.
    """
    values = np.full((len(pairing.questions), len(chosen)), np.nan)
    rules = [(place, each, each.function(scorer)) for place, each in enumerate(chosen)]
    is_strict = scorer in STRICT
    for row, (question, answer) in enumerate(zip(pairing.questions, pairing.answers, strict=True)):
        if not is_strict and question.type_had_blanks:
            continue
        case = Case(answer or "", question, candidates)
        if scorer != "strict-1" and has_thoughts(case.answer):
            case = replace(case, answer=answer_of(case.answer))
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
    known = {each.name: each for each in measures()}
    if name not in known:
        raise ScoreError(f"There is no measure {name!r}.", f"Known: {', '.join(known)}.")
    return known[name]


Scores = dict[str, dict[str, Any]]
"""Measure -> `value`, `interval` (95 %, or None) and `count` of questions, JSON-ready."""

_NUM_FLIPS = 10_000
_NUM_FLIPS_OF_MANY = 2000


def summary(
    values: NDArray[np.float64],
    chosen: Sequence[Measure],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
) -> Scores:
    """Means of a table of per-question values, with intervals.

    Args:
        values: (questions, measures with a function) from 0 to 1, NaN where a question does not
            count.
        chosen: measures, those with a function in the order of the columns; a mean of others is
            None unless all of them are there.
        clusters: (questions,) image codes.
        num_samples: resamples of images behind each interval; 0 for none.
        seed: of the resamples.
    """
    columns = {each.name: place for place, each in enumerate(with_functions(chosen))}
    counted = ~np.isnan(values)
    counts = counted.sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, axis=0) / np.where(counts, counts, np.nan)
    samples = cluster_bootstrap(values, clusters, num_samples, seed)
    scores: Scores = {}
    for measure in chosen:
        parts = [columns[name] for name in parts_of(measure) if name in columns]
        there = len(parts) == len(parts_of(measure)) and all(counts[parts])
        bounds = None
        if there:
            num_clusters = [len(np.unique(clusters[counted[:, part]])) for part in parts]
            rows = counted[:, parts].any(axis=1)
            total = len(np.unique(clusters[rows]))
            bounds = mean_interval(samples[:, parts], means[parts].tolist(), num_clusters, total)
        if bounds is not None:
            bounds = measure.factor * bounds[0], measure.factor * bounds[1]
        value = float((measure.factor * means[parts]).mean()) if there else None
        scores[measure.name] = scored(value, int(counts[parts].sum()), bounds)
    return scores


@dataclass(frozen=True)
class PairedValues:
    """Two sets of answers to the same questions, question by question.

    A question that one of them has not answered says nothing about their difference, and leaves
    it; what it could do to the difference is in `lowest` and `highest`.
    """

    first: NDArray[np.float64]
    """(questions, measures with a function), as of `item_values`: 0 without an answer."""
    second: NDArray[np.float64]
    both: NDArray[np.bool_]
    """(questions,) whether both have answered."""
    missing: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    """(questions,) without an answer of the first, and of the second."""

    @classmethod
    def of(
        cls, first: Pairing, second: Pairing, scorer: ScorerName, chosen: Sequence[Measure]
    ) -> "PairedValues":
        """From answers to the same questions; `chosen` are measures with a function."""
        missing = [np.array([each is None for each in one.predictions]) for one in (first, second)]
        values = [item_values(one, scorer, chosen) for one in (first, second)]
        return cls(values[0], values[1], ~(missing[0] | missing[1]), (missing[0], missing[1]))

    @property
    def answered(self) -> NDArray[np.float64]:
        """First minus second where both have answered; NaN elsewhere."""
        return np.where(self.both[:, None], self.first - self.second, np.nan)

    @property
    def lowest(self) -> NDArray[np.float64]:
        """First minus second if the first had no missing answer right, and the second all."""
        return self.first - self._all_right(self.second, self.missing[1])

    @property
    def highest(self) -> NDArray[np.float64]:
        """First minus second if the first had all missing answers right, and the second none."""
        return self._all_right(self.first, self.missing[0]) - self.second

    @staticmethod
    def _all_right(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.where(missing[:, None] & ~np.isnan(values), 1.0, values)


def paired(
    differences: NDArray[np.float64],
    chosen: Sequence[Measure],
    clusters: NDArray[np.int64],
    seed: int = 0,
) -> dict[str, PairedTest]:
    """Measure -> the paired test of its difference, question by question, flipping whole images.

    Args:
        differences: (questions, measures with a function) one table of values minus another, NaN
            where a question does not count.
        chosen: as for `summary`; one is left out where a part of it has no question.
        clusters: (questions,) image codes.
        seed: of the flips.
    """
    columns = {each.name: place for place, each in enumerate(with_functions(chosen))}
    counted = ~np.isnan(differences)
    counts = counted.sum(axis=0)
    there = [
        each
        for each in chosen
        if all(name in columns and counts[columns[name]] for name in parts_of(each))
    ]
    if not there:
        return {}
    each_weighs = counted / np.where(counts, counts, 1)
    weights = np.stack(
        [each_weighs[:, [columns[n] for n in parts_of(one)]].mean(axis=1) for one in there], axis=1
    )
    adds = np.where(counted, differences, 0.0) * each_weighs
    contributions = np.stack(
        [adds[:, [columns[n] for n in parts_of(one)]].mean(axis=1) for one in there], axis=1
    )
    flips = _NUM_FLIPS_OF_MANY if clusters.max() >= MANY_CLUSTERS else _NUM_FLIPS
    tests = paired_tests(contributions, weights, clusters, flips, seed)
    return {each.name: test for each, test in zip(there, tests, strict=True)}


def paired_summary(
    differences: NDArray[np.float64],
    chosen: Sequence[Measure],
    clusters: NDArray[np.int64],
    seed: int = 0,
) -> Scores:
    """Differences with the 95 % intervals of their own tests; see `paired`.

    An interval that leaves 0 out is what a p-value below 0.05 says.
    """
    tests = paired(differences, chosen, clusters, seed)
    columns = {each.name: place for place, each in enumerate(with_functions(chosen))}
    counts = (~np.isnan(differences)).sum(axis=0)
    scores: Scores = {}
    for measure in chosen:
        count = int(sum(counts[columns[n]] for n in parts_of(measure) if n in columns))
        test = tests.get(measure.name)
        if test is None:
            scores[measure.name] = scored(None, count)
            continue
        bounds = test.interval()
        if bounds is not None:
            bounds = measure.factor * bounds[0], measure.factor * bounds[1]
        scores[measure.name] = scored(measure.factor * test.value, count, bounds)
    return scores
