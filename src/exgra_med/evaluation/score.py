"""Predictions and reference -> scores with intervals, denominators and what was odd.

No torch here: scoring stored answers takes milliseconds, and scoring them again is equal.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import answer_of, has_thoughts
from exgra_med.data.records import MANIFEST, Met, Record, file_sha256, open_prepared
from exgra_med.errors import ScoreError
from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answers import (
    Pairing,
    Prediction,
    Question,
    answer_counts,
    pair,
    pairing_facts,
    question_of,
    read_candidates,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.statistics import (
    FEWEST_HITS,
    PairedTest,
    check_count,
    cluster_bootstrap,
    cluster_codes,
    interval,
    mean_interval,
    paired_tests,
    rows_by,
    scored,
)
from exgra_med.plugins import Registry

# What is measured of an answer to a question: one entry a measure.
#
# Tables, `scores.csv`, reports, comparisons, studies and the page loop over these entries, so a new
# measure is one entry of `MEASURES`. A measure of another package is an entry point of the group
# `exgra_med.measures` that names a `Measure`:
#
#     def starts_alike(case: Case) -> float:
#         return float(case.answer[:1].lower() == case.question.answer[:1].lower())
#
#     STARTS_ALIKE = Measure("starts_alike", "same first letter", "all", strict=starts_alike)


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
                "Let it name an exgra_med.evaluation.score.Measure.",
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

# Our name of a grouping -> the fields of a record's `meta` that can hold it.
_FIELDS = {
    "modality": ("modality", "modality_type"),
    "organ": ("organ", "image_organ", "location"),
    "question_type": ("question_type", "content_type"),
    "language": ("language", "q_lang"),
    "seen_look_alike": ("seen_look_alike",),
}
_MAX_GROUPS = 40
_NUM_SAMPLES = 1000
# With thousands of images the interval hardly moves with the number of resamples.
_NUM_SAMPLES_OF_MANY = 400
_MANY_CLUSTERS = 5000
_NUM_FLIPS = 10_000
_NUM_FLIPS_OF_MANY = 2000


def score_vqa(
    predictions: Sequence[Prediction],
    records: Iterable[Record | Question],
    scorer: ScorerName = "strict",
    *,
    candidates: list[str | int] | None = None,
    train_answers: Iterable[str] | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    groups: bool = True,
    oddities: Mapping[str, int] | None = None,
    only: Sequence[Measure] | None = None,
) -> dict[str, Any]:
    """Score one file of predictions.

    Args:
        predictions: answers, in any order.
        records: the questions that were asked, with their reference answers.
        scorer: `strict`, or one of the published rules for comparison with published tables.
        candidates: known open answers; open accuracy is absent without them.
        train_answers: answers of the training questions, to tell seen from unseen ones.
        num_bootstrap_samples: resamples of images behind each interval; 0 for none.
        seed: of the resamples.
        groups: whether to add scores per modality, organ and question type.
        oddities: what the readers of the files found; goes into the result.
        only: measures that are wanted; all of them where absent.

    Returns:
        JSON-ready: `scores` (measure -> value, interval, count), `scorer, num_open, num_closed,
        num_images, pairing, groups, ...`; a value is None where there is nothing to count.

    Raises:
        ScoreError: predictions and records do not fit, the scorer is unknown, or a negative number
            of resamples.
    """
    scorer = as_scorer(scorer)
    check_count(num_bootstrap_samples, "num_bootstrap_samples")
    oddities = Counter() if oddities is None else Counter(oddities)
    asked = [
        each if isinstance(each, Question) else question_of(each, oddities) for each in records
    ]
    pairing = pair(list(predictions), asked)
    chosen = measures() if only is None else list(only)
    known = Candidates.of(candidates) if candidates else None
    values = item_values(pairing, scorer, with_functions(chosen), known)
    clusters = cluster_codes([question.cluster for question in pairing.questions])
    is_strict = scorer in STRICT
    skipped = [not is_strict and each.type_had_blanks for each in pairing.questions]
    kinds = Counter(
        question.answer_type
        for question, skip in zip(pairing.questions, skipped, strict=True)
        if not skip
    )
    scores = summary(values, chosen, clusters, num_bootstrap_samples, seed)
    if not is_strict and "closed_accuracy" in scores and not kinds["CLOSED"]:
        # The published table prints 0 where no closed question was counted.
        scores["closed_accuracy"]["value"] = 0.0
    version = versions_of(scorer)
    result: dict[str, Any] = {
        "scorer": scorer,
        **version,
        "scores": scores,
        "num_open": kinds["OPEN"],
        "num_closed": kinds["CLOSED"],
        "num_images": int(clusters.max()) + 1,
        "pairing": pairing_facts(pairing),
        "answer_counts": counts_of(pairing),
        "oddities": {name: count for name, count in sorted(oddities.items()) if count},
        "left_out_by_published_rule": sum(skipped),
        "bootstrap": {"samples": num_bootstrap_samples, "seed": seed, "unit": "image"},
    }
    if is_strict:
        result["closed_answers"] = closed_answers(pairing, version["normaliser_version"])
        result["answer_spread"] = answer_spread(pairing)
        if only is None:
            result["existence"] = existence(pairing, num_bootstrap_samples, seed)
            result["same_questions"] = same_questions(pairing, num_bootstrap_samples, seed)
    else:
        result["yes_no"] = metrics.yes_no_table(
            (answer or "", question.answer)
            for question, answer in zip(pairing.questions, pairing.answers, strict=True)
            if question.answer_type == "CLOSED"
        )
    if groups:
        result["groups"] = breakdown(
            pairing, values, with_functions(chosen), clusters, train_answers, seed
        )
    return result


def score_files(
    predictions: str | Path,
    reference: str | Path,
    scorer: str = "strict",
    candidates: str | Path | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    expected: str | None = None,
) -> dict[str, Any]:
    """Score a file of predictions against a file of records or of the original; see `score_vqa`.

    Args:
        predictions: JSON Lines, ours or the original's, or an answer file of another tool.
        reference: records, or a JSON file of the original.
        scorer: name of the scorer.
        candidates: the original's `candidate.json`, a JSON list, or training records.
        num_bootstrap_samples: resamples of images behind each interval; 0 for none.
        seed: of the resamples.
        expected: a published checkpoint, or a YAML file of claims, to hold the scores against; the
            verdicts are in `claims` of the result.

    Raises:
        CommandError: nothing is known to be claimed under that name.
        DataError: a file is missing or is none of these.
        ScoreError: see `score_vqa`.
    """
    from exgra_med.evaluation.claims import claims_of, judge_claims

    claims = () if expected is None else claims_of(expected)
    answers = read_predictions(Path(predictions))
    asked = read_reference(Path(reference))
    result = score_vqa(
        answers.predictions,
        asked.questions,
        as_scorer(scorer),
        candidates=None if candidates is None else read_candidates(Path(candidates)),
        num_bootstrap_samples=num_bootstrap_samples,
        seed=seed,
        oddities=asked.oddities + answers.oddities,
    )
    result["answers_tool"] = answers.tool
    if claims:
        dataset, split = _named(Path(reference))
        missing = result["answer_counts"]["missing"]
        result["claims"] = judge_claims(
            claims,
            {result["scorer"]: result["scores"]},
            dataset=dataset,
            split=split,
            num_unanswered=missing,
        )
    return result | {"answers_sha256": file_sha256(Path(predictions))}


def _named(reference: Path) -> tuple[str | None, str | None]:
    """Data set and split of a reference that lies in a prepared folder; nothing of another one."""
    if not (reference.parent / MANIFEST).is_file():
        return None, None
    return open_prepared(reference.parent).manifest["dataset"], reference.stem


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
    flips = _NUM_FLIPS_OF_MANY if clusters.max() >= _MANY_CLUSTERS else _NUM_FLIPS
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


def breakdown(
    pairing: Pairing,
    values: NDArray[np.float64],
    chosen: Sequence[Measure],
    clusters: NDArray[np.int64],
    train_answers: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The same scores for every group that a record's `meta` tells; see `summary`.

    Measures shown in `groups` are kept. Answers of the training questions add the grouping
    `answer_in_training`.

    Returns:
        Grouping -> group -> `num_open, num_closed, num_images` and `scores`. Groupings with one
        group, or too many to read, are left out.
    """
    asked = pairing.questions
    groupings: dict[str, Callable[[Question], str]] = {
        name: partial(_known_group, grouping=name) for name in _FIELDS
    }
    if train_answers is not None:
        seen = {reading.words(answer) for answer in train_answers}
        groupings["answer_in_training"] = lambda question: (
            "seen" if reading.words(question.answer) in seen else "unseen"
        )
    columns = [place for place, each in enumerate(chosen) if "groups" in each.shown]
    kept = [chosen[place] for place in columns]
    is_open = np.array([question.answer_type == "OPEN" for question in asked])
    return {
        name: {
            group: _group(values[rows][:, columns], kept, clusters[rows], is_open[rows], seed)
            for group, rows in sorted(members.items())
        }
        for name, members in ((n, rows_by(map(group, asked))) for n, group in groupings.items())
        if 1 < len(members) <= _MAX_GROUPS
    }


