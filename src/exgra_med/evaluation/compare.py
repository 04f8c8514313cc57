"""Two runs on the same questions: what can be told apart, and what cannot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import file_sha256, open_prepared
from exgra_med.digests import read_document
from exgra_med.errors import DamagedFileError, DataError, ExgraMedError, RunError, ScoreError
from exgra_med.evaluation.answers import (
    Pairing,
    Prediction,
    Question,
    pair,
    pairing_facts,
    pairing_sentences,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.engines import read_facts
from exgra_med.evaluation.measures import (
    Measure,
    PairedValues,
    ScorerName,
    as_scorer,
    measures,
    paired,
    parts_of,
    with_functions,
)
from exgra_med.evaluation.results import Entry, read_results, rules_text
from exgra_med.evaluation.score import counts_of, versions_of
from exgra_med.evaluation.session import answered_questions, answers_file, read_recipe
from exgra_med.evaluation.statistics import (
    PairedTest,
    cluster_codes,
    holm,
    mcnemar,
    smallest_difference,
)
from exgra_med.recipe.run_folder import RECORD, differing_values

LEVEL = 0.05
RULE = (
    "Two runs are told apart where p, adjusted by Holm over the table, is below "
    f"{LEVEL}. The interval is what the same test does not refuse, at the level that the "
    f"adjustment leaves it ({1 - LEVEL:.0%} for all rows together), so it leaves 0 out just then."
)
Verdict = Literal["first", "second", "same", "open"]
"""Which run is better; `same` where they cannot be told apart, `open` where missing answers could
turn what is said."""
_NO_DIFFERENCE = {"name", "description"}
"""Of a recipe what decides nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure of two runs."""

    measure: Measure
    first: float
    """Mean over the questions that both answered, as shown."""
    second: float
    count: int
    """Questions that both answered and that count."""
    test: PairedTest
    """First minus second, from -1 to 1."""
    edges: tuple[PairedTest, PairedTest]
    """The same with missing answers at their worst for the first run, and at their best."""
    closed: dict[str, Any] = field(default_factory=dict)
    """For a closed measure, the two counts of discordant questions and McNemar's p-value."""


