"""A recipe with some of its values changed, by dotted path."""

from collections.abc import Mapping
from typing import Any

from exgra_med.errors import RecipeError
from exgra_med.recipe.load import check_recipe
from exgra_med.recipe.schema import Recipe


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
