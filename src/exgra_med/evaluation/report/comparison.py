"""Several runs on one page: their scores, what can be told apart, and the spread over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from exgra_med.data.records import open_prepared
from exgra_med.errors import DamagedFileError, DataError, ScoreError
from exgra_med.evaluation.compare import (
    RULE,
    Comparison,
    conclude,
    distinct_names,
    stored_comparison,
    told,
)
from exgra_med.evaluation.report.page import (
    NOTICE,
    Example,
    changed_answers,
    judge,
    make_card,
    spread,
    template_environment,
)
from exgra_med.evaluation.results import Entry, read_results, rules_text
from exgra_med.evaluation.session import read_recipe
from exgra_med.evaluation.tables import (
    Cell,
    Column,
    Row,
    Table,
    behind_sentences,
    bounded,
    differing_sentences,
    overview_table,
)
from exgra_med.files import write_text
from exgra_med.page_style import PAGE_CSS


@dataclass(frozen=True, slots=True)
class RunRow:
    """The scores of one run."""

    name: str
    seed: int
    entry: Entry
    """What was asked: the common data set of the runs."""
    recipe_without_seed: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One question that two runs answer differently well."""

    first: Example
    """With the picture, and the answer of the first run."""
    second: Example


@dataclass(frozen=True, slots=True)
class Pair:
    """The first run beside another one."""

    names: Sequence[str]
    warnings: Sequence[str]
    """What has to be said before the numbers."""
    basis: list[str]
    """What stands behind the numbers of each of the two."""
    rows: list[dict[str, Any]]
    differing: list[str]
    disagreements: list[Disagreement]
    num_disagreements: int
    """In all, shown or not."""
    num_other_words: int
    """Questions whose answers differ and score the same."""


def write_comparison(
    runs: Sequence[Path], out: Path, data_folder: str | None = None, seed: int = 0
) -> Path:
    """Write one page about several runs.

    The first run is compared with each of the others on the same questions; Holm's adjustment runs
    over the whole page. Gives `out`, an HTML file.

    Raises:
        RunError: a folder is no run.
    """
    names = distinct_names(runs)
    rows = [_run_row(run, name, data_folder) for run, name in zip(runs, names, strict=True)]
    pairs, problems = _pairs(runs, names, data_folder, seed)
    changed = [
        sentence
        for run, row in zip(runs, rows, strict=True)
        for sentence in changed_answers(run, row.entry)
    ]
    problems = [*changed, *problems, *_other_rules(rows)]
    values = {
        "num_runs": len(rows),
        "names": names,
        "scores": _scores(rows),
        "pairs": pairs,
        "problems": problems,
        "rule": RULE,
        "seeds": _seeds(rows),
        "notice": NOTICE,
        "css": PAGE_CSS,
    }
    html = template_environment(escape=True).get_template("runs.html.j2").render(values)
    write_text(out, html)
    return out


def _run_row(run: Path, name: str, data_folder: str | None) -> RunRow:
    recipe = read_recipe(run)
    named = None if data_folder is None else open_prepared(data_folder).manifest["dataset"]
    found = read_results(run).find("vqa", named)
    nothing = Entry(dataset="–", split="–", task="vqa", engine={}, scores={})
    rest = {key: value for key, value in recipe.items() if key != "seed"}
    return RunRow(
        name=name,
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
    # How many questions were answered says more than how many there are.
    named = [
        Row(
            row.name,
            [*each.cells[:-1], _answered(row.entry), str(row.seed)],
            row.entry.label,
            each.is_first,
        )
        for row, each in zip(rows, table.rows, strict=True)
    ]
    columns = [*table.columns[:-1], Column("Answered"), Column("Seed")]
    return Table(columns, named, "Run")


def _answered(entry: Entry) -> str:
    counts = entry.counts()
    return f"{counts['questions'] - counts['missing']} of {counts['questions']}" if counts else "–"


MOST_PICTURES = 24
"""Disagreements that are shown with their picture; all of them are in `evaluate compare --json`."""


def _pairs(
    runs: Sequence[Path], names: Sequence[str], data_folder: str | None, seed: int
) -> tuple[list[Pair], list[str]]:
    """The first run beside each other one, and what was not compared."""
    compared: list[Comparison] = []
    problems = []
    for run, name in zip(runs[1:], names[1:], strict=True):
        try:
            found = stored_comparison(runs[0], run, data_folder=data_folder, seed=seed)
        except (DataError, DamagedFileError, ScoreError) as error:
            problems.append(f"{names[0]} and {name} were not compared: {error.message}")
            continue
        compared.append(replace(found, names=(names[0], name)))
    tables = conclude(compared)
    return [_pair(*each) for each in zip(compared, tables, strict=True)], problems


def _pair(comparison: Comparison, rows: list[dict[str, Any]]) -> Pair:
    result = told(comparison, rows)
    chosen = comparison.disagreements
    # Where many are equally large, different pictures come first.
    shown = spread(chosen, comparison.pairings[0].questions, MOST_PICTURES)
    return Pair(
        names=comparison.names,
        warnings=[*comparison.warnings, *comparison.notes],
        basis=behind_sentences(result),
        rows=[
            row
            | {
                "values": [Cell(row[side], unit=row["unit"]).text for side in ("first", "second")],
                "shown": bounded(row["difference"], row["interval"], row["unit"]),
            }
            for row in rows
        ],
        differing=differing_sentences(result),
        disagreements=[_disagreement(comparison, row) for row in shown],
        num_disagreements=len(chosen),
        num_other_words=comparison.num_other_words,
    )


def _disagreement(comparison: Comparison, row: int) -> Disagreement:
    sides = [
        (pairing.questions[row], pairing.answers[row], judge(pairing.questions[row], answer))
        for pairing in comparison.pairings
        for answer in [pairing.answers[row]]
    ]
    # The picture is drawn once, beside the first answer.
    return Disagreement(make_card(*sides[0], comparison.images), make_card(*sides[1], None))


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
