"""What is asked of a model and how it is scored: one file a task.

A task is a function from a `Session` to an `Entry` of `results.json`, and an entry of `TASKS` that
says how its scores are shown. Tables, `scores.csv`, reports and the page loop over these.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from exgra_med.evaluation.measures import Measure
from exgra_med.evaluation.results import Entry


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the scores of a task are shown."""

    name: str
    """As in `results.json`."""
    title: str
    """Heading of its part of a report."""
    about: str
    """A sentence or two below the heading: what the numbers mean."""
    measures: Callable[[], list[Measure]]
    """What is measured, in the order of the table."""
    variants: Mapping[str, str]
    """Variant -> label, in the order of the table; others are shown by their own name."""
    rows: Literal["measures", "variants"]
    """What a row of the table is; the other is a column."""
    differences: bool = False
    """Whether measures that comparisons show are differences here: with a sign, and no place
    between 0 and 100."""
    notes: Callable[[Entry], list[str]]
    """Sentences that stand below the table of an entry."""
    groups: Callable[[Entry], dict[str, dict[str, dict[str, Any]]]] = lambda _: {}
    """Tables of an entry's parts: title -> group -> scores as in `Entry.scores`."""


_TASKS = {
    "vqa": "exgra_med.evaluation.tasks.vqa",
    "reliance": "exgra_med.evaluation.tasks.reliance",
    "multiple-choice": "exgra_med.evaluation.tasks.multiple_choice",
    "chat": "exgra_med.evaluation.tasks.chat",
}


def tasks() -> dict[str, Task]:
    """Every task by name, in the order of a report."""
    modules: dict[str, Any] = {name: import_module(module) for name, module in _TASKS.items()}
    return {name: module.TASK for name, module in modules.items()}
