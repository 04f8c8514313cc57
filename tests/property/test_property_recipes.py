"""No value of any field of a recipe shows a traceback, and what `--dry-run` accepts does run.

Recipes are drawn from the schema: one to three assignments over `debug/tiny`, at and beyond the
bounds of a field, of other types, odd and empty texts, sections that are taken away. Each goes
through the command line itself, in this process: first `train --dry-run`, then, where that accepts
it, two steps of a stage. Allowed are success, or one or two short lines on standard error with exit
code 2; with 1 for a fault of training itself, such as a loss that is not finite. What the dry run
accepts the run may only refuse where the dry run has said that this machine cannot do it.

Draws by default are few; `EXGRA_MED_DRAWS=2000` and `-m slow` for many. `EXGRA_MED_FIRST_DRAW`
begins elsewhere.

Not drawn, because it cannot run here: names of a hub (they would be downloaded). Not run behind the
dry run: numbers so large that they are only a waiting time or a full disk, and the compiler of
`compile: true` (`Draw.long`).
"""

import json
import math
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from exgra_med.cli.main import run as command_line
from exgra_med.errors import RecipeError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import Recipe, StageSettings
from exgra_med.section import Section

STAGES = ("connector", "aligned", "vqa")
FEW = 2
MANY = int(os.environ.get("EXGRA_MED_DRAWS", "300"))
FIRST = int(os.environ.get("EXGRA_MED_FIRST_DRAW", "0"))
PATIENCE = 300
"""Seconds after which a command counts as one that hangs."""
TEXTS = ["", " ", "x", "none", "nowhere/at/all", "/", "ä ö", "[", "(?", "a" * 300, "a\nb", "\u0000"]
WRONG = ["text", 3, 2.5, True, None, [], [1], {}, {"a": 1}, [[]], "null"]
HUGE = [10**6, 10**12, 2**63, 10**30]


@dataclass(frozen=True)
class Draw:
    """Assignments of one recipe."""

    assignments: tuple[str, ...]
    long: bool
    """Whether it would run for long or fill the disk, so that only the dry run is tried."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    error: str
    fault: str
    """Traceback of an exception that reached the user; empty where there was none."""


def fields(section: type[Section], at: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Path and description of every field of every section, a stage's under each stage's name."""
    for name, field in section.model_fields.items():
        path = f"{at}{name}"
        yield path, field
        if path == "stages":
            for stage in STAGES:
                yield from fields(StageSettings, f"stages.{stage}.")
            continue
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, Section):
                yield from fields(part, f"{path}.")


def parts(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for each in get_args(annotation) for part in parts(each)]
    return [annotation]


def bound(limit: Any) -> Any:
    """The number of `Ge(0)`, `Lt(1)` and their like."""
    return getattr(limit, type(limit).__name__.lower())


