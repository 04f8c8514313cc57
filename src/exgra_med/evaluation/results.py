"""`results.json` of a run: a list of what was asked, who answered, and the scores.

    {"schema_version": 2, "results": [
      {"dataset": "slake", "split": "test", "task": "vqa", "engine": {"name": "checkpoint", ...},
       "scores": {"strict": {"open_recall": {"value": 61.0, "interval": [...], "count": 645}}},
       ...},
      ...]}

Every entry is of one data set, split and task; no data set stands before the others. Files of
schema 1 are read and come out in this form.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from exgra_med.data.records import file_sha256
from exgra_med.digests import read_document, write_document
from exgra_med.errors import RunError
from exgra_med.files import LOCK, disk_errors, sole_writer
from exgra_med.section import Section

RESULTS_NAME = "results.json"
SCHEMA_VERSION = 2
_AGAIN = "Remove it and score again with `exgra-med evaluate`; the stored answers stay."


class Score(Section):
    """One measure."""

    value: float | None
    """In the unit of the measure; None where there is nothing to count."""
    interval: list[float] | None = None
    """95 % interval over images."""
    count: int | None = None
    """Questions that count for it."""


class Entry(Section):
    """One task on one split of one data set."""

    dataset: str
    """Name of the data set, as its manifest has it."""
    split: str
    """Name of the split."""
    task: str
    """`vqa`, `multiple-choice`, `chat`, `reliance` or `reports`."""
    engine: dict[str, Any]
    """Who answered: `name`, and what decides its answers."""
    scores: dict[str, dict[str, Score]]
    """Variant (a scorer, a protocol, a judge, an image condition) -> measure -> score."""
    answers: dict[str, str] = Field(default={})
    """What was asked -> the file of answers, relative to the run folder."""
    answers_sha256: dict[str, str] = Field(default={})
    """What was asked -> SHA-256 of that file when it was scored."""
    data_folder: str | None = None
    """The prepared folder, where reports and comparisons find the questions."""
    data_fingerprint: str | None = None
    """sha256 of its manifest."""
    template: str | None = None
    """Chat template of the question; None where a server chose it."""
    details: dict[str, Any] = Field(default={})
    """What the task tells beside the scores; see the reference page of the schema."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two entries of a run have in common."""
        return self.task, self.dataset, self.split

    @property
    def label(self) -> str:
        """As tables name it."""
        return f"{self.dataset}, {self.split}"

    def score(self, variant: str, measure: str) -> Score:
        """One score; without a value where it was not measured."""
        return self.scores.get(variant, {}).get(measure) or Score(value=None)

    def counts(self, variant: str = "") -> dict[str, int] | None:
        """Counts of the answers behind a variant (see `answer_counts`); None where unknown."""
        own = (self.details.get("counts_by_variant") or {}).get(variant)
        return own or self.details.get("answer_counts")

    def sha256(self, asked: str = "questions") -> str | None:
        """Digest of a file of `answers` as it was scored; None where it was not kept."""
        return self.answers_sha256.get(asked)

    def rules(self, scorer: str) -> tuple[str, str] | None:
        """Versions of scorer and normaliser behind the scores of a VQA scorer; None if unknown."""
        told = (self.details.get("scorers") or {}).get(scorer) or {}
        versions = told.get("scorer_version"), told.get("normaliser_version")
        return None if None in versions else (str(versions[0]), str(versions[1]))


def rules_text(versions: tuple[str, str]) -> str:
    """`scorer 2, normaliser 2`.

    >>> rules_text(("1", "2"))
    'scorer 1, normaliser 2'
    """
    return f"scorer {versions[0]}, normaliser {versions[1]}"


class Results(Section):
    """The whole file."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Of this form."""
    results: list[Entry] = Field(default=[])
    """In the order in which they were first scored."""

    def find(self, task: str, dataset: str | None = None, split: str | None = None) -> list[Entry]:
        """The entries of a task, of one data set and split where these are named."""
        return [
            each
            for each in self.results
            if each.task == task and dataset in (None, each.dataset) and split in (None, each.split)
        ]