@dataclass(frozen=True)
class Comparison:
    """Two sets of answers to the same questions; `conclude` says what follows."""

    names: tuple[str, str]
    scorer: ScorerName
    pairings: tuple[Pairing, Pairing]
    measured: list[Measured]
    values: PairedValues
    num_images: int
    """Of the questions that both answered (groups of them that share no image)."""
    files: tuple[Path | None, Path | None] = (None, None)
    images: ImageFolder | None = None
    """Pictures of the questions, where they are at hand."""
    differing: list[tuple[str, Any, Any]] = field(default_factory=list)
    """Of recipes and of how the answers were made: path, value of the first, of the second."""
    notes: list[str] = field(default_factory=list)

    @property
    def basis(self) -> list[dict[str, Any]]:
        """For each run its counts (see `answer_counts`), `answered`, `file` and `sha256`."""
        found = []
        for name, pairing, file in zip(self.names, self.pairings, self.files, strict=True):
            counts = counts_of(pairing)
            found.append(
                {"name": name}
                | counts
                | {
                    "answered": counts["questions"] - counts["missing"],
                    "file": None if file is None else _shown_file(file),
                    "sha256": None if file is None else file_sha256(file),
                }
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """What has to be said before any number: questions that a run did not answer."""
        total, both = len(self.values.both), int(self.values.both.sum())
        lacking = [
            f"{name} has no usable answer to {int(missing.sum())} of {total} questions."
            for name, missing in zip(self.names, self.values.missing, strict=True)
            if missing.any()
        ]
        return [*lacking, f"Compared are the {both} that both answered."] if lacking else []

    @property
    def disagreements(self) -> list[int]:
        """Questions that both answered and that score differently, the largest difference first."""
        sizes = np.nan_to_num(np.abs(self.values.answered)).max(axis=1)
        rows = sorted(range(len(sizes)), key=lambda row: -sizes[row])
        return [row for row in rows if sizes[row] > 0]

    @property
    def num_other_words(self) -> int:
        """Questions with equal scores of different answers, such as two that are both wrong."""
        differ = set(self.disagreements)
        said = zip(*(each.answers for each in self.pairings), strict=True)
        return sum(
            None not in both and both[0].strip() != both[1].strip() and row not in differ
            for row, both in enumerate(said)
        )

    def disagreement(self, row: int) -> dict[str, Any]:
        """One question with both answers and their scores from 0 to 1, JSON-ready."""
        question = self.pairings[0].questions[row]
        told: dict[str, Any] = {
            "id": question.id,
            "question": question.text,
            "reference": question.answer,
            "images": list(question.images),
        }
        sides = zip(("first", "second"), self.pairings, (self.values.first, self.values.second),
                    strict=True)  # fmt: skip
        for side, pairing, values in sides:
            told[side] = pairing.answers[row]
            told[f"{side}_score"] = float(np.nanmean(values[row]))
        return told


def _shown_file(file: Path) -> str:
    """A file of answers as its run names it; one outside a run by its name."""
    parts = file.parts
    inside = parts.index("predictions") if "predictions" in parts[:-1] else len(parts) - 1
    return "/".join(parts[inside:])


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    questions: Sequence[Question],
    scorer: ScorerName = "strict",
    *,
    names: tuple[str, str] = ("the first run", "the second run"),
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two sets of answers question by question.

    Questions that both answered are compared. The p-value of each row is from a permutation test
    that swaps the two runs for all questions of an image at once; Holm's adjustment runs over the
    rows, and the interval is of the same test at the same level. For closed questions the exact
    McNemar p-value stands beside it; it takes questions about one image as independent.

    Args:
        first: answers of the first run.
        second: answers of the second run.
        questions: the questions both were asked.
        scorer: `strict` or `legacy`; the PathVQA rule drops different questions for each run.
        names: how the runs are called in words.
        seed: of the permutations.

    Returns:
        `runs`, their names; `basis`, for each run the counts of its answers; `rows`, one a measure
        shown in comparisons: `first, second, difference, interval, p, p_holm, verdict, conclusion,
        with_missing, ...`; `disagreements`; `scorer_version` and `normaliser_version` of the rules
        that scored both.

    Raises:
        ScoreError: answers and questions do not fit, nothing was answered by both, or the scorer
            cannot be compared.
    """
    comparison = _measure(first, second, questions, scorer, names, seed)
    return told(comparison, conclude([comparison])[0])


def told(comparison: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A comparison with its rows of `conclude`, JSON-ready; see `compare`."""
    names = ("path", "first", "second")
    return {
        "schema_version": 2,
        "runs": list(comparison.names),
        "scorer": comparison.scorer,
        **versions_of(comparison.scorer),
        "num_questions": len(comparison.values.both),
        "num_compared": int(comparison.values.both.sum()),
        "num_images": comparison.num_images,
        "missing": [int(each.sum()) for each in comparison.values.missing],
        "basis": comparison.basis,
        "warnings": comparison.warnings,
        "level": LEVEL,
        "rule": RULE,
        "rows": rows,
        "differing": [dict(zip(names, each, strict=True)) for each in comparison.differing],
        "disagreements": [comparison.disagreement(row) for row in comparison.disagreements],
        "num_other_words": comparison.num_other_words,
        "notes": comparison.notes,
    }


def _measure(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    questions: Sequence[Question],
    scorer: ScorerName,
    names: tuple[str, str],
    seed: int,
) -> Comparison:
    scorer = as_scorer(scorer)
    if scorer == "legacy-pathvqa":
        raise ScoreError(
            "legacy-pathvqa drops other questions for every run, so runs cannot be compared by it.",
            "Use --scorer strict or legacy.",
        )
    asked = list(questions)
    one, other = (pair(answers, asked) for answers in (first, second))
    chosen = measures("compare")
    columns = with_functions(chosen)
    values = PairedValues.of(one, other, scorer, columns)
    if not values.both.any():
        raise ScoreError(
            f"{names[0]} and {names[1]} have no question that both answered.",
            "Let both answer the same questions.",
        )
    clusters = cluster_codes(question.cluster for question in asked)
    tests = paired(values.answered, chosen, clusters, seed)
    edges = (tests, tests)
    if not values.both.all():
        low, high = (
            paired(each, chosen, clusters, seed) for each in (values.lowest, values.highest)
        )
        edges = low, high
    counted = ~np.isnan(values.answered)
    means = [
        np.where(counted, each, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
        for each in (values.first, values.second)
    ]
    places = {each.name: place for place, each in enumerate(columns)}
    measured = []
    for measure in chosen:
        if measure.name not in tests:
            continue
        parts = [places[name] for name in parts_of(measure)]
        ours, theirs = (float(measure.factor * each[parts].mean()) for each in means)
        measured.append(
            Measured(
                measure,
                ours,
                theirs,
                int(counted[:, parts].sum()),
                tests[measure.name],
                (edges[0][measure.name], edges[1][measure.name]),
                _discordant(values, places[measure.name]) if measure.of == "closed" else {},
            )
        )
    num_images = len(np.unique(clusters[values.both]))
    return Comparison(names, scorer, (one, other), measured, values, num_images)


def _discordant(values: PairedValues, place: int) -> dict[str, Any]:
    ours, theirs = (each[values.both, place] for each in (values.first, values.second))
    only_first = int(((ours == 1) & (theirs == 0)).sum())
    only_second = int(((ours == 0) & (theirs == 1)).sum())
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p_mcnemar": mcnemar(only_first, only_second),
    }


def conclude(comparisons: Sequence[Comparison]) -> list[list[dict[str, Any]]]:
    """The rows of each comparison, p-values adjusted by Holm over all of them together.

    A verdict stands where it is the same whatever the missing answers would have been.
    """
    everything = [each for one in comparisons for each in one.measured]
    families = [
        [each.test for each in everything],
        [each.edges[0] for each in everything],
        [each.edges[1] for each in everything],
    ]
    adjusted = [holm([test.p for test in family]) for family in families]
    rows = []
    number = 0
    for comparison in comparisons:
        own = []
        for each in comparison.measured:
            own.append(_row(comparison, each, [p[number] for p in adjusted], len(everything)))
            number += 1
        rows.append(own)
    return rows


def _row(
    comparison: Comparison, each: Measured, adjusted: Sequence[float], num_tests: int
) -> dict[str, Any]:
    measure, test, factor = each.measure, each.test, each.measure.factor
    # The level at which this test alone is what Holm's adjustment makes of it.
    share = test.p / adjusted[0] if adjusted[0] < 1 else 1 / num_tests
    bounds = test.interval(1 - LEVEL * share)
    verdicts = {
        _verdict(one, p, measure.higher_is_better)
        for one, p in zip((test, *each.edges), adjusted, strict=True)
    }
    verdict: Verdict = verdicts.pop() if len(verdicts) == 1 else "open"
    complete = bool(comparison.values.both.all())
    row: dict[str, Any] = {
        "measure": measure.name,
        "label": measure.label,
        "unit": measure.unit,
        "higher_is_better": measure.higher_is_better,
        "count": each.count,
        "first": each.first,
        "second": each.second,
        "difference": factor * test.value,
        "interval": None if bounds is None else [factor * edge for edge in bounds],
        "p": test.p,
        "p_holm": adjusted[0],
        "smallest_visible_difference": smallest_difference(factor * test.error)
        if test.error
        else None,
        "with_missing": None
        if complete
        else {
            name: {"difference": factor * edge.value, "p": edge.p, "p_holm": p}
            for name, edge, p in zip(("lowest", "highest"), each.edges, adjusted[1:], strict=True)
        },
        **each.closed,
        "verdict": verdict,
    }
    return row | {"conclusion": _words(row, comparison.names)}


def _verdict(test: PairedTest, p_holm: float, higher_is_better: bool) -> Verdict:
    if p_holm >= LEVEL:
        return "same"
    return "first" if (test.value > 0) == higher_is_better else "second"


def _words(row: dict[str, Any], names: tuple[str, str]) -> str:
    unit = " points" if row["unit"] == "%" else ""
    if row["verdict"] == "open":
        low, high = (row["with_missing"][name]["difference"] for name in ("lowest", "highest"))
        return (
            f"no verdict: with the missing answers the difference could be anything from "
            f"{low:+.1f} to {high:+.1f}{unit}".replace("-", "−")
        )
    if row["verdict"] == "same":
        return "cannot be told apart"
    better = names[0] if row["verdict"] == "first" else names[1]
    return f"{better} is better, by {abs(row['difference']):.1f}{unit}"


def compare_stored(
    first: str | Path,
    second: str | Path,
    reference: str | Path | None = None,
    scorer: ScorerName = "strict",
    *,
    data_folder: str | None = None,
    split: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two run folders, or two files of predictions with a reference; see `compare`.

    Args:
        first: run folder or file.
        second: run folder or file.
        reference: records or a JSON file of the original; needed for files.
        scorer: `strict` or `legacy`.
        data_folder: the prepared folder that was answered, where it moved since;
            of several common data sets it names one.
        split: of several common splits, one.
        seed: of the permutations.

    Raises:
        ScoreError: nothing says which questions were asked, or the runs answered different data.
        RunError: a folder is no run.
        DataError: a file is missing or malformed.

    Returns:
        As `compare`; `differing` has what differs between the runs' recipes and between the ways
        their answers were made, and `notes` which stored scores are by other versions of the rules.
    """
    comparison = stored_comparison(
        first, second, reference, scorer, data_folder=data_folder, split=split, seed=seed
    )
    return told(comparison, conclude([comparison])[0])


def stored_comparison(
    first: str | Path,
    second: str | Path,
    reference: str | Path | None = None,
    scorer: ScorerName = "strict",
    *,
    data_folder: str | None = None,
    split: str | None = None,
    seed: int = 0,
) -> Comparison:
    """As `compare_stored`, for `conclude`, so that several comparisons share one adjustment."""
    first, second = Path(first), Path(second)
    for path in (first, second):
        if not path.exists():
            raise ScoreError(f"There is no {path}.", "Name a run folder or a file of answers.")
    runs = [path for path in (first, second) if path.is_dir()]
    questions = None if reference is None else read_reference(Path(reference)).questions
    if not runs and questions is None:
        raise ScoreError(
            f"{first} is a file, and nothing says which questions it answers.",
            "Name the reference as third argument.",
        )
    found = _common_entry(runs, data_folder, split) if runs else []
    entries = dict(zip(runs, found, strict=True))
    images = None
    if questions is None:
        questions, images = _questions(entries, data_folder)
    files = [
        answers_file(path, entries[path]) if path in entries else path for path in (first, second)
    ]
    read = [read_predictions(file) for file in files]
    answers = [each.predictions for each in read]
    names = distinct_names([first, second])
    named = (names[0], names[1])
    comparison = _measure(answers[0], answers[1], questions, scorer, named, seed)
    joined = [
        f"{name}: {sentence}"
        for name, file, pairing in zip(names, read, comparison.pairings, strict=True)
        if file.tool or pairing.joined_by != "id"
        for sentence in pairing_sentences(pairing_facts(pairing), file.tool)
    ]
    return replace(
        comparison,
        files=(files[0], files[1]),
        images=images,
        differing=_differing(first, second, files[0], files[1]),
        notes=[*joined, *_other_data(names, entries), *_rescored(entries, scorer)],
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """How runs or files are called: the shortest ends of their paths that differ.

    >>> distinct_names([Path("a/run"), Path("b/run")]), distinct_names([Path("x/a"), Path("x/b")])
    (['a/run', 'b/run'], ['a', 'b'])
    """
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):  # one run twice
        return [path.name for path in paths]
    length = 1
    while len({each[-length:] for each in parts}) < len(parts):
        length += 1
    return ["/".join(each[-length:]) for each in parts]


def _differing(
    first: Path, second: Path, first_file: Path, second_file: Path
) -> list[tuple[str, Any, Any]]:
    """What differs in the recipes of two runs, in the data they trained on, then in how their
    answers were made."""
    found = []
    if first.is_dir() and second.is_dir():
        recipes = (read_recipe(first), read_recipe(second))
        found = [each for each in differing_values(*recipes) if each[0] not in _NO_DIFFERENCE]
        data = [_trained_on(run) for run in (first, second)]
        found += [
            (f"training data: {path}", old, new)
            for path, old, new in differing_values(data[0], data[1])
            # The recipes say where it lies; a folder that moved is the same data.
            if not path.endswith("folder")
        ]
    made = read_facts(first_file), read_facts(second_file)
    if all(made):
        found += [(f"answers: {path}", old, new) for path, old, new in differing_values(*made)]
    return found


def _trained_on(run: Path) -> dict[str, Any]:
    """What the record of a run says of its data; nothing where there is no whole record."""
    try:
        found = read_document(run / RECORD).get("data")
    except (DataError, RunError):
        return {}
    return found if isinstance(found, dict) else {}


def _other_data(names: Sequence[str], entries: dict[Path, Entry]) -> Iterator[str]:
    """Says so where the runs answered different states of a data set of one name."""
    prints = [entry.data_fingerprint for entry in entries.values()]
    if len(prints) == 2 and None not in prints and prints[0] != prints[1]:
        label = next(iter(entries.values())).label
        yield (
            f"The two answered different versions of {label} (sha256 of the manifest "
            f"{str(prints[0])[:12]} for {names[0]}, {str(prints[1])[:12]} for {names[1]}); "
            "questions are joined by id."
        )


def _rescored(entries: dict[Path, Entry], scorer: ScorerName) -> Iterator[str]:
    """Which runs were scored by other rules before; the comparison scores both anew."""
    scorer_version, normaliser_version = versions_of(scorer).values()
    now = (scorer_version, normaliser_version)
    for run, entry in entries.items():
        then = entry.rules(scorer)
        if then is not None and then != now:
            yield (
                f"{run.name} was scored by {rules_text(then)}; here both runs are scored by "
                f"{rules_text(now)}."
            )


def _common_entry(runs: Sequence[Path], data_folder: str | None, split: str | None) -> list[Entry]:
    """The same data set and split of every run: the one that was named, or the only common one."""
    named = None if data_folder is None else open_prepared(data_folder).manifest["dataset"]
    found = [
        {(each.dataset, each.split): each for each in read_results(run).find("vqa", named, split)}
        for run in runs
    ]
    common = [key for key in found[0] if all(key in entries for entries in found)]
    if len(common) == 1:
        return [entries[common[0]] for entries in found]
    texts = [", ".join("/".join(key) for key in entries) or "nothing" for entries in found]
    wanted = f" of {named}" if named else ""
    raise ScoreError(
        f"The runs have {len(common)} scored splits{wanted} in common: {' against '.join(texts)}.",
        "Name one of them with --data PREPARED_FOLDER and --split."
        if common
        else "Let both answer the same one: exgra-med evaluate vqa RUN --data PREPARED_FOLDER.",
    )


def _questions(
    entries: dict[Path, Entry], data_folder: str | None
) -> tuple[Sequence[Question], ImageFolder]:
    """From whichever run still finds them, so that the order of the runs decides nothing."""
    problem: ExgraMedError | None = None
    for run, entry in entries.items():
        try:
            return answered_questions(run, entry, data_folder)
        except (DataError, DamagedFileError) as error:
            problem = problem or error
    dataset = next(iter(entries.values())).label
    raise ScoreError(
        f"The questions of {dataset} are not at hand: {problem.message if problem else ''}",
        "Give the prepared folder with --data.",
    )
