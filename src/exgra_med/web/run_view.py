"""A run or a study as HTML: what it scored, how it learned, where it fails."""

import base64
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
from exgra_med.web.answers import ANSWERS_PER_PAGE, Answers, Row
from exgra_med.web.folders import Place, runs_below

TEMPLATES = Path(__file__).parent / "templates"
_MOST_FILE_BYTES = 2**20
_MOST_RUNS = 300


def place_html(place: Place, data_folder: str | None = None) -> str:
    """A run's scores with intervals and its curves; a study's figure and its runs.

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
    return {
        "name": place.name,
        "figure": _svg_picture(place.path / "figure.svg"),
        "table": _text(place.path / "table.md"),
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


def _svg_picture(path: Path) -> str:
    """An SVG to stand in an `img`, where it can neither run nor fetch anything; empty if absent."""
    content = _bytes(path)
    return base64.b64encode(content).decode("ascii") if content else ""


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    if not path.is_file() or path.is_symlink():
        return b""
    with path.open("rb") as stream:
        content = stream.read(_MOST_FILE_BYTES + 1)
    if len(content) > _MOST_FILE_BYTES:
        raise RunError(f"{path.name} of the study has more than {_MOST_FILE_BYTES} bytes.")
    return content
