"""The folder of a study: what is finished, what failed, and that it holds this study.

A node is finished when its run has its results. Beside that, each node leaves a log and one JSON
file about its last attempt in `logs/`; they explain, and decide nothing.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from exgra_med import files
from exgra_med.data.records import MANIFEST
from exgra_med.digests import read_document, write_document, yaml_with_digest
from exgra_med.errors import DamagedFileError, RunError
from exgra_med.evaluation.results import Entry, read_results
from exgra_med.lab.studies.plan import Node, plan_study
from exgra_med.lab.studies.schema import STUDY_FILE, Study, read_study
from exgra_med.recipe.run_folder import first_difference, open_run
from exgra_med.recipe.schema import Recipe
from exgra_med.training.precision import with_precision

STATUS_FILE = "status.json"
LOGS = "logs"
_TAIL_BYTES = 2000
"""Of a log: the last line is shown, and is not longer."""


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a node."""

    state: str
    """`running`, `finished`, `failed`, `stopped`, or `not run` where something it needs failed."""
    started: str = ""
    seconds: float | None = None
    sentence: str = ""
    """What went wrong."""


def start_study(folder: Path, study: Study) -> list[Node]:
    """Make the folder of a study, or open it to go on; returns the nodes.

    A study may grow: what was begun must be as it was, and anything may be added.

    Raises:
        RunError: the folder holds another study, or something that is no study.
    """
    nodes = plan_study(study, folder)
    if (folder / STUDY_FILE).is_file():
        _check_same(folder, study, nodes)
    elif not files.is_unused(folder):
        raise RunError(
            f"{folder} exists and is not a study folder.", "Choose an empty or new one with --out."
        )
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / STUDY_FILE, yaml_with_digest(study.model_dump(mode="json")))
    return nodes


def open_study(folder: Path) -> tuple[Study, list[Node]]:
    """The study of a folder, and its nodes.

    Raises:
        RunError: there is no study.
    """
    study = read_study(folder)
    return study, plan_study(study, folder)


def is_finished(folder: Path, node: Node, study: Study) -> bool:
    """Whether the folder of a node holds what the node is for."""
    place = folder / node.id
    if node.kind == "data":
        return (place / MANIFEST).is_file()
    if node.kind == "parts":
        return all((place / part / "config.json").is_file() for part in ("vision", "language"))
    if not (place / "recipe.yaml").is_file():
        return False
    assert node.recipe is not None, "these nodes are runs"
    if node.kind in ("base", "shared"):
        return (place / "checkpoints" / list(node.recipe.stages)[-1] / "final").is_dir()
    wanted = tested(place, node, study, "vqa")
    wanted += tested(place, node, study, "reliance") if study.evaluation.conditions else []
    if any(entry is None for entry in wanted):
        return False
    return wanted[0] is not None and metric_value(wanted[0], study.metric) is not None


def tested(run: Path, node: Node, study: Study, task: str) -> list[Entry | None]:
    """The results of a run on every compared test: that of its recipe, and the study's others."""
    assert node.recipe is not None, "these nodes are runs"
    split, also = node.recipe.evaluation.split, study.evaluation.also
    found = read_results(run).find(task)
    own = [each for each in found if each.split == split and each.data_folder not in also]
    others = {each.data_folder: each for each in found if each.split == "test"}
    return [next(iter(own), None), *(others.get(folder) for folder in also)]


def metric_value(entry: Entry, metric: str) -> float | None:
    """The score that a metric such as `vqa.strict.average` names, or None where it is not there."""
    _, scorer, measure = metric.split(".")
    return entry.score(scorer, measure).value


def log_path(folder: Path, node: str) -> Path:
    """Where a node's process writes what it would say on a terminal."""
    return folder / LOGS / f"{node.replace('/', '__')}.log"


