"""Two runs on the same questions: what can be told apart, and what cannot."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import (
    Prediction,
    Question,
    pair,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.results import Entry, read_results, rules_text
from exgra_med.evaluation.score import (
    Measure,
    ScorerName,
    as_scorer,
    item_values,
    measures,
    parts_of,
    summary,
    versions_of,
    with_functions,
)
from exgra_med.evaluation.session import answered_questions, stored_answers
from exgra_med.evaluation.statistics import (
    check_count,
    cluster_codes,
    holm,
    mcnemar,
    paired_permutation,
    smallest_difference,
)

_NUM_FLIPS = 10_000
_LEVEL = 0.05


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    questions: Sequence[Question],
    scorer: ScorerName = "strict",
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two sets of answers question by question.

    The p-value of each row is from a permutation test that swaps the two runs for all questions of
    an image at once; Holm's adjustment runs over the rows. For closed questions the exact McNemar
    p-value stands beside it; it takes questions about one image as independent.

    Args:
        first: answers of the first run.
        second: answers of the second run.
        questions: the questions both were asked.
        scorer: `strict` or `legacy`; the PathVQA rule drops different questions for each run.
        num_bootstrap_samples: resamples of the paired bootstrap; 0 for no intervals.
        seed: of resamples and permutations.

    Returns:
        `rows`, one a measure shown in comparisons: `first, second, difference, interval, p, p_holm,
        conclusion, ...`; `scorer_version` and `normaliser_version` of the rules that scored both.

    Raises:
        ScoreError: answers and questions do not fit, the scorer cannot be compared, or a negative
            number of resamples.
    """
    scorer = as_scorer(scorer)
    check_count(num_bootstrap_samples, "num_bootstrap_samples")
    if scorer == "legacy-pathvqa":
        raise ScoreError(
            "legacy-pathvqa drops other questions for every run, so runs cannot be compared by it.",
            "Use --scorer strict or legacy.",
        )
    asked = list(questions)
    clusters = cluster_codes([question.cluster for question in asked])
    pairings = [pair(list(answers), asked) for answers in (first, second)]
    chosen = measures("compare")
    columns = with_functions(chosen)
    one, other = (item_values(pairing, scorer, columns) for pairing in pairings)
    scores = [summary(each, chosen, clusters, 0, seed) for each in (one, other)]
    differences = summary(one - other, chosen, clusters, num_bootstrap_samples, seed)
    rows: list[dict[str, Any]] = []
    for measure in chosen:
        difference = differences[measure.name]
        if difference["value"] is None:
            continue
        parts = _contributions(one - other, measure, columns)
        row: dict[str, Any] = {
            "measure": measure.name,
            "label": measure.label,
            "unit": measure.unit,
            "higher_is_better": measure.higher_is_better,
            "first": scores[0][measure.name]["value"],
            "second": scores[1][measure.name]["value"],
            "difference": difference["value"],
            "interval": difference["interval"],
            "p": paired_permutation(parts, clusters, _NUM_FLIPS, seed),
        }
        if measure.of == "closed":
            place = columns.index(measure)
            ours, theirs = one[:, place], other[:, place]
            only_first = int(((ours == 1) & (theirs == 0)).sum())
            only_second = int(((ours == 0) & (theirs == 1)).sum())
            row |= {
                "only_first_right": only_first,
                "only_second_right": only_second,
                "p_mcnemar": mcnemar(only_first, only_second),
            }
        rows.append(row)
    conclude(rows)
    return {
        "schema_version": 1,
        "scorer": scorer,
        **versions_of(scorer),
        "num_questions": len(asked),
        "num_images": int(clusters.max()) + 1,
        "missing": [pairing.counts["missing"] for pairing in pairings],
        "level": _LEVEL,
        "rows": rows,
    }


def conclude(rows: Sequence[dict[str, Any]]) -> None:
    """Adjust the p-values of a whole table by Holm and say in words what follows, in place."""
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        bounds = row["interval"]
        row["smallest_visible_difference"] = (
            None if bounds is None else smallest_difference((bounds[1] - bounds[0]) / (2 * 1.96))
        )
        better = "first" if (row["difference"] > 0) == row["higher_is_better"] else "second"
        points = f"{abs(row['difference']):.1f}" + (" points" if row["unit"] == "%" else "")
        row["conclusion"] = f"the {better} run is better, by {points}"
        if adjusted >= _LEVEL:
            row["conclusion"] = "cannot be told apart"


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
        seed: of resamples and permutations.

    Raises:
        ScoreError: nothing says which questions were asked, or the runs answered different data.
        RunError: a folder is no run.
        DataError: a file is missing or malformed.

    Returns:
        As `compare`, and `notes`: runs whose stored scores are by other versions of the rules.
    """
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
    if questions is None:
        questions = _questions(entries, data_folder)
    answers = [
        stored_answers(path, entries[path])
        if path in entries
        else read_predictions(path).predictions
        for path in (first, second)
    ]
    result = compare(answers[0], answers[1], questions, scorer, seed=seed)
    return result | {"notes": [*_rescored(entries, scorer)]}


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


def _questions(entries: dict[Path, Entry], data_folder: str | None) -> list[Question]:
    """From whichever run still finds them, so that the order of the runs decides nothing."""
    problem: DataError | None = None
    for run, entry in entries.items():
        try:
            return answered_questions(run, entry, data_folder)[0]
        except DataError as error:
            problem = problem or error
    dataset = next(iter(entries.values())).label
    raise ScoreError(
        f"The questions of {dataset} are not at hand: {problem.message if problem else ''}",
        "Give the prepared folder with --data.",
    )


def _contributions(
    differences: NDArray[np.float64], measure: Measure, columns: Sequence[Measure]
) -> NDArray[np.float64]:
    """What each question adds to the difference of a measure; sums to it."""
    places = {each.name: place for place, each in enumerate(columns)}
    wanted = (differences[:, places[name]] for name in parts_of(measure))
    return np.nansum([column / (~np.isnan(column)).sum() for column in wanted], axis=0)
