"""A study -> its nodes, each with the recipe it runs and the nodes it needs. Pure, no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exgra_med.errors import RecipeError, RunError
from exgra_med.lab.studies.schema import Match, Study
from exgra_med.recipe.schema import Recipe, check_recipe


def changed(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """Apply changes, dotted path -> value in order, to a whole recipe; null removes a section.

    A change of `data.X` also reaches the data of every stage, and of the evaluation, that has the
    recipe's own X: there it was taken from the recipe before.

    Raises:
        RecipeError: a path does not exist, or the result is not a recipe.
    """
    values = recipe.model_dump(mode="json")
    for path, value in changes.items():
        _assign(values, path.split("."), value, where)
    return check_recipe(values, where)


def _assign(values: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    stages = values["stages"]
    if keys[0] == "stages" and len(keys) > 1 and keys[1] not in stages:
        raise RecipeError(
            f"{where}: `{'.'.join(keys)}` changes a stage that the recipe does not have.",
            f"Stages: {', '.join(stages)}.",
        )
    if keys[0] == "data" and len(keys) == 2:
        own = values["data"].get(keys[1])
        for section in [*stages.values(), values["evaluation"]]:
            if section["data"].get(keys[1]) == own:
                section["data"][keys[1]] = value
    target = values
    for key in keys[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}
        target = target[key]
    target[keys[-1]] = value


DATA_NODE = "made/data"
PARTS_NODE = "made/parts"
BASE_NODE = "made/base"
SHARED = "shared"
CELLS = "cells"


@dataclass(frozen=True)
class Cell:
    """Where in the grid a run stands."""

    method: str
    setting: str | None
    fraction: float
    seed: int

    @property
    def arm(self) -> str:
        """Method with its setting: what is one line of the figure."""
        return self.method if self.setting is None else f"{self.method}+{self.setting}"

    @property
    def folder(self) -> str:
        """Folder of its run within the study."""
        return f"{CELLS}/{self.arm}/{self.fraction:g}/seed-{self.seed}"


@dataclass(frozen=True)
class Budget:
    """A control's budget: what `reference` spends in `stage`."""

    match: Match
    stage: str
    reference: Recipe


@dataclass(frozen=True)
class Node:
    """One piece of work, done by one process."""

    id: str
    """Its folder within the study."""
    kind: Literal["data", "parts", "base", "shared", "cell"]
    needs: tuple[str, ...]
    recipe: Recipe | None = None
    """Of a run; a matched control's gets its budget when it begins."""
    cell: Cell | None = None
    budget: Budget | None = None

    @property
    def is_made(self) -> bool:
        """Whether it makes data or parts; all other nodes are runs."""
        return self.kind in ("data", "parts")


def plan_study(study: Study, folder: Path) -> list[Node]:
    """Every node in the order in which they can run.

    Raises:
        RecipeError: a method or setting does not make a recipe.
    """
    made = _made_nodes(study, folder)
    planner = _Planner(study, folder, _base(study, folder), tuple(node.id for node in made))
    cells = [planner.node(cell) for cell in grid(study)]
    needed = [need for node in cells for need in node.needs]
    shared = sorted(planner.shared.values(), key=lambda node: needed.index(node.id))
    return [*made, *shared, *cells]


def grid(study: Study) -> Iterator[Cell]:
    """Cells of the grid: arms in the file's order, then fractions, then seeds."""
    for name, method in study.methods.items():
        for setting in (None, *study.settings):
            fractions = method.fractions or study.fractions
            if setting is not None:
                varied = study.settings[setting]
                if varied.methods is not None and name not in varied.methods:
                    continue
                fractions = varied.fractions or fractions
            for fraction in fractions:
                for seed in study.seeds:
                    yield Cell(name, setting, fraction, seed)


def arm_title(study: Study, arm: str) -> str:
    """What tables and figures call an arm."""
    name, _, setting = arm.partition("+")
    title = study.methods[name].title or name
    return f"{title}, {study.settings[setting].title or setting}" if setting else title


def find_node(nodes: list[Node], name: str) -> Node:
    """A node by its folder.

    Raises:
        RunError: the study has no such node.
    """
    for node in nodes:
        if node.id == name:
            return node
    raise RunError(f"The study has no node {name!r}.", "`exgra-med study status` lists them.")


def with_needs(nodes: list[Node], names: Sequence[str]) -> list[Node]:
    """The nodes of these names and what they need, in their order; all where none is named.

    Raises:
        RunError: the study has no such node.
    """
    wanted, waiting = set(), [find_node(nodes, name) for name in names]
    while waiting:
        node = waiting.pop()
        wanted.add(node.id)
        waiting += [find_node(nodes, need) for need in node.needs]
    return [node for node in nodes if not names or node.id in wanted]


