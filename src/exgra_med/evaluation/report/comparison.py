"""Several runs on one page: their scores, what can be told apart, and the spread over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.compare import compare_stored, conclude
from exgra_med.evaluation.report.page import NOTICE, template_environment, template_text
from exgra_med.evaluation.results import Entry, read_results, rules_text
from exgra_med.evaluation.session import read_recipe
from exgra_med.evaluation.tables import Cell, Column, Row, Table, bounded, overview_table
from exgra_med.files import write_text


@dataclass(frozen=True, slots=True)
class RunRow:
    """The scores of one run."""

    name: str
    seed: int
    entry: Entry
    """What was asked: the common data set of the runs."""
    recipe_without_seed: str


def write_comparison(
    runs: Sequence[Path], out: Path, data_folder: str | None = None, seed: int = 0
) -> Path:
    """Write one page about several runs.

    The first run is compared with each of the others on the same questions; Holm's adjustment runs
    over the whole table. Gives `out`, an HTML file.

    Raises:
        RunError: a folder is no run.
    """
    rows = [_run_row(run, data_folder) for run in runs]
    pairs, problems = _pairs(runs, rows, data_folder, seed)
    problems += _other_rules(rows)
    values = {
        "num_runs": len(rows),
        "first": rows[0].name,
        "scores": _scores(rows),
        "pairs": pairs,
        "problems": problems,
        "seeds": _seeds(rows),
        "notice": NOTICE,
        "css": template_text("report.css"),
    }
    html = template_environment(escape=True).get_template("runs.html.j2").render(values)
    write_text(out, html)
    return out


def _run_row(run: Path, data_folder: str | None) -> RunRow:
    recipe = read_recipe(run)
    named = None if data_folder is None else open_prepared(data_folder).manifest["dataset"]
    found = read_results(run).find("vqa", named)
    nothing = Entry(dataset="–", split="–", task="vqa", engine={}, scores={})
    rest = {key: value for key, value in recipe.items() if key != "seed"}
    return RunRow(
        name=run.name,
        seed=int(recipe.get("seed") or 0),
        entry=found[0] if found else nothing,
        recipe_without_seed=json.dumps(rest, sort_keys=True, default=str),
    )


def _other_rules(rows: Sequence[RunRow]) -> list[str]:
    """Says so where the strict scores of the runs are by several versions of the rules."""
    rules = {row.name: row.entry.rules("strict") for row in rows}
    known = {each for each in rules.values() if each is not None}
    if len(known) < 2:
        return []
    named = "; ".join(f"{name}: {rules_text(each)}" for name, each in rules.items() if each)
    return [
        "The strict scores in the table of runs are of different versions of the rules "
        f"({named}), so they are different quantities. `exgra-med evaluate vqa` of the older runs "
        "scores their stored answers again. Differences below are computed anew, by one version."
    ]


def _scores(rows: Sequence[RunRow]) -> Table:
    table = overview_table([row.entry for row in rows])
    named = [
        Row(row.name, [*each.cells, str(row.seed)], row.entry.label, each.is_first)
        for row, each in zip(rows, table.rows, strict=True)
    ]
    return Table([*table.columns, Column("Seed")], named, "Run")


def _pairs(
    runs: Sequence[Path], rows: Sequence[RunRow], data_folder: str | None, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the measures of the first run against each other one, and what was not compared."""
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
        {
            "other": name,
            "measure": each["label"],
            "difference": bounded(each["difference"], each["interval"], each["unit"]),
            "p_holm": each["p_holm"],
            "conclusion": each["conclusion"]
            .replace("the first run", rows[0].name)
            .replace("the second run", name),
        }
        for name, each in compared
    ]
    return pairs, problems


def _seeds(rows: Sequence[RunRow]) -> list[dict[str, str]]:
    """Runs whose recipes differ in the seed alone; two or more make a row."""
    families: dict[str, list[tuple[RunRow, float]]] = {}
    for row in rows:
        average = row.entry.score("strict", "average").value
        if average is not None:
            # Scores by other versions of the rules are other quantities, and have no common mean.
            family = f"{row.recipe_without_seed} {row.entry.rules('strict')}"
            families.setdefault(family, []).append((row, average))
    found = []
    for members in families.values():
        if len({row.seed for row, _ in members}) < 2:
            continue
        values = [value for _, value in members]
        found.append(
            {
                "names": ", ".join(row.name for row, _ in members),
                "mean": Cell(mean(values)).text,
                "deviation": Cell(stdev(values)).text,
                "each": ", ".join(Cell(value).text for value in values),
            }
        )
    return found
