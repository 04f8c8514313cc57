"""Finished cells -> their scores, question by question, and what was measured while they trained.

Numbers are put together only if they are the same score of the same questions; otherwise one
sentence says which two are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.records import Prepared, file_sha256, open_prepared
from exgra_med.errors import DamagedFileError, ScoreError
from exgra_med.evaluation.answers import (
    Question,
    QuestionsAside,
    pair,
    read_predictions,
)
from exgra_med.evaluation.measures import (
    Measure,
    PairedValues,
    ScorerName,
    as_scorer,
    by_name,
    item_values,
    parts_of,
)
from exgra_med.evaluation.results import Entry, read_results
from exgra_med.evaluation.session import answers_file, stored_answers
from exgra_med.evaluation.statistics import cluster_codes
from exgra_med.lab.studies.folder import is_finished, metric_value, tested
from exgra_med.lab.studies.plan import DATA_NODE, Cell, Node
from exgra_med.lab.studies.schema import Study
from exgra_med.recipe.run_folder import Run, open_run
from exgra_med.training.log import read_log


@dataclass(frozen=True)
class Score:
    """One finished cell."""

    cell: Cell
    folder: str
    value: float
    """The study's metric, in percent."""
    metric: str
    """Its identity: path, scorer and normaliser with their versions."""
    dataset: str
    split: str
    data: str | None
    """sha256 of the manifest of the prepared folder."""
    facts: dict[str, Any]
    """For the study's results: baselines, seeds, software, budget, other splits, diagnostics."""


@dataclass(frozen=True)
class Collected:
    """Everything that is finished."""

    scores: list[Score]
    missing: list[str]
    """Cells that are not finished."""
    questions: Sequence[Question]
    clusters: NDArray[np.int64]
    values: dict[Cell, NDArray[np.float64]]
    """Cell -> (questions, parts of the metric) from 0 to 1, NaN where a question does not count."""
    others: "dict[str, Collected]" = field(default_factory=dict)
    """Further outcomes by name: other tests, and what a score loses with other pictures (its
    values lie between -1 and 1)."""
    parts: "dict[str, Collected]" = field(default_factory=dict)
    """Of each test the questions without a look-alike among the training pictures, where its
    records say which these are (`meta.seen_look_alike`). They are reported, and not tested."""

    def without_look_alikes(self) -> "Collected | None":
        """The questions whose pictures look like none that is trained on; none where these are
        all, or too few for the metric (as without a single open question)."""
        rows = np.array([not each.meta.get("seen_look_alike") for each in self.questions])
        values = {cell: own[rows] for cell, own in self.values.items()}
        countable = all((~np.isnan(own)).any(axis=0).all() for own in values.values())
        if rows.all() or not countable:
            return None
        questions = [each for each, kept in zip(self.questions, rows, strict=True) if kept]
        clusters = cluster_codes(question.cluster for question in questions)
        return Collected([], [], questions, clusters, values)


def collect(folder: Path, study: Study, nodes: Sequence[Node]) -> Collected:
    """Read every finished cell of a study.

    Raises:
        ScoreError: two cells have different scores, or scores of different questions.
        DataError: the questions are not there.
    """
    cells = [node for node in nodes if node.cell is not None]
    finished = [node for node in cells if is_finished(folder, node, study)]
    scores = [_score(folder, node, study) for node in finished]
    missing = [node.id for node in cells if node not in finished]
    if not scores:
        return Collected([], missing, [], np.zeros(0, np.int64), {})
    check_comparable(scores)
    prepared = tested_data(folder, study, scores[0])
    questions = QuestionsAside.of(prepared.iterate(scores[0].split))
    clusters = cluster_codes(question.cluster for question in questions)
    values = {each.cell: _values(folder, study.metric, each, questions) for each in scores}
    others = _others(folder, study, finished, questions)
    whole = Collected(scores, missing, questions, clusters, values, others)
    lost = tuple(LOST_WITH.values())
    for name, test in [("", whole), *others.items()]:
        part = None if name.endswith(lost) else test.without_look_alikes()
        if part is not None:
            whole.parts[f"{name} without look-alikes".strip()] = part
    return whole


LOST_WITH = {
    "blank": "lost with grey pictures",
    "noise": "lost with noise",
    "shuffled": "lost with exchanged pictures",
}