def _known_group(question: Question, grouping: str) -> str:
    return group_of(question, grouping) or "unknown"


def group_of(question: Question, grouping: str) -> str | None:
    """The group of a question, as its `meta` tells; None where it does not.

    Groupings are `modality`, `organ`, `question_type`, `language` and `seen_look_alike`: whether
    the picture looks like one that is trained on.
    """
    for field in _FIELDS[grouping]:
        value = question.meta.get(field)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _group(
    values: NDArray[np.float64],
    chosen: Sequence[Measure],
    clusters: NDArray[np.int64],
    is_open: NDArray[np.bool_],
    seed: int,
) -> dict[str, Any]:
    _, codes = np.unique(clusters, return_inverse=True)
    many = len(values) and codes.max() >= _MANY_CLUSTERS
    num_samples = _NUM_SAMPLES_OF_MANY if many else _NUM_SAMPLES
    return {
        "num_open": int(is_open.sum()),
        "num_closed": int((~is_open).sum()),
        "num_images": int(codes.max()) + 1,
        "scores": summary(values, chosen, codes, num_samples, seed),
    }


def versions_of(scorer: ScorerName) -> dict[str, str]:
    """`scorer_version` and `normaliser_version`, by which equal names are told apart in results."""
    versions = {
        "strict": (metrics.SCORER_VERSION, reading.NORMALISER_VERSION),
        "strict-1": (metrics.OLDER_SCORER, reading.OLDER_NORMALISER),
    }
    names = ("scorer_version", "normaliser_version")
    return dict(zip(names, versions.get(scorer, ("published", "published")), strict=True))