def read_results(run: str | Path) -> Results:
    """Results of a run folder; an empty list where nothing has been scored yet.

    Raises:
        RunError: there is no such folder, or the file is not what this software writes.
        DamagedFileError: the file cannot be read, or is not what was written.
    """
    if not Path(run).is_dir():
        raise RunError(f"{run}: no such folder.", "Name the folder of a run.")
    path = Path(run) / RESULTS_NAME
    if not os.path.lexists(path):
        return Results()
    return parse_results(read_document(path, _AGAIN), str(path))


def parse_results(values: Any, where: str) -> Results:
    """Results from the values of a file of schema 1 or 2; messages name the file by `where`.

    Raises:
        RunError: it is not what this software writes.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version not in (1, SCHEMA_VERSION):
        raise RunError(
            f"{where}: schema version {version!r} is not {SCHEMA_VERSION}.",
            "It was written by another version of exgra-med; score again into a new folder.",
        )
    try:
        return from_schema_1(values) if version == 1 else Results.model_validate(values)
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{where}: its entries are not what exgra-med writes.",
            "Remove it and score again; the answers of the run stay.",
        ) from error


def put_result(run: Path, entry: Entry) -> Results:
    """Add an entry to `results.json`, or replace the one of the same task, data set and split.

    The scores of earlier judges of the same chat answers stay, and so do those of other answers
    that are still in the run, such as those to pictures that were not shown again.

    Returns:
        The results after that.

    Raises:
        RunError: the file there is not what this software writes; the stored scores are of more
            answers than these, which would be lost; another process writes the run.
        WriteError: the disk is full; what was there stays as it was.
    """
    with disk_errors(run):
        run.mkdir(parents=True, exist_ok=True)
    with sole_writer(run / LOCK, run):
        return _put(run, entry)


def _put(run: Path, entry: Entry) -> Results:
    stored = {asked: run / name for asked, name in entry.answers.items()}
    digests = {asked: file_sha256(file) for asked, file in stored.items() if file.is_file()}
    entry = entry.model_copy(update={"answers_sha256": digests})
    entries = {each.key: each for each in read_results(run).results}
    known = entries.get(entry.key)
    if known is not None and entry.task == "chat" and known.answers_sha256 in ({}, digests):
        judges = (known.details.get("judges") or {}) | (entry.details.get("judges") or {})
        joined = {
            "scores": known.scores | entry.scores,
            "details": entry.details | {"judges": judges},
        }
        entry = entry.model_copy(update=joined)
    elif known is not None and entry.task != "chat":
        entry = _with_what_was_known(run, known, entry)
    entries[entry.key] = entry
    results = Results(results=list(entries.values()))
    values = results.model_dump(mode="json")
    write_document(run / RESULTS_NAME, values)
    return results


def _with_what_was_known(run: Path, known: Entry, entry: Entry) -> Entry:
    """An entry with the scores of the earlier one that it has not, of answers that are still those.

    Raises:
        RunError: it is of fewer answers, or of answers that are gone.
    """
    # An entry that names no answers was not made by asking.
    more = {
        name: path
        for name, path in known.answers.items()
        if entry.answers and name not in entry.answers
    }
    digests = {name: file_sha256(run / more[name]) for name in more if (run / more[name]).is_file()}
    gone = [
        more[name]
        for name in more
        if name not in digests or known.sha256(name) not in (None, digests[name])
    ]
    before, now = (_num_answered(each) for each in (known, entry))
    what = f"{run / RESULTS_NAME} has scores of"
    if gone:
        told = f"{what} answers that are not in the run as they were: {', '.join(gone)}."
    elif before > now:
        told = f"{what} {before} answers to {entry.label} ({entry.task}), and {now} are there now."
    else:
        lost = [name for name in known.scores if name not in entry.scores]
        if not more or not lost:
            return entry
        details = dict(entry.details)
        for name, value in known.details.items():
            found = details.get(name)
            if isinstance(value, dict) and isinstance(found, dict):
                found = value | found
            details[name] = value if found is None else found
        joined = {
            "scores": {name: known.scores[name] for name in lost} | entry.scores,
            "answers": known.answers | entry.answers,
            "answers_sha256": digests | entry.answers_sha256,
            "details": details,
        }
        return entry.model_copy(update=joined)
    raise RunError(
        f"{told} Scores are not overwritten by those of fewer.",
        "Bring the answers back, or evaluate into a new folder with --out. To give up those scores "
        f"remove {RESULTS_NAME}.",
    )


def _num_answered(entry: Entry) -> int:
    counts = entry.counts()
    return counts["questions"] - counts["missing"] if counts else 0


def from_schema_1(values: dict[str, Any]) -> Results:
    """Results as versions before 0.2 wrote them: sections, one data set at the top."""
    entries: list[Entry] = []
    for top in (values, *(values.get("other_datasets") or {}).values()):
        for part in (top, *(top.get("other_splits") or {}).values()):
            if part.get("vqa"):
                entries.append(_vqa_of_schema_1(part["vqa"], part, is_other_split=part is not top))
                if part.get("visual_reliance"):
                    entries.append(_reliance_of_schema_1(part["visual_reliance"], entries[-1]))
    for dataset, section in (values.get("multiple_choice") or {}).items():
        entries.append(_choices_of_schema_1(dataset, section))
    for dataset, judges in (values.get("chat") or {}).items():
        entries.append(_chat_of_schema_1(dataset, judges))
    return Results(results=entries)


_UNKNOWN_ENGINE: dict[str, Any] = {"name": "unknown"}
_NO_SCORES = (
    "scorer", "scorer_version", "normaliser_version", "num_open", "num_closed", "num_images",
    "pairing", "oddities", "left_out_by_published_rule", "bootstrap", "closed_answers", "yes_no",
)  # fmt: skip
"""What schema 1 has beside the measures of a scorer, and schema 2 in the details."""
_RENAMED = {name: f"open_{name}" for name in ("recall", "f1", "precision", "exact_match")}
_DENOMINATORS = {new: old for old, new in _RENAMED.items()}
_COUNTS = ("num_open", "num_closed", "num_images")


def _scores_of_schema_1(section: dict[str, Any]) -> dict[str, Score]:
    intervals, counts = section.get("intervals") or {}, section.get("denominators") or {}
    found = {}
    for name, value in section.items():
        measured = value is None or (isinstance(value, int | float) and name not in _NO_SCORES)
        if name in intervals and measured:
            count = counts.get(_DENOMINATORS.get(name, name))
            if name == "average":
                counted = [section[key] for key in ("num_open", "num_closed") if key in section]
                count = sum(counted) if counted else None
            number = None if value is None else float(value)
            found[name] = Score(value=number, interval=intervals[name], count=count)
    return found


def _vqa_of_schema_1(vqa: dict[str, Any], part: dict[str, Any], is_other_split: bool) -> Entry:
    scorers = {name: vqa[name] for name in ("strict", "legacy") if name in vqa}
    details: dict[str, Any] = {
        "num_train_questions": vqa.get("num_train_questions"),
        "scorers": {
            name: {key: section[key] for key in _NO_SCORES if key in section}
            for name, section in scorers.items()
        },
        "groups": _groups_of_schema_1((vqa.get("strict") or {}).get("groups") or {}),
        "baselines": {
            name: {
                "scores": {
                    scorer: _dumped(_scores_of_schema_1(floor[scorer]))
                    for scorer in scorers
                    if scorer in floor
                },
                "difference": _dumped(_scores_of_schema_1(floor.get("model_minus_floor") or {})),
            }
            for name, floor in (part.get("floors") or {}).items()
        },
    }
    leaks = part.get("leaks")
    if leaks:
        clean = leaks.get("clean")
        if clean:
            scores = {
                _RENAMED.get(old, old): Score(value=clean[old], interval=clean["intervals"][old])
                for old in ("average", "recall", "closed_accuracy")
            }
            clean = {"scores": _dumped(scores)} | {name: clean[name] for name in _COUNTS}
        details["leaks"] = leaks | {"clean": clean or None}
    file = (
        f"{vqa.get('dataset')}/split-{vqa.get('split')}" if is_other_split else vqa.get("dataset")
    )
    return Entry(
        dataset=str(vqa.get("dataset")),
        split=str(vqa.get("split") or "test"),
        task="vqa",
        engine=_UNKNOWN_ENGINE,
        scores={name: _scores_of_schema_1(section) for name, section in scorers.items()},
        answers={"questions": f"predictions/{file}.jsonl"},
        data_folder=vqa.get("data_folder"),
        data_fingerprint=vqa.get("data_fingerprint"),
        template=vqa.get("template"),
        details=details,
    )


def _groups_of_schema_1(groups: dict[str, Any]) -> dict[str, Any]:
    def group(row: dict[str, Any]) -> dict[str, Any]:
        scores = {
            _RENAMED.get(old, old): Score(value=row[old], interval=row.get(f"{old}_interval"))
            for old in ("recall", "closed_accuracy")
        }
        return {key: row.get(key) for key in _COUNTS} | {"scores": _dumped(scores)}

    return {
        name: {key: group(row) for key, row in members.items()} for name, members in groups.items()
    }


def _reliance_of_schema_1(section: dict[str, Any], vqa: Entry) -> Entry:
    scores = {
        kind: _scores_of_schema_1(part) | {"same_answer": Score(value=part.get("same_answer"))}
        for kind, part in section.items()
        if kind != "mirrored"
    }
    details = {"mirrored": section.get("mirrored")}
    own = {"task": "reliance", "scores": scores, "details": details}
    return vqa.model_copy(update={**own, "answers": {}, "template": None})


def _choices_of_schema_1(dataset: str, section: dict[str, Any]) -> Entry:
    protocols = {
        name.replace("text_only_floor", "text_only_baseline"): score
        for name, score in section.items()
        if isinstance(score, dict) and "accuracy" in score
    }
    scores = {
        name: {
            "accuracy": Score(
                value=score["accuracy"], interval=score.get("interval"), count=score["num"]
            )
        }
        | {
            measure: Score(value=score.get(measure))
            for measure in ("macro_accuracy", "balanced_accuracy", "unreadable")
        }
        for name, score in protocols.items()
    }
    if protocols:
        first = next(iter(protocols.values()))
        guess = Score(value=first.get("guessing"), count=first["num"])
        scores["guessing"] = {"accuracy": guess}
    return Entry(
        dataset=dataset,
        split="test",
        task="multiple-choice",
        engine=_UNKNOWN_ENGINE,
        scores=scores,
        details={
            "calibration": section.get("calibration") or {},
            "num_without_options": section.get("num_without_options", 0),
            "groups": {name: score.get("groups") or {} for name, score in protocols.items()},
        },
    )


def _chat_of_schema_1(dataset: str, judges: dict[str, Any]) -> Entry:
    names = ("relative_score", "relative_score_published_order", "win_rate")

    def scores(section: dict[str, Any]) -> dict[str, Score]:
        bounds = section.get("intervals") or {}
        return {
            name: Score(
                value=section.get(name), interval=bounds.get(name), count=section.get("num")
            )
            for name in names
        }

    def details(section: dict[str, Any]) -> dict[str, Any]:
        kept = {
            name: value
            for name, value in section.items()
            if name not in (*names, "intervals", "num", "by_type", "by_domain")
        }
        groups = {
            title: {
                name: _dumped(scores(group)) for name, group in (section.get(old) or {}).items()
            }
            for title, old in (("question type", "by_type"), ("domain", "by_domain"))
        }
        return kept | {"groups": groups}

    return Entry(
        dataset=dataset,
        split="test",
        task="chat",
        engine=_UNKNOWN_ENGINE,
        scores={judge: scores(section) for judge, section in judges.items()},
        answers={"questions": f"predictions/{dataset}/answers.jsonl"},
        details={"judges": {judge: details(section) for judge, section in judges.items()}},
    )


def _dumped(scores: dict[str, Score]) -> dict[str, Any]:
    return {name: each.model_dump(mode="json") for name, each in scores.items()}
