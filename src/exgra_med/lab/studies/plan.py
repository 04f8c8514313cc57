"""A study -> its nodes, each with the recipe it runs and the nodes it needs. Pure, no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exgra_med.errors import RecipeError, RunError
from exgra_med.lab.studies.schema import Match, Study
from exgra_med.recipe.schema import Recipe, check_recipe

# A recipe with some of its values changed, by dotted path.


def changed(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """Apply changes to a whole recipe.

    A change of `data.X` also reaches the data of every stage, and of the evaluation, that has the
    recipe's own X: there it was taken from the recipe before.

    Args:
        recipe: complete, as every checked recipe is.
        changes: dotted path -> value, in order; null removes a section.
        where: who asks for the changes, for the error message.

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

    Args:
        study: the study.
        folder: its folder, for the paths in the recipes.

    Raises:
        RecipeError: a method or setting does not make a recipe.
    """
    made = _made_nodes(study, folder)
    base = _base(study, folder)
    needs = tuple(node.id for node in made)
    shared: dict[str, Node] = {}
    cells = []
    for cell in grid(study):
        full = _full_recipe(study, base, cell)
        start = ()
        if study.shared:
            node = _shared_node(study, base, full, cell, needs, shared)
            start = (node.id,)
        cells.append(
            Node(
                id=cell.folder,
                kind="cell",
                needs=start or needs,
                recipe=_cell_recipe(study, folder, full, cell, start),
                cell=cell,
                budget=_budget(study, base, folder, cell, start),
            )
        )
    return [*made, *sorted(shared.values(), key=_first_needed(cells)), *cells]


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


def _made_nodes(study: Study, folder: Path) -> list[Node]:
    nodes = []
    if study.make.data is not None:
        nodes.append(Node(DATA_NODE, "data", ()))
    if study.make.parts is not None:
        nodes.append(Node(PARTS_NODE, "parts", tuple(node.id for node in nodes)))
    if study.make.base is not None:
        changes = _made_data(study, folder) | _made_parts(study, study.make.base, folder)
        changes |= {"name": f"{study.name}/{BASE_NODE}"}
        recipe = changed(study.make.base, changes, f"{study.name}: make.base")
        nodes.append(Node(BASE_NODE, "base", tuple(node.id for node in nodes), recipe=recipe))
    return nodes


def _made_data(study: Study, folder: Path) -> dict[str, Any]:
    """The data that the study makes, in every stage."""
    return {} if study.make.data is None else {"data.folder": (folder / DATA_NODE).as_posix()}


def _made_parts(study: Study, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The model joined from the parts that the study makes."""
    if study.make.parts is None:
        return {}
    place, origin = folder / PARTS_NODE, recipe.model.parts or recipe.model.architecture
    parts = {name: (place / name).as_posix() for name in ("language", "vision")}
    connector = origin.connector if origin else "none"
    return {"model": {"parts": parts | {"connector": connector}}}


def _base(study: Study, folder: Path) -> Recipe:
    """The recipe with the study's own changes, on what the study makes."""
    changes = _made_data(study, folder) | _made_parts(study, study.recipe, folder)
    if study.make.base is not None:
        place = (folder / BASE_NODE).as_posix()
        changes["model"] = {"start": place, "architecture": None, "parts": None}
    changes["evaluation.split"] = study.evaluation.splits[0]
    return changed(study.recipe, changes | study.set, f"{study.name}: set")


def _full_recipe(study: Study, base: Recipe, cell: Cell) -> Recipe:
    changes = {
        "seed": cell.seed,
        f"stages.{study.stage}.data.fraction": cell.fraction,
        f"stages.{study.stage}.data.subset_seed": cell.seed,
    }
    recipe = changed(base, changes, study.name)
    recipe = changed(
        recipe, study.methods[cell.method].set, f"{study.name}: methods.{cell.method}.set"
    )
    if cell.setting is not None:
        changes = study.settings[cell.setting].set
        recipe = changed(recipe, changes, f"{study.name}: settings.{cell.setting}.set")
    return recipe


def _cell_recipe(
    study: Study, folder: Path, full: Recipe, cell: Cell, start: tuple[str, ...]
) -> Recipe:
    """The stages after the shared ones, from the shared run."""
    changes: dict[str, Any] = {
        "name": f"{study.name}/{cell.folder}".replace("+", "-"),
        "description": arm_title(study, cell.arm),
    }
    if start:
        place = (folder / start[0]).as_posix()
        changes["model"] = {"start": place, "architecture": None, "parts": None}
    changes["stages"] = {
        name: stage
        for name, stage in full.model_dump(mode="json")["stages"].items()
        if name not in study.shared
    }
    return changed(full, changes, cell.folder)


def _shared_node(
    study: Study,
    base: Recipe,
    full: Recipe,
    cell: Cell,
    needs: tuple[str, ...],
    known: dict[str, Node],
) -> Node:
    """The shared run that a cell starts from; a method that changes a shared stage gets its own."""

    def shared_part(recipe: Recipe, name: str) -> Recipe:
        values = recipe.model_dump(mode="json")
        changes = {
            "name": f"{study.name}/{name}".replace("+", "-"),
            "description": "Stages that do not differ between methods.",
            "stages": {stage: values["stages"][stage] for stage in study.shared},
            "evaluation": base.model_dump(mode="json")["evaluation"],
        }
        return changed(recipe, changes, name)

    plain = f"{SHARED}/seed-{cell.seed}"
    own = shared_part(full, plain)
    key = json.dumps(own.model_dump(mode="json"))
    if key not in known:
        common = own == shared_part(changed(base, {"seed": cell.seed}, study.name), plain)
        name = plain if common else f"{SHARED}/{cell.arm}/seed-{cell.seed}"
        known[key] = Node(name, "shared", needs, recipe=shared_part(full, name))
    return known[key]


def _budget(
    study: Study, base: Recipe, folder: Path, cell: Cell, start: tuple[str, ...]
) -> Budget | None:
    match = study.methods[cell.method].match
    if match is None:
        return None
    other = Cell(match.method, None, cell.fraction, cell.seed)
    reference = _cell_recipe(study, folder, _full_recipe(study, base, other), other, start)
    return Budget(match, study.stage, reference)


def _first_needed(cells: list[Node]) -> Any:
    places: dict[str, int] = {}
    for number, node in enumerate(cells):
        for need in node.needs:
            places.setdefault(need, number)
    return lambda node: places[node.id]