def _others(
    folder: Path, study: Study, finished: Sequence[Node], own: Sequence[Question]
) -> dict[str, Collected]:
    """The outcomes beside the score of the main test."""
    outcomes: dict[str, Collected] = {}
    scorer, columns = _scorer_and_columns(study.metric)
    for number, test in enumerate(["", *study.evaluation.also]):
        questions, name, fingerprint = own, "", None
        if test:
            prepared = open_prepared(test)
            fingerprint = prepared.fingerprint
            questions = QuestionsAside.of(prepared.iterate("test"))
            name = prepared.manifest["dataset"]
            name = test if name in outcomes else name
        clusters = cluster_codes(question.cluster for question in questions)
        seen: dict[Cell, NDArray[np.float64]] = {}
        lost: dict[str, dict[Cell, NDArray[np.float64]]] = {
            kind: {} for kind in study.evaluation.conditions
        }
        for node in finished:
            assert node.cell is not None, "only cells have scores"
            place = folder / node.id
            entry = tested(place, node, study, "vqa")[number]
            assert entry is not None, "a finished cell has its scores"
            if fingerprint not in (None, entry.data_fingerprint):
                raise ScoreError(
                    f"{test} is not the data that {node.id} was scored on.",
                    "Put the prepared folder back, or run the study anew in another folder.",
                )
            answers = pair(stored_answers(place, entry), questions)
            seen[node.cell] = item_values(answers, scorer, columns)
            if not lost:
                continue
            without = tested(place, node, study, "reliance")[number]
            assert without is not None, "a finished cell has its scores"
            for kind, values in lost.items():
                blind = pair(stored_answers(place, without, kind), questions)
                values[node.cell] = PairedValues.of(answers, blind, scorer, columns).answered
        named = {name: seen} if test else {}
        named |= {f"{name}: {LOST_WITH[k]}".removeprefix(": "): v for k, v in lost.items()}
        outcomes |= {
            title: Collected([], [], questions, clusters, values) for title, values in named.items()
        }
    return outcomes


def check_comparable(scores: Sequence[Score]) -> None:
    """Refuse to put together what is not the same score of the same questions.

    Raises:
        ScoreError: names the first two that differ, and how.
    """
    first = scores[0]
    for other in scores[1:]:
        for what, one, two in (
            ("scores", first.metric, other.metric),
            ("test questions", _asked(first), _asked(other)),
        ):
            if one != two:
                raise ScoreError(
                    f"{first.folder} and {other.folder} have different {what}, so their numbers "
                    f"are not put together: {one} against {two}.",
                    "Evaluate both in the same way, or make two studies of them.",
                )


def metric_identity(entry: Entry, metric: str) -> str:
    """A metric with what decides its value: `vqa.strict.average, scorer 2, normaliser 1`."""
    scorer = metric.split(".")[1]
    versions = (entry.details.get("scorers") or {}).get(scorer) or {}
    return (
        f"{metric}, scorer {versions.get('scorer_version')}, "
        f"normaliser {versions.get('normaliser_version')}"
    )


def _asked(score: Score) -> str:
    return f"{score.dataset}/{score.split} of data {(score.data or 'unknown')[:12]}"


def _score(folder: Path, node: Node, study: Study) -> Score:
    assert node.cell is not None, "only cells have scores"
    metric = study.metric
    place = folder / node.id
    run = open_run(place)
    entry, record = tested(place, node, study, "vqa")[0], run.record()
    value = None if entry is None else metric_value(entry, metric)
    assert entry is not None and value is not None, "a finished cell has its score"
    stored_answers(place, entry)  # says what is wrong with them
    events = _whole_log(run)
    # A cell may have been asked other data sets since, under splits of the same names.
    others = [each for each in read_results(place).find("vqa", entry.dataset) if each != entry]
    _, scorer, measure = metric.split(".")
    return Score(
        cell=node.cell,
        folder=node.id,
        value=value,
        metric=metric_identity(entry, metric),
        dataset=entry.dataset,
        split=entry.split,
        data=entry.data_fingerprint,
        facts={
            "predictions": f"{node.id}/{entry.answers['questions']}",
            "basis": _basis(place, entry),
            "unanswered": _unanswered(place, node, study),
            "interval_images_only": entry.score(scorer, measure).interval,
            "baselines": {
                name: (each["scores"].get(scorer, {}).get(measure) or {}).get("value")
                for name, each in (entry.details.get("baselines") or {}).items()
            },
            "splits": {each.split: metric_value(each, metric) for each in others},
            "budget": record.get("budget"),
            "software": {key: record.get(key) for key in ("exgra_med", "git_commit", "versions")},
            "num_steps": {
                event["stage"]: event["total_steps"]
                for event in events
                if event.get("kind") == "stage" and event.get("event") == "end"
            },
            "diagnostics": _diagnostics(events),
        },
    )


