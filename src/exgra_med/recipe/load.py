"""From a name or a file to a checked recipe, with the origin of every value.

schema default  <  extends  <  recipe  <  EXGRA_MED_SET  <  --set
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from exgra_med.errors import RecipeError
from exgra_med.files import is_file
from exgra_med.reading import parse_yaml, read_yaml
from exgra_med.recipe.schema import Recipe, check_recipe

ENVIRONMENT_VARIABLE = "EXGRA_MED_SET"
"""Assignments like those of `--set`, separated by semicolons."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe and, for every value somebody wrote, where it was written."""

    recipe: Recipe
    origins: dict[str, str]


def shipped_recipes() -> dict[str, Path]:
    """Name to file of every recipe in the package, sorted by name; studies are no recipes."""
    root = Path(str(resources.files("exgra_med.recipes")))
    files = sorted(root.rglob("*.yaml"))
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in files}
    return {name: path for name, path in names.items() if not name.startswith("studies/")}


def load_recipe(name_or_path: str | Path, assignments: Iterable[str] = ()) -> LoadedRecipe:
    """Load a recipe.

    Args:
        name_or_path: name of a shipped recipe (`demo`), or a YAML file.
        assignments: `a.b=value` texts, applied last.

    Raises:
        RecipeError: no such recipe, an unknown key, a value out of range, a broken `extends`.
    """
    name = str(name_or_path)
    values, origins = _read_with_bases(find_file(name, shipped_recipes(), "recipe"), ())
    environment = os.environ.get(ENVIRONMENT_VARIABLE, "")
    given = [(ENVIRONMENT_VARIABLE, part.strip()) for part in environment.split(";")]
    given = [pair for pair in given if pair[1]] + [("--set", text) for text in assignments]
    for origin, text in given:
        _merge(values, origins, parse_assignment(values, text, origin), origin, "")
    return LoadedRecipe(check_recipe(values, name), origins)


def find_file(name_or_path: str, shipped: Mapping[str, Path], kind: str) -> Path:
    """The file that a shipped name stands for, or the YAML file itself.

    Raises:
        RecipeError: neither; `kind` is what it is called, in the singular.
    """
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if is_file(path):
        return path
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    raise RecipeError(
        f"There is no {kind} named {name_or_path!r} and no such file.",
        f"Shipped {plural}: {', '.join(shipped)}.",
    )


def _read_with_bases(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    path = path.resolve()
    if path in chain:
        raise RecipeError(f"{path.name}: `extends` goes round in a circle.")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of names to values.")
    base_name = values.pop("extends", None)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if base_name is not None:
        base = path.parent / str(base_name)
        if not is_file(base):
            base = find_file(str(base_name), shipped_recipes(), "recipe")
        merged, origins = _read_with_bases(base, (*chain, path))
    _merge(merged, origins, values, path.name, "")
    return merged, origins


def _merge(
    target: dict[str, Any], origins: dict[str, str], values: Mapping[str, Any], origin: str, at: str
) -> None:
    for key, value in values.items():
        here = f"{at}.{key}" if at else str(key)
        if isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], origins, value, origin, here)
        else:
            target[key] = value
            origins[here] = origin


def parse_assignment(values: Mapping[str, Any], text: str, origin: str) -> dict[str, Any]:
    """The nested mapping of `a.b=value`, from `origin`, which is to be merged into `values`.

    Raises:
        RecipeError: not of this form, no YAML, no such stage, or an empty mapping over settings.
    """
    path, separator, raw = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"{origin}: {text!r} is not of the form a.b=value.")
    stages = values.get("stages")
    if keys[0] == "stages" and len(keys) > 1 and isinstance(stages, dict) and keys[1] not in stages:
        names = ", ".join(stages)
        raise RecipeError(f"{origin}: there is no stage {keys[1]!r}.", f"Stages: {names}.")
    nested: Any = parse_yaml(raw, f"{origin} {path}")
    for key in reversed(keys):
        nested = {key: nested}
    _refuse_empty(values, nested, origin, "")
    return nested


def _refuse_empty(known: Any, given: Any, origin: str, at: str) -> None:
    """Refuse an empty mapping over settings: as mappings are merged, it would change nothing."""
    if given == {} and isinstance(known, dict) and known:
        raise RecipeError(
            f"{origin}: `{at}={{}}` would change nothing; an empty mapping takes nothing away.",
            f"null takes away: {at}=null, or {at}.NAME=null for one of {', '.join(known)}.",
        )
    for key, value in given.items() if isinstance(given, dict) else ():
        below = known.get(key) if isinstance(known, dict) else None
        _refuse_empty(below, value, origin, f"{at}.{key}" if at else str(key))
