"""From the finished cells to `results.json`, `table.md`, `figure.svg` and `report.html`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exgra_med import files
from exgra_med.errors import RunError
from exgra_med.studies.collect import Collected, Score, collect
from exgra_med.studies.compare import compare_arms
from exgra_med.studies.conclude import conclude
from exgra_med.studies.folder import open_study, states
from exgra_med.studies.plan import Node
from exgra_med.studies.report import figures, render_report
from exgra_med.studies.schema import Study
from exgra_med.studies.table import render

SCHEMA_VERSION = 1
RESULTS_FILE, TABLE_FILE, PAGE_FILE = "results.json", "table.md", "report.html"


def write_results(folder: Path) -> dict[str, Any]:
    """Collect the finished cells of a study, compare them, and write `results.json`.

    Raises:
        RunError: there is no study.
        ScoreError: the cells' numbers are not of one kind.
    """
    study, nodes = open_study(folder)
    results = study_results(study, nodes, collect(folder, study, nodes))
    text = json.dumps(results, ensure_ascii=False, indent=2, allow_nan=False)
    files.write_text(folder / RESULTS_FILE, text + "\n")
    return results


def read_study_results(folder: Path) -> dict[str, Any]:
    """The results of a study as they were last written.

    Raises:
        RunError: there are none, or they are of another version.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise RunError(f"{folder}: the study has no results yet.", "Run it first.")
    again = f"exgra-med study report {folder} writes it anew."
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}).", again) from error
    if not isinstance(results, dict) or results.get("schema_version") != SCHEMA_VERSION:
        raise RunError(f"{path} is not of version {SCHEMA_VERSION}.", again)
    return results


def study_results(study: Study, nodes: list[Node], collected: Collected) -> dict[str, Any]:
    """Everything about a study that its table, figures and report are made of."""
    statistics = compare_arms(study, collected)
    first = collected.scores[0] if collected.scores else None
    num_closed = sum(question.answer_type == "CLOSED" for question in collected.questions)
    return {
        "schema_version": SCHEMA_VERSION,
        "study": study.name,
        "description": study.description,
        "scale": study.scale,
        "baseline": study.baseline,
        "metric": None if first is None else first.metric,
        "questions": None
        if first is None
        else {
            "dataset": first.dataset,
            "split": first.split,
            "data_fingerprint": first.data,
            "num_open": len(collected.questions) - num_closed,
            "num_closed": num_closed,
            "num_images": int(collected.clusters.max()) + 1,
        },
        "bootstrap": study.evaluation.model_dump(mode="json"),
        "fraction_stage": study.stage,
        "published": None if study.published is None else study.published.model_dump(mode="json"),
        "makes_data": None if study.make.data is None else study.make.data.source,
        "is_toy": _is_toy(study),
        **statistics,
        "conclusion": conclude(study, statistics, collected.missing, text_floor(first)),
        "missing": collected.missing,
        "num_cells": sum(node.cell is not None for node in nodes),
        "cells": [
            asdict(score.cell)
            | {"arm": score.cell.arm, "folder": score.folder, "value": score.value}
            | score.facts
            for score in collected.scores
        ],
    }


def text_floor(score: Score | None) -> float | None:
    """The study's metric for a lookup of the nearest training question, without images."""
    return None if score is None else score.facts["floors"].get("text_nearest")


def write_outcome(folder: Path) -> dict[str, Any]:
    """Write everything that a study ends with: results, table, figures, page.

    Returns:
        The results, with the path of the page as `report`.

    Raises:
        RunError, ScoreError: see `write_results`.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    results = write_results(folder)
    files.write_text(folder / TABLE_FILE, render(results, "markdown"))
    write_figures(folder, results)
    return results | {"report": write_page(folder, results)}


def write_figures(folder: Path, results: dict[str, Any]) -> list[Path]:
    """Write every figure as an SVG of its own; `figure.svg` is the first one."""
    written = []
    for number, drawing in enumerate(figures(results)):
        path = folder / ("figure.svg" if number == 0 else f"figure-{number + 1}.svg")
        files.write_text(path, drawing.alone)
        written.append(path)
    return written


def write_page(folder: Path, results: dict[str, Any]) -> Path:
    """Write `report.html`."""
    study, nodes = open_study(folder)
    failed = [
        (name, attempt.sentence)
        for name, attempt in states(folder, study, nodes).items()
        if attempt.state in ("failed", "not run")
    ]
    files.write_text(folder / PAGE_FILE, render_report(results, failed))
    return folder / PAGE_FILE


def _is_toy(study: Study) -> bool:
    """Whether the model was made for the study, from nothing."""
    made = study.make
    return any(
        each is not None for each in (study.recipe.model.architecture, made.parts, made.base)
    )