def _unanswered(place: Path, node: Node, study: Study) -> int:
    """Questions without an answer, over all tests and all kinds of pictures."""
    kinds = study.evaluation.conditions
    counts = [each.counts() for each in tested(place, node, study, "vqa") if each]
    if kinds:
        blind = [each for each in tested(place, node, study, "reliance") if each]
        counts += [each.counts(kind) for each in blind for kind in kinds]
    return sum((each or {}).get("missing", 0) for each in counts)


def _basis(place: Path, entry: Entry) -> dict[str, Any]:
    """Counts of the answers behind a score (see `answer_counts`), and the digest of their file."""
    return {**(entry.counts() or {}), "sha256": file_sha256(answers_file(place, entry))}


def _whole_log(run: Run) -> list[dict[str, Any]]:
    """The events of a finished run.

    Raises:
        DamagedFileError: they are not what was written, or do not reach the end.
    """
    events = read_log(run.log)
    stages = [event for event in events if event.get("kind") == "stage"]
    began = {event["stage"] for event in stages}
    ended = {event["stage"] for event in stages if event.get("event") in ("end", "lost")}
    if not events or began - ended:
        raise DamagedFileError(
            f"{run.log} does not hold all that was logged.",
            f"Put it back from a copy, or remove {run.path} and run the study again.",
        )
    return events


def _diagnostics(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured on held-out records along training, one entry a measurement.

    `stage, step` and as far as measured: `language_loss`, `alignment_loss`, `matching_accuracy` and
    `chance`, `image_answer_accuracy` of the bare embeddings, and `views` with retrieval, modality
    gap, cosines and their histograms.
    """
    entries: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        if event.get("kind") not in ("held_out", "views"):
            continue
        key = (event["stage"], event["step"])
        entry = entries.setdefault(key, {"stage": key[0], "step": key[1]})
        rest = {name: each for name, each in event.items() if name not in ("kind", *entry)}
        entry |= {"views": rest} if event.get("kind") == "views" else rest
    return list(entries.values())


def tested_data(folder: Path, study: Study, score: Score) -> Prepared:
    """The prepared folder of the study's main test.

    Raises:
        DataError: it is not there.
        ScoreError: it is not the data that the score is of.
    """
    place = open_run(folder / score.folder).recipe.evaluation_data.folder
    # The folder of a study may have been moved since its runs were trained.
    prepared = open_prepared(folder / DATA_NODE if study.make.data is not None else place)
    if score.data is not None and prepared.fingerprint != score.data:
        raise ScoreError(
            f"{prepared.path} is not the data that {score.folder} was scored on.",
            "Put the prepared folder back, or run the study anew in another folder.",
        )
    return prepared


def _values(
    folder: Path, metric: str, score: Score, questions: Sequence[Question]
) -> NDArray[np.float64]:
    scorer, columns = _scorer_and_columns(metric)
    answers = read_predictions(folder / score.facts["predictions"]).predictions
    own = item_values(pair(answers, questions), scorer, columns)
    name = metric.split(".")[2]
    value = float((by_name(name).factor * np.nanmean(own, axis=0)).mean())
    if abs(value - score.value) > 1e-6:
        raise ScoreError(
            f"The answers of {score.folder} give {value:.4f}, its results say {score.value:.4f}.",
            "Its answers or its results were changed; remove its results.json and run it again.",
        )
    return own


def _scorer_and_columns(metric: str) -> tuple[ScorerName, list[Measure]]:
    _, scorer, name = metric.split(".")
    return as_scorer(scorer), [by_name(part) for part in parts_of(by_name(name))]
