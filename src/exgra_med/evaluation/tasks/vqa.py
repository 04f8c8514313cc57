"""Visual question answering: greedy answers to short questions, by the strict and published rules.

Beside the scores stand those of baselines that never look, and what of the test questions the
data set's own training split has.
"""

from collections.abc import Sequence
from typing import Any

from exgra_med.data.prepared import Prepared
from exgra_med.evaluation.answers import (
    Prediction,
    Question,
    pair,
    question_of,
    read_predictions,
)
from exgra_med.evaluation.baselines import baseline_predictions
from exgra_med.evaluation.measures import ScorerName, item_values, measures, with_functions
from exgra_med.evaluation.metrics.strict import words
from exgra_med.evaluation.results import Entry
from exgra_med.evaluation.score import paired_difference, score_vqa, summary
from exgra_med.evaluation.session import Session
from exgra_med.evaluation.statistics import cluster_codes
from exgra_med.evaluation.tasks import Task

NAME = "vqa"
SCORERS: tuple[ScorerName, ...] = ("strict", "legacy")


def evaluate(session: Session) -> Entry | None:
    """Answer the questions of a split, then score the answers.

    Returns:
        The entry; nothing in all but the first process of a launch.

    Raises:
        RunError: the folder holds answers made in another way.
    """
    session.ask(NAME, f"answers to {session.dataset}/{session.split}")
    return score(session) if session.is_first else None


def score(session: Session) -> Entry:
    """Score the stored answers of a session into `results.json`."""
    stored = read_predictions(session.path(NAME))
    prepared = session.prepared
    train: list[Question] = []
    if prepared is not None and "train" in prepared.splits:
        train = [question_of(record) for record in prepared.records("train")]
    details = score_answers(
        stored.predictions,
        [question_of(record) for record in session.records],
        train,
        num_bootstrap_samples=session.settings.num_bootstrap_samples,
        seed=session.seed,
        oddities=dict(stored.oddities),
    )
    scores = {name: part.pop("scores") for name, part in details["scorers"].items()}
    answers = {"questions": session.relative(session.path(NAME))}
    return session.keep(session.entry(NAME, scores=scores, answers=answers, details=details))


