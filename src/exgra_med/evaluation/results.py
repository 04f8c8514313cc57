"""`results.json` of a run: sections that different verbs fill, merged and replaced atomically."""

import json
from pathlib import Path
from typing import Any

from exgra_med.errors import RunError
from exgra_med.files import write_text

RESULTS_NAME = "results.json"
SCHEMA_VERSION = 1


def read_results(run: str | Path) -> dict[str, Any]:
    """Results of a run folder; just the schema version where nothing has been written yet.

    Raises:
        RunError: there is no such folder, or the file is not what this software writes.
    """
    if not Path(run).is_dir():
        raise RunError(f"{run}: no such folder.", "Name the folder of a run.")
    path = Path(run) / RESULTS_NAME
    if not path.exists():
        return {"schema_version": SCHEMA_VERSION}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON.", "Remove it and score again.") from error
    version = results.get("schema_version") if isinstance(results, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path}: schema version {version!r} is not {SCHEMA_VERSION}.",
            "It was written by another version of exgra-med; score again into a new folder.",
        )
    return results


def update_results(run: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Merge a section into `results.json`: objects are merged, everything else is replaced.

    For example `update_results(run, {"alignment": {"loss": {"start": 2.1, "end": 0.4}}})`.

    Args:
        run: the run folder.
        section: JSON-ready object.

    Returns:
        The whole results after the merge.

    Raises:
        RunError: the file there is not what this software writes.
        WriteError: the disk is full; what was there stays as it was.
    """
    run.mkdir(parents=True, exist_ok=True)
    results = _merge(read_results(run), section)
    path = run / RESULTS_NAME
    write_text(path, json.dumps(results, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    return results


def vqa_section(score: dict[str, Any]) -> dict[str, Any]:
    """One scorer's result as the section `vqa.<scorer>` of `results.json`.

    Measures stand at the top (`average, open_recall, closed_accuracy, ...`), so that
    `vqa.strict.average` is a number; intervals, denominators and counts lie below.
    """
    names = {"recall": "open_recall", "f1": "open_f1", "precision": "open_precision"}
    names["exact_match"] = "open_exact_match"
    metrics = {names.get(name, name): value for name, value in score["metrics"].items()}
    intervals = {names.get(name, name): value for name, value in score["intervals"].items()}
    rest = {key: value for key, value in score.items() if key not in ("metrics", "intervals")}
    scorer = score["scorer"].replace("-", "_")
    return {"vqa": {scorer: metrics | {"intervals": intervals} | rest}}


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merge(before, value) if both else value
    return merged