def counts_of(pairing: Pairing) -> dict[str, int]:
    """See `answer_counts`; a closed answer is read where it chooses one option, or abstains."""

    def is_read(place: int) -> bool | None:
        question, answer = pairing.questions[place], pairing.answers[place]
        if question.answer_type == "OPEN" or answer is None:
            return None
        verdict = read_closed(answer, question).verdict
        return verdict not in (metrics.Verdict.UNPARSED, metrics.Verdict.SEVERAL)

    return answer_counts(pairing.predictions, is_read)


Said = Counter[tuple[str, str]]
"""How often an answer was given where another, or the same, was right."""


def answer_spread(pairing: Pairing) -> dict[str, Any]:
    """Whether one answer is given to most questions, over all, open and closed ones.

    Returns:
        `all`, `open`, `closed`, each with `answered`, `different` (answers), and of the most
        frequent one `answer`, `count`, and `expected`: how often it is the right one. A closed
        answer is the option that was read in it, any other its words. `yes_no_to_open`: open
        questions answered by yes or no where the reference is neither. `by_kind`: the same as of
        `all` for the questions of a type that begin with the same word ("open where").
    """
    given: dict[str, Said] = {"all": Counter(), "open": Counter(), "closed": Counter()}
    kinds: dict[str, Said] = {}
    yes_no_to_open = 0
    for question, answer in zip(pairing.questions, pairing.answers, strict=True):
        if answer is None:
            continue
        said, right = said_and_right(question, answer)
        is_open = question.answer_type != "CLOSED"
        yes_no_to_open += bool(is_open and metrics.yes_or_no(said) and not metrics.yes_or_no(right))
        of_type = question.answer_type.lower()
        for kind in ("all", of_type):
            given[kind][said, right] += 1
        first_word = next(iter(reading.words(question.text)), "")
        kinds.setdefault(f"{of_type} {first_word}".strip(), Counter())[said, right] += 1
    by_kind = {name: _most_frequent(pairs) for name, pairs in sorted(kinds.items())}
    return (
        {"yes_no_to_open": yes_no_to_open}
        | {kind: _most_frequent(pairs) for kind, pairs in given.items()}
        | {
            "by_kind": {
                k: each for k, each in by_kind.items() if each["answered"] >= FEWEST_ANSWERS
            }
        }
    )


