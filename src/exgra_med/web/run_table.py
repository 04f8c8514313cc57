"""Several runs in one table: their scores, and what differs between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, ExgraMedError, RunError
from exgra_med.evaluation.measures import measures
from exgra_med.evaluation.results import Entry, read_results
from exgra_med.evaluation.session import read_recipe
from exgra_med.evaluation.tables import Column, Row, Table, cell
from exgra_med.reading import short

MOST_RUNS = 8
_MOST_DIFFERENCES = 60
_NAMES = ("name", "description")
"""Of a recipe: they differ, and decide nothing."""
_ABSENT = "–"


def scores_table(runs: Mapping[str, Path]) -> tuple[Table, list[str]]:
    """The strict scores of runs by name, a column each, and sentences about what is missing or not
    the same test.

    Raises:
        RunError: more than `MOST_RUNS`.
    """
    if len(runs) > MOST_RUNS:
        raise RunError(f"At most {MOST_RUNS} runs are compared here.", "Choose fewer.")
    entries: dict[str, Entry | None] = {}
    sentences = []
    for name, run in runs.items():
        entries[name] = None
        try:
            entries[name] = next(iter(read_results(run).find("vqa")), None)
        except ExgraMedError:
            # Its sentence names a folder of this machine.
            sentences.append(f"The results of {name} cannot be read.")
            continue
        if entries[name] is None:
            sentences.append(f"{name} has no scores yet.")
    known = [each for each in entries.values() if each is not None]
    if len({(each.label, each.data_fingerprint) for each in known}) > 1:
        sentences.append("These runs answered different questions: their scores do not compare.")
    if len({each.rules("strict") for each in known}) > 1:
        sentences.append("These scores follow different versions of the rules.")
    rows = [
        Row(
            each.name.replace("_", " ").capitalize(),
            [
                cell(entry.score("strict", each.name) if entry else None, each.unit)
                for entry in entries.values()
            ],
            is_first=number == 0,
        )
        for number, each in enumerate(measures("compare"))
    ]
    rows.append(Row("Test", [entry.label if entry else _ABSENT for entry in entries.values()]))
    return Table([Column(name) for name in runs], rows, "Score"), sentences


def differences_table(runs: Mapping[str, Path]) -> tuple[Table, list[str]]:
    """Every setting of the recipes that is not the same in all runs, a column for each run."""
    recipes: dict[str, dict[str, Any]] = {}
    sentences = []
    for name, run in runs.items():
        try:
            recipe = read_recipe(run)
        except (RunError, DataError):
            sentences.append(f"The recipe of {name} cannot be read.")
            continue
        kept = {key: value for key, value in recipe.items() if key not in _NAMES}
        recipes[name] = dict(_leaves(kept))
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    differing = [
        key for key in keys if len({repr(recipe.get(key)) for recipe in recipes.values()}) > 1
    ]
    if len(differing) > _MOST_DIFFERENCES:
        left = len(differing) - _MOST_DIFFERENCES
        sentences.append(f"{left} further settings differ.")
    rows = [
        Row(key, [_shown(recipe.get(key)) for recipe in recipes.values()])
        for key in differing[:_MOST_DIFFERENCES]
    ]
    return Table([Column(name) for name in recipes], rows, "Setting"), sentences


def _leaves(value: Any, at: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [
            leaf
            for key, inside in value.items()
            for leaf in _leaves(inside, f"{at}.{key}" if at else str(key))
        ]
    return [(at, value)]


def _shown(value: Any) -> str:
    return _ABSENT if value is None else value if isinstance(value, str) else short(value)
