"""`results.json` of a run: sections that different verbs fill, merged and replaced atomically."""

import json
from pathlib import Path
from typing import Any

from exgra_med.errors import RunError
from exgra_med.files import write_text

RESULTS_NAME = "results.json"
SCHEMA_VERSION = 1
OF_ONE_DATASET = ("vqa", "floors", "leaks", "visual_reliance", "other_splits")
"""Sections at the top that are about the headline's data set alone."""


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
    return _write(run, _merge(read_results(run), section))


def update_dataset_results(
    run: Path,
    dataset: str,
    sections: dict[str, Any],
    *,
    own: bool = False,
    apart: str | None = None,
) -> dict[str, Any]:
    """Merge sections about one data set, and leave those of every other one as they are.

    The headline's data set is the run's own, or the first that was answered: its sections stand at
    the top. Those of any other one are put below `other_datasets.<name>`.

    Args:
        run: the run folder.
        dataset: its name.
        sections: some of `OF_ONE_DATASET`.
        own: it is the data set of the run's recipe, and takes the headline.
        apart: the split, where it is not the recipe's: below `other_splits.<split>`.

    Returns:
        The whole results after the merge.
    """
    run.mkdir(parents=True, exist_ok=True)
    results = read_results(run)
    headline = headline_dataset(results)
    if own and headline not in (None, dataset):
        others = results.setdefault("other_datasets", {})
        others[headline] = {name: results.pop(name) for name in OF_ONE_DATASET if name in results}
        results |= others.pop(dataset, {})
        headline = dataset
    if apart is not None:
        sections = {"other_splits": {apart: sections}}
    if headline not in (None, dataset):
        sections = {"other_datasets": {dataset: sections}}
    return _write(run, _merge(results, sections))


def headline_dataset(results: dict[str, Any]) -> str | None:
    """The data set that the sections at the top are about; None where none was scored."""
    parts = [results, *(results.get("other_splits") or {}).values()]
    names = [(part.get("vqa") or {}).get("dataset") for part in parts]
    return next((name for name in names if name is not None), None)


def dataset_results(results: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The sections about one data set, wherever they stand; empty where it was not scored."""
    if headline_dataset(results) == dataset:
        return {name: results[name] for name in OF_ONE_DATASET if name in results}
    return (results.get("other_datasets") or {}).get(dataset, {})


def _write(run: Path, results: dict[str, Any]) -> dict[str, Any]:
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