def said_and_right(question: Question, answer: str) -> tuple[str, str]:
    """What an answer and the reference say, so that equal things are equal strings: the option that
    was read in a closed answer, the words of any other."""
    said = " ".join(reading.words(reading.answer_text(answer)))
    if question.answer_type != "CLOSED":
        return said, " ".join(reading.words(question.answer))
    closed = read_closed(answer, question)
    return closed.chosen or said, closed.expected


def _most_frequent(pairs: Said) -> dict[str, Any]:
    """What `answer_spread` tells of answers, each with the right one."""
    counted: Counter[str] = Counter()
    for (said, _), number in pairs.items():
        counted[said] += number
    answer, count = counted.most_common(1)[0] if counted else ("", 0)
    return {
        "answered": pairs.total(),
        "different": len(counted),
        "answer": answer,
        "count": count,
        "expected": sum(number for (_, right), number in pairs.items() if right == answer),
    }


FEWEST_ANSWERS = 5
"""Below this one frequent answer is no sign of anything."""
_MOST, _EXCESS, _ALL_BUT = 0.5, 0.25, 0.95
_NEARLY_ALL_OF_A_KIND = 0.9


def collapsed(spread: Mapping[str, Any]) -> list[str]:
    """Of `open` and `closed`, then `all`, where one answer stands for most, as `answer_spread` has
    it: for over half of the answers and a quarter more of them than it should, or for nearly all
    where it should not. Else `by_kind`, where each kind of question gets its one answer."""
    found = []
    for kind in ("open", "closed", "all"):
        each = spread[kind]
        if each["answered"] < FEWEST_ANSWERS:
            continue
        share, right = (each[name] / each["answered"] for name in ("count", "expected"))
        if share > _MOST and (share - right >= _EXCESS or right < _ALL_BUT <= share):
            found.append(kind)
    kinds = (spread.get("by_kind") or {}).values()
    total, given, right = (
        sum(each[k] for each in kinds) for k in ("answered", "count", "expected")
    )
    is_given = len(kinds) > 1 and given >= _NEARLY_ALL_OF_A_KIND * total
    if not found and is_given and given - right >= _EXCESS * total:
        found.append("by_kind")
    return found


_MOST_KINDS = 4
"""Kinds of question that a sentence names."""


def spread_sentence(spread: Mapping[str, Any]) -> str:
    """`answer_spread` in words: collapsed, where, and onto what; or how the answers vary."""
    everything = spread["all"]
    if everything["answered"] < FEWEST_ANSWERS:
        return f"Too few answers ({everything['answered']}) to see whether they vary."
    found = collapsed(spread)
    if found == ["by_kind"]:
        return _by_kind_sentence(spread["by_kind"])
    parts = [
        f"“{spread[kind]['answer'] or '(empty)'}” to {spread[kind]['count']} of "
        f"{spread[kind]['answered']} {kind} questions, where it is right for "
        f"{spread[kind]['expected']}"
        for kind in [each for each in found if each != "all"] or found
    ]
    if parts:
        sentence = f"Collapsed: one answer stands for most. {'; '.join(parts)}."
    else:
        sentence = (
            f"Not collapsed: {everything['different']} different answers to "
            f"{everything['answered']} questions; the most frequent, "
            f"“{everything['answer'] or '(empty)'}”, stands for {everything['count']} and is right "
            f"for {everything['expected']}."
        )
    if spread["yes_no_to_open"] > spread["open"]["answered"] * _EXCESS:
        sentence += (
            f" {spread['yes_no_to_open']} of {spread['open']['answered']} open questions are "
            "answered by yes or no, which is no answer to them."
        )
    return sentence


def _by_kind_sentence(by_kind: Mapping[str, Any]) -> str:
    largest = sorted(by_kind.items(), key=lambda each: -each[1]["count"])
    parts = [
        f"“{each['answer'] or '(empty)'}” to {each['count']} of {each['answered']} {kind} "
        f"questions, where it is right for {each['expected']}"
        for name, each in largest[:_MOST_KINDS]
        for of_type, _, word in [name.partition(" ")]
        for kind in [f"{of_type} “{word}”" if word else of_type]
    ]
    more = len(largest) - _MOST_KINDS
    rest = f"; and so for {more} more kinds" if more > 0 else ""
    return (
        "Collapsed: one answer stands for nearly all questions that begin with the same word. "
        f"{'; '.join(parts)}{rest}."
    )