def seed_after_seed(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in the order of work: all cells of the first seed, each behind what it needs, then
    those of the second. A study that is stopped early can then compare all its methods."""
    seeds = list(dict.fromkeys(node.cell.seed for node in nodes if node.cell))
    turns: dict[str, int] = {}
    for node in nodes:
        if node.cell:
            turn = seeds.index(node.cell.seed)
            for name in (node.id, *node.needs):
                turns[name] = min(turn, turns.get(name, turn))
    # What no cell needs by itself is needed by what comes next: data, parts.
    return sorted(nodes, key=lambda node: turns.get(node.id, -1))


def _made_nodes(study: Study, folder: Path) -> list[Node]:
    nodes = []
    if study.make.data is not None:
        nodes.append(Node(DATA_NODE, "data", ()))
    if study.make.parts is not None:
        nodes.append(Node(PARTS_NODE, "parts", tuple(node.id for node in nodes)))
    if study.make.base is not None:
        changes = _made(study, study.make.base, folder) | {"name": f"{study.name}/{BASE_NODE}"}
        recipe = changed(study.make.base, changes, f"{study.name}: make.base")
        nodes.append(Node(BASE_NODE, "base", tuple(node.id for node in nodes), recipe=recipe))
    return nodes


def _made(study: Study, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the study makes: the data of every stage, and the parts that the model is joined of."""
    changes: dict[str, Any] = {}
    if study.make.data is not None:
        changes["data.folder"] = (folder / DATA_NODE).as_posix()
    if study.make.parts is not None:
        place, origin = folder / PARTS_NODE, recipe.model.parts or recipe.model.architecture
        parts = {name: (place / name).as_posix() for name in ("language", "vision")}
        connector = origin.connector if origin else "none"
        changes["model"] = {"parts": parts | {"connector": connector}}
    return changes


def _base(study: Study, folder: Path) -> Recipe:
    """The recipe with the study's own changes, on what the study makes."""
    changes = _made(study, study.recipe, folder)
    if study.make.base is not None:
        changes["model"] = _started_from(folder / BASE_NODE)
    changes["evaluation.split"] = study.evaluation.splits[0]
    return changed(study.recipe, changes | study.set, f"{study.name}: set")


@dataclass
class _Planner:
    study: Study
    folder: Path
    base: Recipe
    needs: tuple[str, ...]
    """What every run needs."""
    shared: dict[str, Node] = field(default_factory=dict)
    """Values of a recipe, as JSON -> the run of the shared stages with that recipe."""

    def node(self, cell: Cell) -> Node:
        """The run of a cell; its shared run joins `shared`."""
        full = self._full_recipe(cell)
        start = self._shared_node(full, cell).id if self.study.shared else None
        recipe = self._cell_recipe(full, cell, start)
        budget, match = None, self.study.methods[cell.method].match
        if match is not None:
            other = Cell(match.method, None, cell.fraction, cell.seed)
            reference = self._cell_recipe(self._full_recipe(other), other, start)
            budget = Budget(match, self.study.stage, reference)
        needs = (start,) if start else self.needs
        return Node(cell.folder, "cell", needs, recipe, cell, budget)

    def _full_recipe(self, cell: Cell) -> Recipe:
        study = self.study
        changes = {
            "seed": cell.seed,
            f"stages.{study.stage}.data.fraction": cell.fraction,
            f"stages.{study.stage}.data.subset_seed": cell.seed,
        }
        recipe = changed(self.base, changes, study.name)
        for kind, known, name in (
            ("methods", study.methods, cell.method),
            ("settings", study.settings, cell.setting),
        ):
            if name is not None:
                recipe = changed(recipe, known[name].set, f"{study.name}: {kind}.{name}.set")
        return recipe

    def _cell_recipe(self, full: Recipe, cell: Cell, start: str | None) -> Recipe:
        """The stages after the shared ones, from the shared run."""
        study, stages = self.study, full.model_dump(mode="json")["stages"]
        changes: dict[str, Any] = {
            "name": f"{study.name}/{cell.folder}".replace("+", "-"),
            "description": arm_title(study, cell.arm),
            "stages": {name: stages[name] for name in stages if name not in study.shared},
        }
        if start:
            changes["model"] = _started_from(self.folder / start)
        return changed(full, changes, cell.folder)

    def _shared_node(self, full: Recipe, cell: Cell) -> Node:
        """The shared run of a cell; a method that changes a shared stage gets its own."""
        plain = f"{SHARED}/seed-{cell.seed}"
        own = self._shared_part(full, plain)
        key = json.dumps(own.model_dump(mode="json"))
        if key not in self.shared:
            seeded = changed(self.base, {"seed": cell.seed}, self.study.name)
            common = own == self._shared_part(seeded, plain)
            name = plain if common else f"{SHARED}/{cell.arm}/seed-{cell.seed}"
            self.shared[key] = Node(name, "shared", self.needs, self._shared_part(full, name))
        return self.shared[key]

    def _shared_part(self, recipe: Recipe, name: str) -> Recipe:
        stages = recipe.model_dump(mode="json")["stages"]
        changes = {
            "name": f"{self.study.name}/{name}".replace("+", "-"),
            "description": "Stages that do not differ between methods.",
            "stages": {stage: stages[stage] for stage in self.study.shared},
            "evaluation": self.base.model_dump(mode="json")["evaluation"],
        }
        return changed(recipe, changes, name)


def _started_from(place: Path) -> dict[str, Any]:
    return {"start": place.as_posix(), "architecture": None, "parts": None}