def last_line(folder: Path, node: str, begin: int = 0) -> str:
    """What a node's process said last, behind the first `begin` bytes of its log; empty where it
    said nothing yet."""
    path = log_path(folder, node)
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(begin, stream.tell() - _TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        # It explains, and decides nothing.
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def read_attempt(folder: Path, node: str) -> Attempt | None:
    """The last attempt at a node, or None.

    Raises:
        DamagedFileError: what is there is not what was written.
    """
    path = log_path(folder, node).with_suffix(".json")
    if not os.path.lexists(path):
        return None
    hint = "Remove it: it says how the last attempt went, and decides nothing."
    try:
        return Attempt(**read_document(path, hint))
    except TypeError as error:
        raise DamagedFileError(f"{path} is no report of an attempt.", hint) from error


def write_attempt(folder: Path, node: str, attempt: Attempt) -> None:
    """Replace what is known of a node's last attempt."""
    path = log_path(folder, node).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_document(path, asdict(attempt))


def states(folder: Path, study: Study, nodes: Sequence[Node]) -> dict[str, Attempt]:
    """State of every node: `finished`, `running`, `failed`, `stopped`, `not run` or `waiting`."""
    found: dict[str, Attempt] = {}
    for node in nodes:
        attempt = read_attempt(folder, node.id)
        if is_finished(folder, node, study):
            seconds = attempt.seconds if attempt and attempt.state == "finished" else None
            found[node.id] = Attempt("finished", attempt.started if attempt else "", seconds)
        elif attempt is None or attempt.state == "finished":
            found[node.id] = Attempt("waiting")
        elif attempt.state == "running" and not files.is_being_written(lock_path(folder, node.id)):
            # Its process died without a word: a kill, a machine that went down.
            found[node.id] = Attempt("stopped", attempt.started)
        else:
            found[node.id] = attempt
    return found


def lock_path(folder: Path, node: str) -> Path:
    """What the process that works on a node holds a lock on."""
    return log_path(folder, node).with_suffix(".lock")


def write_status(folder: Path, study: Study, nodes: Sequence[Node]) -> dict[str, Any]:
    """Write `status.json`: counts, and the state of every node."""
    found = states(folder, study, nodes)
    status = {
        "schema_version": 1,
        "study": study.name,
        "scale": study.scale,
        "counts": dict(Counter(attempt.state for attempt in found.values())),
        "nodes": {name: asdict(attempt) for name, attempt in found.items()},
    }
    write_document(folder / STATUS_FILE, status)
    return status


def _check_same(folder: Path, study: Study, nodes: Sequence[Node]) -> None:
    old = read_study(folder)
    made = [node for node in nodes if node.is_made and (folder / node.id).exists()]
    if made and old.make != study.make:
        raise RunError(
            f"{folder} holds what another study made: `make` differs.",
            "Choose another folder with --out.",
        )
    for node in nodes:
        if node.recipe is None or not (folder / node.id / "recipe.yaml").is_file():
            continue
        place = folder / node.id
        before = _without_budget(open_run(place).recipe, node)
        now = with_precision(node.recipe, place)
        difference = first_difference(before, _without_budget(now, node))
        if difference:
            raise RunError(
                f"{folder} holds another study: in {node.id}, {difference}.",
                "Choose another folder with --out, or give the study that the folder began with.",
            )


def _without_budget(recipe: Recipe, node: Node) -> Recipe:
    if node.budget is None:
        return recipe
    stage = node.budget.stage
    own = recipe.stages[stage].model_copy(update={"epochs": 1.0, "max_steps": None})
    return recipe.model_copy(update={"stages": recipe.stages | {stage: own}})


def remaining_seconds(
    nodes: Sequence[Node], states: Mapping[str, Attempt], jobs: int
) -> float | None:
    """Expected seconds until all nodes are done; None where no node is left, or none to learn from.

    A node is expected to take as long as finished ones of its method and fraction took, else of its
    fraction, else of its kind.
    """
    known: dict[tuple[object, ...], list[float]] = {}
    for node in nodes:
        attempt = states[node.id]
        if attempt.state == "finished" and attempt.seconds is not None:
            for key in _keys(node):
                known.setdefault(key, []).append(attempt.seconds)
    done = ("finished", "failed", "not run")
    left = [node for node in nodes if states[node.id].state not in done]
    expected = [
        next((mean(known[key]) for key in _keys(node) if key in known), None) for node in left
    ]
    learnt = [seconds for seconds in expected if seconds is not None]
    if not learnt:
        return None
    total = sum(learnt) + (len(expected) - len(learnt)) * mean(learnt)
    return total / min(jobs, len(left))


def _keys(node: Node) -> list[tuple[object, ...]]:
    cell = node.cell
    if cell is None:
        return [(node.kind,)]
    return [(cell.arm, cell.fraction), (cell.fraction,), (node.kind,)]
