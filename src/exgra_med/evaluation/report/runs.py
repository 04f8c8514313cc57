"""Several runs on one page: their scores, what can be told apart, and the spread over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.compare import compare_stored, conclude
from exgra_med.evaluation.report.content import NOTICE
from exgra_med.evaluation.report.environment import template_environment, template_text
from exgra_med.evaluation.report.tables import Cell, cell
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.run_folder import read_recipe
from exgra_med.files import write_text

_MEASURES = {"average": "average", "open_recall": "open recall", "closed_accuracy": "closed"}


@dataclass(frozen=True, slots=True)
class RunRow:
    """The scores of one run."""

    name: str
    seed: int
    dataset: str
    average: Cell
    recall: Cell
    closed: Cell
    legacy_average: Cell
    recipe_without_seed: str


@dataclass(frozen=True, slots=True)
class PairRow:
    """One measure of the first run against another one."""

    other: str
    measure: str
    difference: Cell
    p_holm: float
    conclusion: str


@dataclass(frozen=True, slots=True)
class SeedRow:
    """The same recipe under several seeds."""

    names: str
    num: int
    mean: str
    deviation: str
    each: str


def write_comparison(
    runs: Sequence[Path], out: Path, data_folder: str | None = None, seed: int = 0
) -> Path:
    """Write one page about several runs, `out`, and the same as Markdown beside it.

    The first run is compared with each of the others on the same questions; Holm's adjustment runs
    over the whole table.

    Args:
        runs: two or more run folders, scored.
        out: an HTML file.
        data_folder: the prepared folder that was answered, where it is not at the recipe's place.
        seed: of resamples and permutations.

    Returns:
        `out`.

    Raises:
        RunError: a folder is no run.
    """
    rows = [_run_row(run) for run in runs]
    pairs, problems = _pairs(runs, rows, data_folder, seed)
    values = {
        "rows": rows,
        "pairs": pairs,
        "problems": problems,
        "seeds": _seeds(rows),
        "notice": NOTICE,
        "css": template_text("report.css"),
    }
    html = template_environment(escape=True).get_template("runs.html.j2").render(values)
    markdown = template_environment(escape=False).get_template("runs.md.j2").render(values)
    write_text(out.with_suffix(".md"), markdown)
    write_text(out, html)
    return out


def _run_row(run: Path) -> RunRow:
    recipe = read_recipe(run)
    vqa = read_results(run).get("vqa") or {}
    strict, legacy = vqa.get("strict") or {}, vqa.get("legacy") or {}
    rest = {key: value for key, value in recipe.items() if key != "seed"}
    return RunRow(
        name=run.name,
        seed=int(recipe.get("seed") or 0),
        dataset=f"{vqa.get('dataset', '–')}, {vqa.get('split', '–')}",
        average=cell(strict, "average"),
        recall=cell(strict, "open_recall"),
        closed=cell(strict, "closed_accuracy"),
        legacy_average=cell(legacy, "average"),
        recipe_without_seed=json.dumps(rest, sort_keys=True, default=str),
    )


def _pairs(
    runs: Sequence[Path], rows: Sequence[RunRow], data_folder: str | None, seed: int
) -> tuple[list[PairRow], list[str]]:
    compared: list[tuple[str, dict[str, Any]]] = []
    problems = []
    for run, row in zip(runs[1:], rows[1:], strict=True):
        try:
            result = compare_stored(runs[0], run, data_folder=data_folder, seed=seed)
        except (DataError, ScoreError) as error:
            problems.append(f"{rows[0].name} and {row.name} were not compared: {error.message}")
            continue
        compared += [(row.name, each) for each in result["rows"]]
    conclude([each for _, each in compared])
    pairs = [
        PairRow(
            other=name,
            measure=_MEASURES[each["measure"]],
            difference=Cell(each["difference"], *(each["interval"] or (None, None))),
            p_holm=each["p_holm"],
            conclusion=each["conclusion"].replace("the first run", rows[0].name)
            .replace("the second run", name),
        )
        for name, each in compared
    ]  # fmt: skip
    return pairs, problems


def _seeds(rows: Sequence[RunRow]) -> list[SeedRow]:
    """Runs whose recipes differ in the seed alone; two or more make a row."""
    families: dict[str, list[RunRow]] = {}
    for row in rows:
        if row.average.value is not None:
            families.setdefault(row.recipe_without_seed, []).append(row)
    found = []
    for members in families.values():
        values = [row.average.value for row in members if row.average.value is not None]
        if len({row.seed for row in members}) < 2:
            continue
        found.append(
            SeedRow(
                names=", ".join(row.name for row in members),
                num=len(values),
                mean=Cell(mean(values)).text,
                deviation=Cell(stdev(values)).text,
                each=", ".join(Cell(value).text for value in values),
            )
        )
    return found