def score_answers(
    predictions: Sequence[Prediction],
    questions: Sequence[Question],
    train: Sequence[Question] = (),
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    oddities: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Score answers by every rule, beside the baselines.

    Args:
        predictions: answers, in any order.
        questions: the questions that were asked.
        train: questions of training; give baselines, known answers, and seen answers.
        num_bootstrap_samples: resamples of images behind each interval.
        seed: of the resamples.
        oddities: what the reader of the answers found.

    Returns:
        `scorers` (scorer -> result of `score_vqa`), `groups` of the strict one, `baselines`,
        `leaks` where there are training questions, and `num_train_questions`.
    """
    known = sorted({each.answer for each in train if each.answer_type == "OPEN"})
    scorers = {
        scorer: score_vqa(
            predictions,
            questions,
            scorer,
            candidates=list(known) or None,
            train_answers=[each.answer for each in train] or None,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            groups=scorer == "strict",
            oddities=oddities,
        )
        for scorer in SCORERS
    }
    details: dict[str, Any] = {
        "num_train_questions": len(train),
        "groups": scorers["strict"].pop("groups"),
        "scorers": scorers,
        "baselines": score_baselines(
            train, questions, num_bootstrap_samples, seed, model=predictions
        ),
    }
    if train:
        details["leaks"] = score_clean(predictions, train, questions, num_bootstrap_samples, seed)
    return details


def folder_baselines(
    prepared: Prepared, split: str = "test", train_split: str = "train", seed: int = 0
) -> dict[str, Any]:
    """What a prepared folder's questions are worth without a model; see `score_baselines`.

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
    return score_baselines(train, test, seed=seed)


def score_baselines(
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    model: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """Baseline -> `scores` by scorer, for the measures that comparisons show.

    Args:
        train: training questions.
        test: the questions that were asked.
        num_bootstrap_samples: resamples behind each interval.
        seed: of the resamples.
        model: a model's answers; adds `difference`, model minus baseline question by question
            (strict).
    """
    chosen = measures("compare")
    columns = with_functions(chosen)
    clusters = cluster_codes([question.cluster for question in test])
    arguments = (chosen, clusters, num_bootstrap_samples, seed)
    own = item_values(pair(list(model), list(test)), "strict", columns) if model else None
    result: dict[str, Any] = {}
    for name, predictions in baseline_predictions(train, test).items():
        pairing = pair(predictions, list(test))
        values = {scorer: item_values(pairing, scorer, columns) for scorer in SCORERS}
        result[name] = {
            "scores": {scorer: summary(each, *arguments) for scorer, each in values.items()}
        }
        if own is not None:
            result[name]["difference"] = paired_difference(own, values["strict"], *arguments)
    return result


def find_leaks(train: Sequence[Question], test: Sequence[Question]) -> dict[str, list[bool]]:
    """For each test question: is its image in training, its text, or both together.

    By names and texts only; `exgra-med data audit` also looks for images that look alike.

    Returns:
        `image`, `question_text`, `image_and_question`, each one value a test question.
    """
    images = {image for question in train for image in question.images}
    texts = {words(question.text) for question in train}
    pairs = {(image, words(question.text)) for question in train for image in question.images}
    return {
        "image": [any(image in images for image in each.images) for each in test],
        "question_text": [words(each.text) in texts for each in test],
        "image_and_question": [
            any((image, words(each.text)) in pairs for image in each.images) for each in test
        ],
    }


def score_clean(
    predictions: Sequence[Prediction],
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Counts of leaks, and the strict score on questions whose image training has not seen.

    Returns:
        `counts` by kind of leak, `num_questions`, and `clean`: `scores` of the measures that
        comparisons show, and counts; None where no question is clean.
    """
    leaks = find_leaks(train, test)
    clean = [each for each, leaked in zip(test, leaks["image"], strict=True) if not leaked]
    names = {each.id for each in clean}
    answered = [each for each in predictions if each.id in names]
    score = None
    if answered:
        score = score_vqa(
            answered,
            clean,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            groups=False,
            only=measures("compare"),
        )
    kept = ("scores", "num_open", "num_closed", "num_images")
    return {
        "num_questions": len(test),
        "counts": {name: sum(found) for name, found in leaks.items()},
        "clean": None if score is None else {name: score[name] for name in kept},
    }


_COUNTS = {
    "missing": "Questions without an answer (each scores 0)",
    "contradictory": "Questions with several different answers (each scores 0)",
    "extra": "Answers that belong to no question (left out)",
    "duplicate": "Ids that come more than once",
    "empty": "Empty answers",
}
_ODDITIES = {
    "answer_type_guessed": "Questions without an answer type (yes/no answers were taken as closed)",
    "answer_type_with_blanks": "Answer types with blanks around them",
    "pathvqa_answer_type": "Answer types of PathVQA (yes/no was taken as closed)",
    "empty_reference": "Empty reference answers",
    "reference_not_text": "Reference answers that are numbers (read as text)",
    "prediction_not_text": "Predictions that are numbers (read as text)",
    "only_first_turn_scored": "Records with several turns (the first one is scored)",
    "torn_last_line": "Incomplete last lines of the predictions (dropped)",
}


def count_notes(result: dict[str, Any], *, with_order: bool = True) -> list[str]:
    """One sentence for everything that was out of order in a result of `score_vqa`.

    Args:
        result: the result, or what results keep of it.
        with_order: whether it matters that the answers come in another order than the questions.
    """
    pairing, oddities = result["pairing"], result["oddities"]
    notes = [f"{text}: {pairing[key]}." for key, text in _COUNTS.items() if pairing.get(key)]
    if with_order and not pairing.get("same_order", True):
        notes.append("The answers come in another order than the questions; joined by id.")
    notes += [f"{text}: {oddities[key]}." for key, text in _ODDITIES.items() if key in oddities]
    closed = (result.get("scores") or {}).get("closed_accuracy") or {}
    dropped = result["num_closed"] - (closed.get("count") or 0)
    if result["scorer"] == "legacy-pathvqa" and dropped:
        notes.append(f"Wrong closed answers that the published script drops: {dropped}.")
    if result.get("left_out_by_published_rule"):
        skipped = result["left_out_by_published_rule"]
        notes.append(f"Questions that the published script skips: {skipped}.")
    return notes


def _notes(entry: Entry) -> list[str]:
    strict = (entry.details.get("scorers") or {}).get("strict")
    # Answers are made in order of length, so their order says nothing here.
    return count_notes(strict, with_order=False) if strict and "pairing" in strict else []


GROUP_TITLES = {
    "modality": "By modality",
    "organ": "By organ",
    "question_type": "By question type",
    "language": "By language",
    "answer_in_training": "By whether the answer occurs in training",
}


def _groups(entry: Entry) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        GROUP_TITLES.get(name, f"By {name}"): {
            group: part["scores"] for group, part in members.items()
        }
        for name, members in (entry.details.get("groups") or {}).items()
    }


TASK = Task(
    name=NAME,
    title="Visual question answering",
    about="Strict reads answers as words and options. Legacy repeats the published rules, which "
    "also find “no” in “normal”. Bars are 95 % intervals over images.",
    measures=lambda: measures("report"),
    variants={"strict": "strict", "legacy": "legacy"},
    rows="measures",
    notes=_notes,
    groups=_groups,
)
