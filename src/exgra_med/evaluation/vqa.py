"""Stored answers of a run -> `results.json`: both scorers, and the floors beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exgra_med.data.prepared import Prepared
from exgra_med.data.record import Record
from exgra_med.evaluation.floors import floor_predictions
from exgra_med.evaluation.leaks import score_clean
from exgra_med.evaluation.paired import paired_difference
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predict import stored_template
from exgra_med.evaluation.predictions import Prediction, read_predictions
from exgra_med.evaluation.questions import Question, question_of
from exgra_med.evaluation.results import update_dataset_results, vqa_section
from exgra_med.evaluation.run_folder import answers_path
from exgra_med.evaluation.score import leave_out, score_vqa, summary
from exgra_med.evaluation.scorers import ScorerName, score_items
from exgra_med.evaluation.statistics import cluster_codes

RUN_SCORERS: tuple[ScorerName, ...] = ("strict", "legacy")
_FLOOR_MEASURES = {
    "average": "average",
    "open_recall": "recall",
    "closed_accuracy": "closed_accuracy",
}


def score_run(
    run: Path,
    dataset: str,
    records: Sequence[Record],
    train_records: Sequence[Record] = (),
    *,
    split: str = "test",
    apart: bool = False,
    own: bool = False,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    data_fingerprint: str | None = None,
    data_folder: str | None = None,
) -> dict[str, Any]:
    """Score stored answers of a run: sections `vqa`, `floors` and `leaks` of `results.json`.

    Scores of another data set stay as they are; see `update_dataset_results`.

    Args:
        run: the run folder.
        dataset: name of its answer file, without the ending.
        records: the questions that were answered.
        train_records: questions of training; give floors, candidates, and seen answers.
        split: name of the split, for the report.
        apart: the split is not the recipe's own: its sections are put below `other_splits.<split>`,
            and the headline stays.
        own: the data set is the recipe's own, and takes the headline.
        num_bootstrap_samples: resamples of images behind each interval.
        seed: of the resamples.
        data_fingerprint: sha256 of the prepared folder's manifest, for the report.
        data_folder: the prepared folder, where reports and comparisons find the questions.

    Returns:
        The whole results.
    """
    file = answers_path(run, dataset, split, apart=apart)
    answers = read_predictions(file)
    questions = [question_of(record) for record in records]
    train = [question_of(record) for record in train_records]
    oddities = {
        "prediction_not_text": answers.num_not_text,
        "torn_last_line": int(answers.torn_last_line),
    }
    candidates: list[str | int] = sorted(
        {question.answer for question in train if question.answer_type == "OPEN"}
    )
    sections: dict[str, Any] = {
        "vqa": {
            "dataset": dataset,
            "split": split,
            "num_train_questions": len(train),
            "data_fingerprint": data_fingerprint,
            "data_folder": data_folder,
            "template": stored_template(file),
        }
    }
    for scorer in RUN_SCORERS:
        score = score_vqa(
            answers.predictions,
            questions,
            scorer,
            candidates=candidates or None,
            train_answers=[question.answer for question in train] or None,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            oddities=oddities,
        )
        sections["vqa"] |= vqa_section(score)["vqa"]
    sections["floors"] = score_floors(
        train, questions, num_bootstrap_samples, seed, model=answers.predictions
    )
    if train:
        sections["leaks"] = score_clean(
            answers.predictions, train, questions, num_bootstrap_samples, seed
        )
    return update_dataset_results(run, dataset, sections, own=own, apart=split if apart else None)


def score_folder_floors(
    prepared: Prepared, split: str = "test", train_split: str = "train", seed: int = 0
) -> dict[str, Any]:
    """What a prepared folder's questions are worth without a model; see `score_floors`.

    Args:
        prepared: the folder.
        split: whose questions are answered.
        train_split: whose answers are known.
        seed: of the resamples.

    Raises:
        DataError: the folder has no such split.
    """
    train = [question_of(record) for record in prepared.iterate(train_split)]
    test = [question_of(record) for record in prepared.iterate(split)]
    return score_floors(train, test, seed=seed)


def score_floors(
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    model: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """Floor -> scorer -> average, open recall and closed accuracy in percent, with intervals.

    Args:
        train: training questions.
        test: the questions that were asked.
        num_bootstrap_samples: resamples behind each interval.
        seed: of the resamples.
        model: a model's answers; adds `model_minus_floor`, question by question (strict).
    """
    result: dict[str, Any] = {}
    clusters = cluster_codes([question.cluster for question in test])
    own = None
    if model:
        own = score_items(pair(list(model), list(test)), "strict", with_bleu=False).values
    for name, predictions in floor_predictions(train, test).items():
        result[name] = {}
        pairing = pair(predictions, list(test))
        for scorer in RUN_SCORERS:
            values = score_items(pairing, scorer, with_bleu=False).values
            if own is not None and scorer == "strict":
                result[name]["model_minus_floor"] = paired_difference(
                    own, values, clusters, num_bootstrap_samples, seed
                )
            leave_out(values, test, scorer)
            score = summary(values, clusters, num_bootstrap_samples, seed, scorer)
            result[name][scorer] = {
                shown: score["metrics"][key] for shown, key in _FLOOR_MEASURES.items()
            }
            result[name][scorer]["intervals"] = {
                shown: score["intervals"][key] for shown, key in _FLOOR_MEASURES.items()
            }
    return result
