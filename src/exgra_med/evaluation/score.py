"""Predictions and reference -> scores with intervals, denominators and what was odd.

No torch here: scoring stored answers takes milliseconds, and scoring them again is equal.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.records import MANIFEST, Record, file_sha256, open_prepared
from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answer_spread import answer_spread, same_questions
from exgra_med.evaluation.answers import (
    Pairing,
    Prediction,
    Question,
    QuestionsAside,
    answer_counts,
    pair,
    pairing_facts,
    question_of,
    read_candidates,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.claims import claims_of, judge_claims
from exgra_med.evaluation.existence import existence
from exgra_med.evaluation.measures import (
    STRICT,
    Candidates,
    Measure,
    ScorerName,
    as_scorer,
    item_values,
    measures,
    read_closed,
    summary,
    with_functions,
)
from exgra_med.evaluation.statistics import (
    MANY_CLUSTERS,
    NUM_SAMPLES_OF_MANY,
    check_count,
)

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
    asked = _questions(records, oddities)
    pairing = pair(predictions, asked)
    chosen = measures() if only is None else list(only)
    known = Candidates.of(candidates) if candidates else None
    values = item_values(pairing, scorer, with_functions(chosen), known)
    clusters = pairing.clusters
    is_strict = scorer in STRICT
    kinds = Counter(
        each.answer_type for each in pairing.questions if is_strict or not each.type_had_blanks
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
        "left_out_by_published_rule": len(asked) - kinds.total(),
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


def _questions(records: Iterable[Record | Question], oddities: Counter[str]) -> Sequence[Question]:
    """The questions; those that are not in memory stay where they are."""
    if isinstance(records, QuestionsAside):
        return records
    return [each if isinstance(each, Question) else question_of(each, oddities) for each in records]


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
    groupings: dict[str, Callable[[Question], str]] = {
        name: partial(_known_group, grouping=name) for name in _FIELDS
    }
    if train_answers is not None:
        seen = {reading.words(answer) for answer in train_answers}
        groupings["answer_in_training"] = lambda question: (
            "seen" if reading.words(question.answer) in seen else "unseen"
        )
    # Grouping -> group -> rows, in one reading of the questions.
    rows_of: dict[str, dict[str, array[int]]] = {name: {} for name in groupings}
    is_open = np.empty(len(pairing.questions), dtype=bool)
    for row, question in enumerate(pairing.questions):
        is_open[row] = question.answer_type == "OPEN"
        for name, group in groupings.items():
            rows_of[name].setdefault(group(question), array("q")).append(row)
    columns = [place for place, each in enumerate(chosen) if "groups" in each.shown]
    kept = [chosen[place] for place in columns]
    return {
        name: {
            group: _group(values[rows][:, columns], kept, clusters[rows], is_open[rows], seed)
            for group, rows in sorted(members.items())
        }
        for name, members in rows_of.items()
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
    many = len(values) and codes.max() >= MANY_CLUSTERS
    num_samples = NUM_SAMPLES_OF_MANY if many else _NUM_SAMPLES
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

    def is_read(question: Question, answer: str | None) -> bool | None:
        if question.answer_type == "OPEN" or answer is None:
            return None
        verdict = read_closed(answer, question).verdict
        return verdict not in (metrics.Verdict.UNPARSED, metrics.Verdict.SEVERAL)

    return answer_counts(pairing.predictions, map(is_read, pairing.questions, pairing.answers))


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
