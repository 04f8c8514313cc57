"""The runs of a study: what is done, running or failed, from its folders and from its results."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, ExgraMedError, RunError
from exgra_med.evaluation.measures import measures
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import read_recipe
from exgra_med.evaluation.tables import bounded, cell
from exgra_med.lab.studies.folder import Attempt, open_study, states

_ORDER = ("finished", "running", "failed", "stopped", "waiting", "not run", "unknown")
_KEPT = "results kept"
"""State of a run whose folder is gone, and whose score is in the study's results."""


def study_rows(
    folder: Path,
    runs: Collection[str],
    results: Mapping[str, Any],
    is_running: Callable[[Path], bool],
) -> list[dict[str, Any]]:
    """Every run of a study, in the order in which the study plans them.

    Args:
        folder: of the study.
        runs: the run folders in it, relative to it.
        results: its `results.json`, empty where there is none. A run in it counts though its
            folder is gone, as in a study that was copied without its runs.
        is_running: whether a run folder is being written.

    Returns:
        `name`, `state`, `note`, `seed`, `scores` by measure, and `is_here` where it has a folder.
    """
    attempts = _attempts(folder)
    scored = {str(each["folder"]): each for each in results.get("cells", [])}
    metric = str(results.get("metric", "")).partition(",")[0].rpartition(".")[2]
    rows = []
    for name in dict.fromkeys([*attempts, *scored, *runs]):
        if name in runs:
            row = _run_row(folder / name) | {"is_here": True}
        else:
            row = {"seed": "", "scores": {}, "state": "", "note": "", "is_here": False}
        kept = scored.get(name)
        if kept is not None and not row["is_here"]:
            bounds = kept.get("interval_images_only")
            row["scores"] = {metric: bounded(kept.get("value"), bounds)}
            row["seed"], row["state"] = kept.get("seed", ""), _KEPT
        elif name in attempts:
            row["state"], row["note"] = attempts[name].state, attempts[name].sentence or row["note"]
        if row["is_here"] and is_running(folder / name):
            row["state"] = "running"
        rows.append({"name": name} | row)
    return rows


def counted(rows: Collection[Mapping[str, Any]]) -> str:
    """How many runs are in which state, as in `6 runs: 4 finished, 1 running, 1 failed`."""
    counts = Counter(str(row["state"] or "unknown") for row in rows)
    named = [state for state in (_KEPT, *_ORDER) if counts[state]]
    said = ", ".join(f"{counts[state]} {state}" for state in named)
    word = "run" if len(rows) == 1 else "runs"
    return f"{len(rows)} {word}: {said}" if rows else "No run has begun"


def _attempts(folder: Path) -> dict[str, Attempt]:
    """The state of every planned run; none where this version cannot read the study."""
    try:
        study, nodes = open_study(folder)
        return states(folder, study, [node for node in nodes if not node.is_made])
    except ExgraMedError:
        return {}


def _run_row(run: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": "", "scores": {}, "state": "unknown", "note": ""}
    try:
        entries = read_results(run).find("vqa")
        row["seed"] = read_recipe(run).get("seed", 0)
    except (RunError, DataError) as error:
        return row | {"note": error.message}
    if not entries:
        return row
    scores = {
        each.name: cell(entries[0].score("strict", each.name), each.unit)
        for each in measures("compare")
    }
    return row | {"scores": scores, "state": "finished"}