def values(annotation: Any, metadata: list[Any]) -> tuple[list[Any], list[Any]]:
    """Values to try: those that run at once, and those that would run for long."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        more = [each for one in more for each in getattr(one, "metadata", [one])]
        return values(inner, more)
    found: list[Any] = []
    long: list[Any] = []
    for part in parts(annotation):
        if get_origin(part) is Annotated:
            quick, slow = values(part, [])
            found, long = found + quick, long + slow
        elif part is NoneType:
            found.append(None)
        elif get_origin(part) is Literal:
            found += [*get_args(part), get_args(part)[0] + "s", ""]
        elif get_origin(part) is list:
            own, _ = values(get_args(part)[0], [])
            found += [[], own, own[:1], own[:2], own[:1] * 2, own[0]]
        elif part is bool:
            found += [True, False]
        elif part is str:
            found += TEXTS
        elif part in (int, float):
            edges = [bound(each) for each in metadata if isinstance(each, Ge | Gt | Le | Lt)]
            near = [edge + step for edge in edges or [0] for step in (-1, 0, 1, 2)]
            if part is int:
                found += [*near, 3, 5, 8]
                long += HUGE if edges else []
                found += [] if edges else [-3, 40, 2**31, 2**63, -(2**64)]
            else:
                found += [*near, 1e-30, 1e-3, 0.5, 0.999, 1e8, 1e300, math.nan, math.inf, -math.inf]
        elif isinstance(part, type) and issubclass(part, Section):
            found += [{}]
    return found, long


FIELDS = list(fields(Recipe))
HUB = {"model.start", "model.parts.language", "model.parts.vision"}
UNENDING = {"max_steps", "num_workers"}
"""Their values beyond a few are a waiting time."""


def text_of(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def draw(number: int) -> Draw:
    """The recipe of a number, always the same.

    Half of them are drawn again until the schema takes them, so that enough get as far as training.
    """
    source = random.Random(number)
    sound = source.random() < 0.5
    for _ in range(50):
        drawn = draw_once(source)
        if not sound or is_sound(drawn):
            break
    return drawn


def is_sound(drawn: Draw) -> bool:
    """Whether the schema takes a recipe."""
    try:
        load_recipe("debug/tiny", drawn.assignments)
    except RecipeError:
        return False
    return True


def draw_once(source: random.Random) -> Draw:
    """One to three assignments, behind those that keep a run short."""
    kept = source.choice(["aligned", "aligned", "aligned", "connector", "vqa", "all"])
    assignments = ["model.architecture.vision.num_layers=4"]
    for stage in STAGES:
        assignments.append(f"stages.{stage}={{max_steps: 2, num_held_out_batches: 1}}")
    assignments += [f"stages.{stage}=null" for stage in STAGES if kept not in (stage, "all")]
    long = False
    for _ in range(source.choice([1, 1, 2, 2, 3])):
        pool = [
            (path, field)
            for path, field in FIELDS
            if not path.startswith("stages.") or kept == "all" or path.startswith(f"stages.{kept}")
        ]
        # A third of all fields are of the alignment, where most can go wrong together.
        narrow = [each for each in pool if ".alignment." in each[0]]
        path, field = source.choice(narrow if narrow and source.random() < 0.35 else pool)
        quick, slow = values(field.annotation, list(field.metadata))
        value = source.choice(quick or WRONG)
        if source.random() < 0.15:
            value = source.choice(WRONG)
        elif slow and source.random() < 0.15:
            value, long = source.choice(slow), True
        name = path.rpartition(".")[2]
        long = long or (name == "compile" and value is True)
        limit = (
            2 if name in UNENDING else 200 if path.startswith("model.architecture") else math.inf
        )
        if (name in UNENDING and value is None) or (isinstance(value, int) and value > limit):
            long = True
        assignments.append(f"{path}={text_of(value)}")
    return Draw(tuple(assignments), long)


def command(*arguments: str) -> Outcome:
    """Run the command line in this process, as its users do."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"still running after {PATIENCE} seconds")

    out, error, fault, code = StringIO(), StringIO(), "", 0
    before, sys.argv = sys.argv, ["exgra-med", *arguments]
    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        with redirect_stdout(out), redirect_stderr(error):
            command_line()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        fault = traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        sys.argv = before
    return Outcome(code, out.getvalue(), error.getvalue(), fault)


def complaint(outcome: Outcome, allowed: tuple[int, ...]) -> str:
    """What is wrong with an outcome; empty where nothing is."""
    if outcome.fault:
        return f"a traceback reaches the user:\n{outcome.fault}"
    if outcome.code == 0:
        return ""
    lines = [line for line in outcome.error.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Error: ")]
    if outcome.code not in allowed:
        return f"exit code {outcome.code}:\n{outcome.error}"
    if len(told) != 1 or len(lines) - lines.index(told[0]) > 2 or max(map(len, lines)) > 700:
        return f"not one or two short lines:\n{outcome.error}"
    return ""


def check(number: int, folder: Path) -> str:
    """What is wrong with the recipe of a number; empty where nothing is."""
    drawn = draw(number)
    options = [word for each in drawn.assignments for word in ("--set", each)]
    shown = " ".join(f"--set {each!r}" for each in drawn.assignments)
    run = folder / "run"
    planned = command("train", "debug/tiny", "--dry-run", "--out", str(run), *options)
    if found := complaint(planned, (2,)):
        return f"draw {number}, dry run, {shown}: {found}"
    if planned.code or drawn.long:
        return ""
    try:
        done = command("train", "debug/tiny", "--out", str(run), *options)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if found := complaint(done, (1, 2)):
        return f"draw {number}, run, {shown}: {found}"
    if done.code == 2:
        sentence = next(x for x in done.error.splitlines() if x.startswith("Error: "))
        if sentence.removeprefix("Error: ").strip() not in " ".join(planned.out.split()):
            return f"draw {number}, {shown}: the dry run accepts it, and the run: {done.error}"
    return ""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders without a name of their own, and the curves of trackers, go to a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NO_COLOR", "1")


def test_every_field_of_the_schema_is_drawn_from() -> None:
    paths = {path for path, _ in FIELDS}
    assert {
        "seed",
        "stages.aligned.alignment.solver",
        "model.architecture.vision.num_heads",
    } <= paths
    drawn = {
        each.partition("=")[0]
        for number in range(3000)
        for each in draw_once(random.Random(number)).assignments
    }
    assert len(paths - drawn) < len(paths) / 20


@pytest.mark.parametrize("number", range(FEW))
def test_a_drawn_recipe_runs_or_is_refused_in_a_sentence(number: int, tmp_path: Path) -> None:
    assert check(number, tmp_path) == ""


@pytest.mark.slow
def test_many_drawn_recipes_run_or_are_refused_in_a_sentence(tmp_path: Path) -> None:
    findings = [
        found for number in range(FIRST, FIRST + MANY) if (found := check(number, tmp_path))
    ]
    assert findings == []