def closed_answers(pairing: Pairing, version: str = reading.NORMALISER_VERSION) -> dict[str, Any]:
    """How closed questions are answered, by the strict reading.

    A rare answer counts as much as a frequent one here, and "yes" is told from "no".

    Returns:
        `verdicts` (how often each), and in percent: `macro_f1` and `balanced_accuracy` over the
        reference answers that occur, `yes_true_rate` (of the questions answered by yes) and
        `no_true_rate`, `yes_share` of the yes/no answers that were read, `parse_failures`,
        `abstentions`, `several_options` of all. None where nothing is there to count.
    """
    total = missing = 0
    yes, no = reading.YES, reading.NO
    verdicts: Counter[metrics.Verdict] = Counter()
    expected, chosen, hits, read_yes_no = (Counter[str]() for _ in range(4))
    for question, answer in zip(pairing.questions, pairing.answers, strict=True):
        if question.answer_type != "CLOSED":
            continue
        total += 1
        if answer is None:
            missing += 1
            continue
        read = read_closed(answer, question, version)
        verdicts[read.verdict] += 1
        expected[read.expected] += 1
        if read.hit:
            hits[read.expected] += 1
        if read.chosen is not None:
            chosen[read.chosen] += 1
            if read.expected in (yes, no):
                read_yes_no[read.chosen] += 1
    recalls = [hits[label] / expected[label] for label in expected]
    f1 = [2 * hits[label] / (expected[label] + chosen[label]) for label in expected]
    counts = {str(verdict): count for verdict, count in sorted(verdicts.items())}
    return {
        "verdicts": counts | {"missing": missing},
        "macro_f1": metrics.percent(sum(f1), len(f1)),
        "balanced_accuracy": metrics.percent(sum(recalls), len(recalls)),
        "yes_true_rate": metrics.percent(hits[yes], expected[yes]),
        "no_true_rate": metrics.percent(hits[no], expected[no]),
        "yes_share": metrics.percent(read_yes_no[yes], read_yes_no.total()),
        "parse_failures": metrics.percent(verdicts[metrics.Verdict.UNPARSED] + missing, total),
        "abstentions": metrics.percent(verdicts[metrics.Verdict.ABSTAINED], total),
        "several_options": metrics.percent(verdicts[metrics.Verdict.SEVERAL], total),
    }


# Does a model invent findings? POPE (Li et al. 2023, arXiv 2305.10355) asks whether objects are in
# a picture, half of which are not: drawn at random, the most frequent ones, or those that often
# come together with what is there.

ABSENT_KINDS = ("random", "popular", "adversarial")
"""How the absent findings of made questions were chosen; `data/existence.py` makes them."""
EXISTENCE: tuple[Measure, ...] = (
    Measure("false_claims", "claims of absent findings", "closed", higher_is_better=False),
    Measure("true_claims", "claims of present findings", "closed"),
    Measure("yes_rate", "answered by yes", "closed"),
    Measure("accuracy", "accuracy", "closed"),
    Measure("neither", "neither yes nor no", "closed", higher_is_better=False),
)
"""What is measured of questions after a finding; `existence` adds what needs two of these."""
FURTHER_EXISTENCE: tuple[Measure, ...] = (
    Measure("f1", "F1 of yes", "closed"),
    Measure("told_apart", "present minus absent claims", "closed"),
)


