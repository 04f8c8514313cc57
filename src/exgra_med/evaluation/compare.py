"""Two runs on the same questions: what can be told apart, and what cannot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.prepared import open_prepared
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.paired import HEADLINES, paired_difference
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predictions import Prediction, read_predictions
from exgra_med.evaluation.questions import Question, question_of, read_reference
from exgra_med.evaluation.results import headline_dataset, read_results
from exgra_med.evaluation.run_folder import (
    answered_datasets,
    answered_questions,
    predictions_path,
)
from exgra_med.evaluation.score import as_scorer, summary
from exgra_med.evaluation.scorers import MEASURES, ScorerName, score_items
from exgra_med.evaluation.statistics import (
    cluster_codes,
    holm,
    mcnemar,
    paired_permutation,
    smallest_difference,
)
from exgra_med.evaluation.statistics_input import check_count

LABELS = {
    "average": "average of open recall and closed accuracy",
    "open_recall": "open recall",
    "closed_accuracy": "closed accuracy",
}
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
        `rows`, one a measure: `first, second, difference, interval, p, p_holm, conclusion, ...`.

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
    one, other = (score_items(pairing, scorer).values for pairing in pairings)
    scores = [summary(each, clusters, 0, seed, scorer)["metrics"] for each in (one, other)]
    difference = paired_difference(one, other, clusters, num_bootstrap_samples, seed)
    rows: list[dict[str, Any]] = []
    for name, label in LABELS.items():
        if difference[name] is None:
            continue
        row: dict[str, Any] = {
            "measure": name,
            "label": label,
            "first": scores[0][HEADLINES.get(name, name)],
            "second": scores[1][HEADLINES.get(name, name)],
            "difference": difference[name],
            "interval": difference["intervals"][name],
            "p": paired_permutation(_contributions(one - other, name), clusters, _NUM_FLIPS, seed),
        }
        if name == "closed_accuracy":
            row |= _discordant(one, other)
        rows.append(row)
    conclude(rows)
    return {
        "schema_version": 1,
        "scorer": scorer,
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
        row["smallest_visible_difference"] = _visible(row["interval"])
        row["conclusion"] = _conclusion(row)


def compare_stored(
    first: str | Path,
    second: str | Path,
    reference: str | Path | None = None,
    scorer: ScorerName = "strict",
    *,
    data_folder: str | None = None,
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
        seed: of resamples and permutations.

    Raises:
        ScoreError: nothing says which questions were asked, or the runs answered different data.
        RunError: a folder is no run.
        DataError: a file is missing or malformed.
    """
    first, second = Path(first), Path(second)
    for path in (first, second):
        if not path.exists():
            raise ScoreError(f"There is no {path}.", "Name a run folder or a file of answers.")
    if reference is not None:
        questions = read_reference(Path(reference)).questions
        dataset = _common_dataset(first, second) if first.is_dir() and second.is_dir() else ""
    else:
        runs = [path for path in (first, second) if path.is_dir()]
        if not runs:
            raise ScoreError(
                f"{first} is a file, and nothing says which questions it answers.",
                "Name the reference as third argument.",
            )
        dataset = _common_dataset(runs[0], runs[-1], data_folder)
        questions = _questions(runs, dataset, data_folder)
    answers = [
        read_predictions(predictions_path(path, dataset) if path.is_dir() else path).predictions
        for path in (first, second)
    ]
    return compare(answers[0], answers[1], questions, scorer, seed=seed)


def _common_dataset(first: Path, second: Path, data_folder: str | None = None) -> str:
    """The data set that was named, else the only common one, else the headline of both."""
    names = [answered_datasets(run) for run in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    named = None if data_folder is None else open_prepared(data_folder).manifest["dataset"]
    if named is not None:
        wanted = named
    elif len(common) == 1:
        wanted = common[0]
    else:
        headlines = {headline_dataset(read_results(run)) for run in (first, second)}
        wanted = headlines.pop() if len(headlines) == 1 else None
    if wanted in common:
        return str(wanted)
    what = f"; {named} is not one of them" if named else ""
    raise ScoreError(
        f"The runs have {len(common)} data sets in common: {names[0]} against {names[1]}{what}.",
        "Name one of them with --data PREPARED_FOLDER."
        if common
        else "Let both answer the same one: exgra-med evaluate vqa RUN --on PREPARED_FOLDER.",
    )


def _questions(runs: Sequence[Path], dataset: str, data_folder: str | None) -> list[Question]:
    """From whichever run still finds them, so that the order of the runs decides nothing."""
    problem: DataError | None = None
    for run in runs:
        try:
            records = answered_questions(run, dataset, data_folder).records
        except DataError as error:
            problem = problem or error
        else:
            return [question_of(record) for record in records]
    raise ScoreError(
        f"The questions of {dataset} are not at hand: {problem.message if problem else ''}",
        "Give the prepared folder with --data.",
    )


def _contributions(differences: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """What each question adds to the difference of a measure; sums to it."""
    parts = []
    for measure in HEADLINES.values() if name == "average" else [HEADLINES[name]]:
        column = differences[:, MEASURES.index(measure)]
        parts.append(column / (~np.isnan(column)).sum())
    return np.nansum(parts, axis=0)


def _discordant(one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    column = MEASURES.index("closed_accuracy")
    first, second = one[:, column], other[:, column]
    only_first = int(((first == 1) & (second == 0)).sum())
    only_second = int(((first == 0) & (second == 1)).sum())
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p_mcnemar": mcnemar(only_first, only_second),
    }


def _visible(bounds: list[float] | None) -> float | None:
    return None if bounds is None else smallest_difference((bounds[1] - bounds[0]) / (2 * 1.96))


def _conclusion(row: dict[str, Any]) -> str:
    if row["p_holm"] >= _LEVEL:
        return "cannot be told apart"
    better = "first" if row["difference"] > 0 else "second"
    return f"the {better} run is better, by {abs(row['difference']):.1f} points"
