"""A run or a study as HTML: what it scored, how it learned, where it fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.report.content import gather
from exgra_med.evaluation.report.environment import template_environment
from exgra_med.evaluation.report.figures import training_figures
from exgra_med.evaluation.report.tables import cell
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.run_folder import read_recipe
from exgra_med.studies.outcome import read_study_results
from exgra_med.studies.report import render_fragment
from exgra_med.web.answers import ANSWERS_PER_PAGE, Answers, Row
from exgra_med.web.folders import Place, runs_below

TEMPLATES = Path(__file__).parent / "templates"
_MOST_RUNS = 300


def place_html(place: Place, data_folder: str | None = None) -> str:
    """A run's scores with intervals and its curves; a study's answer, figures and runs.

    Raises:
        RunError: a file in it cannot be read.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    environment = template_environment(True, TEMPLATES)
    if place.kind == "study":
        return environment.get_template("study.html.j2").render(_study(place))
    content = gather(place.path, data_folder)
    figures = training_figures(content.stages)
    return environment.get_template("run.html.j2").render(report=content, figures=figures)


def answers_html(answers: Answers, rows: Sequence[Row], page: int) -> str:
    """One page of cards, and how many there are."""
    return (
        template_environment(True, TEMPLATES)
        .get_template("answers.html.j2")
        .render(
            cards=answers.cards(rows, page),
            num_rows=len(rows),
            num_all=len(answers.rows),
            first=page * ANSWERS_PER_PAGE + 1,
        )
    )


def num_pages(rows: Sequence[Row]) -> int:
    """Pages of cards, at least one."""
    return max(1, -(-len(rows) // ANSWERS_PER_PAGE))


def _study(place: Place) -> dict[str, Any]:
    runs = runs_below(place.path)
    answer, description, problem = "", "", ""
    try:
        results = read_study_results(place.path)
        answer, description = render_fragment(results), results["description"]
    except RunError:  # its sentence names a folder of this machine
        problem = "It has no results to show yet: `exgra-med study report` writes them."
    return {
        "name": place.name,
        "answer": answer,
        "description": description,
        "problem": problem,
        "rows": [_run_row(place.path, run) for run in runs[:_MOST_RUNS]],
        "num_runs": len(runs),
    }


def _run_row(study: Path, run: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": run.relative_to(study).as_posix(), "problem": ""}
    try:
        strict = (read_results(run).get("vqa") or {}).get("strict") or {}
        row["seed"] = read_recipe(run).get("seed", 0)
    except (RunError, DataError) as error:
        return row | {"problem": error.message}
    scores = {name: cell(strict, name) for name in ("average", "open_recall", "closed_accuracy")}
    return row | {"scores": scores}