def existence(pairing: Pairing, num_samples: int = 2000, seed: int = 0) -> dict[str, Any] | None:
    """How often findings are claimed that are there, and that are not, with intervals.

    It counts yes/no questions that a data set marks (`meta.existence`), or else, in English, whose
    words ask whether something is there.

    Returns:
        `all`, and each of `ABSENT_KINDS` beside the present findings where they are marked:
        `num_present`, `num_absent`, `num_images` and `scores`. `false_claims` is over absent
        findings, `true_claims` over present ones, the rest over all. `f1` is of the answer yes;
        `told_apart` is `true_claims` minus `false_claims`, 0 for who does not look. Without an
        answer, or with neither word, nothing is claimed. None without such questions.
    """
    rows, kinds = [], []
    for row, question in enumerate(pairing.questions):
        marked = question.meta.get("existence")
        asked = marked or metrics.asks_existence(question.text)
        if asked and question.answer_type == "CLOSED" and metrics.yes_or_no(question.answer):
            rows.append(row)
            kinds.append(tuple(marked) if isinstance(marked, list) else ())
    if not rows:
        return None
    chosen = [_yes_or_no_said(pairing.questions[row], pairing.answers[row]) for row in rows]
    is_there = np.array(
        [metrics.yes_or_no(pairing.questions[r].answer) == reading.YES for r in rows]
    )
    said_yes = np.array([each == reading.YES for each in chosen])
    said_no = np.array([each == reading.NO for each in chosen])
    columns = [
        np.where(is_there, np.nan, said_yes),
        np.where(is_there, said_yes, np.nan),
        said_yes,
        np.where(is_there, said_yes, said_no),
        ~(said_yes | said_no),
    ]
    values = np.stack([each.astype(np.float64) for each in columns], axis=1)
    clusters = cluster_codes([pairing.questions[row].cluster for row in rows])
    parts = {"all": np.ones(len(rows), dtype=bool)}
    for kind in ABSENT_KINDS:
        of_kind = np.array([kind in each for each in kinds])
        if of_kind.any():
            parts[kind] = of_kind | (is_there & np.array([bool(each) for each in kinds]))
    return {
        name: _existence_scores(values[part], is_there[part], clusters[part], num_samples, seed)
        for name, part in parts.items()
    }


def _yes_or_no_said(question: Question, answer: str | None) -> str | None:
    return None if answer is None else read_closed(answer, question).chosen


def _existence_scores(
    values: NDArray[np.float64],
    is_there: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    _, codes = np.unique(clusters, return_inverse=True)
    scores = summary(values, EXISTENCE, codes, num_samples, seed)
    # Ratios and differences of means over the same resamples.
    hits, yes = (is_there * values[:, 2]), values[:, 2]
    parts = np.stack([2 * hits, yes + is_there, values[:, 1], values[:, 0]], axis=1)
    samples = cluster_bootstrap(parts, codes, num_samples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = samples[:, 0] / samples[:, 1]
        gap = samples[:, 2] - samples[:, 3]
    num_images, num_there = int(codes.max()) + 1, int(is_there.sum())
    total = float(parts[:, 1].sum())
    value = float(parts[:, 0].sum()) / total if total and num_there else None
    bounds = None if value is None else mean_interval(f1[:, None], [value], [num_images])
    scores["f1"] = _in_percent(value, len(values), bounds)
    claims = scores["true_claims"], scores["false_claims"]
    scores["told_apart"] = _told_apart(*claims, interval(100 * gap, num_images))
    return {
        "num_present": num_there,
        "num_absent": len(values) - num_there,
        "num_images": num_images,
        "scores": scores,
    }


def _told_apart(
    true: Mapping[str, Any], false: Mapping[str, Any], resampled: tuple[float, float] | None
) -> dict[str, Any]:
    """One share minus the other, in percent; `resampled` are the bounds that resamples give."""
    count = true["count"] + false["count"]
    if resampled is None or not (true["interval"] and false["interval"]):
        both = None in (true["value"], false["value"])
        return scored(None if both else true["value"] - false["value"], count)
    value = true["value"] - false["value"]
    low, high = resampled
    if any(
        min(each["value"], 100 - each["value"]) * each["count"] < 100 * FEWEST_HITS
        for each in (true, false)
    ):
        # Resamples know too little of a share near its end, and its own bounds more: they are put
        # together by the distances (Zou and Donner 2008), as in `mean_interval`.
        (true_low, true_high), (false_low, false_high) = true["interval"], false["interval"]
        below = np.hypot(true["value"] - true_low, false_high - false["value"])
        above = np.hypot(true_high - true["value"], false["value"] - false_low)
        low = max(-100.0, min(low, value - float(below)))
        high = min(100.0, max(high, value + float(above)))
    return scored(value, count, (low, high))


def _in_percent(
    value: float | None, count: int, bounds: tuple[float, float] | None
) -> dict[str, Any]:
    if bounds is not None:
        bounds = 100 * bounds[0], 100 * bounds[1]
    return scored(None if value is None else 100 * value, count, bounds)


def existence_sentence(found: Mapping[str, Any]) -> str:
    """`existence` in words."""
    part = found["all"]
    scores = part["scores"]

    def told(name: str) -> str:
        value, bounds = scores[name]["value"], scores[name]["interval"]
        if value is None:
            return "–"
        inside = f" (95 % interval {bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else ""
        return f"{value:.1f} %{inside}"

    sentence = (
        f"Asked whether a finding is there, it claims {told('false_claims')} of "
        f"{part['num_absent']} absent and {told('true_claims')} of {part['num_present']} present "
        f"ones, on {part['num_images']} images."
    )
    if scores["neither"]["value"]:
        sentence += f" {scores['neither']['value']:.1f} % of the answers are neither yes nor no."
    return sentence


# Does the answer change with the picture? Where the same question is asked of two pictures and has
# two right answers, one answer for both did not come from the picture. Greedy answers have no
# chance in them: what differs, differs because of the picture, and no floor has to be taken off.


def same_questions(
    pairing: Pairing, num_samples: int = 2000, seed: int = 0
) -> dict[str, Any] | None:
    """How often the same question gets another answer of a picture with another right answer.

    Questions with equal words and options, about different pictures, form pairs where their
    references differ. A wording weighs as often as it was asked.

    Returns:
        `changed` (in percent; the interval redraws pictures, and with them all their pairs;
        `count` is of questions), `num_pairs`, `num_wordings`, `num_images`. None without a pair.
    """
    cells: Counter[tuple[tuple[str, tuple[str, ...]], str, str, int]] = Counter()
    seen = Met()
    clusters = cluster_codes([question.cluster for question in pairing.questions])
    for question, answer, code in zip(
        pairing.questions, pairing.answers, clusters.tolist(), strict=True
    ):
        text = (question.text.strip(), question.options)
        if answer is None or not question.images or not seen.add((text, question.images)):
            continue
        said, right = said_and_right(question, answer)
        cells[text, right, said, code] += 1
    references: dict[Any, set[str]] = {}
    for text, right, _, _ in cells:
        references.setdefault(text, set()).add(right)
    cells = Counter({key: n for key, n in cells.items() if len(references[key[0]]) > 1})
    if not cells:
        return None
    _, images = np.unique([key[3] for key in cells], return_inverse=True)
    counts = np.array(list(cells.values()), dtype=np.float64)
    texts, of_right, of_said, of_both = (
        _codes(each)
        for each in zip(
            *((t, (t, right), (t, said), (t, right, said)) for t, right, said, _ in cells),
            strict=True,
        )
    )

    def squares(weights: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each text the sum of the squared sizes of its groups, (texts,)."""
        sizes = np.bincount(codes, weights)
        of_text = np.zeros(len(sizes), dtype=np.int64)
        of_text[codes] = texts
        sums = np.bincount(of_text, sizes**2, minlength=int(texts.max()) + 1)
        return sums.astype(np.float64, copy=False)

    def changed(weights: NDArray[np.float64]) -> tuple[float, float]:
        """The share of pairs that differ, and how many pairs there are."""
        asked = np.bincount(texts, weights)
        pairs = (asked**2 - squares(weights, of_right)) / 2
        alike = (squares(weights, of_said) - squares(weights, of_both)) / 2
        there = pairs > 0
        if not there.any():
            return float("nan"), 0.0
        shares = 1 - alike[there] / pairs[there]
        return float(np.average(shares, weights=asked[there])), float(pairs.sum())

    value, num_pairs = changed(counts)
    num_images = int(images.max()) + 1
    if num_images >= _MANY_CLUSTERS:
        num_samples = min(num_samples, _NUM_SAMPLES_OF_MANY)
    generator = np.random.default_rng(seed)
    samples = np.empty((num_samples, 1))
    for sample in samples:
        drawn = np.bincount(generator.integers(0, num_images, num_images), minlength=num_images)
        sample[0], _ = changed(counts * drawn[images])
    bounds = mean_interval(samples, [value], [num_images])
    return {
        "changed": _in_percent(value, int(counts.sum()), bounds),
        "num_pairs": int(num_pairs),
        "num_wordings": len(np.unique(texts)),
        "num_images": num_images,
    }


def _codes(values: Iterable[Any]) -> NDArray[np.int64]:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in values], dtype=np.int64)


def same_questions_sentence(found: Mapping[str, Any]) -> str:
    """`same_questions` in words."""
    score = found["changed"]
    bounds = score["interval"]
    inside = f" (95 % interval {bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else ""
    return (
        f"Where the same words are asked of two images with different right answers, its answers "
        f"differ in {score['value']:.1f} %{inside}: {score['count']} questions in "
        f"{found['num_wordings']} wordings on {found['num_images']} images; a model that "
        "never looks has 0 %."
    )
