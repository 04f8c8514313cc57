"""`exgra-med recipe`: list, show, diff, schema."""

import json
from typing import Annotated

import typer

from exgra_med.cli.options import Json, OptionalOutFile, Set
from exgra_med.files import write_text
from exgra_med.terminal import next_step, show

app = typer.Typer(help="Look at recipes: what a run is, before it runs.", no_args_is_help=True)
_HELP = "Name of a shipped recipe, or a YAML file."
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help=_HELP)]


@app.command("list", epilog="Example: `exgra-med recipe list`")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    from exgra_med.recipe.load import load_recipe, shipped_recipes

    rows = {name: load_recipe(name).recipe.description for name in shipped_recipes()}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {' '.join(text.split())}" for name, text in rows.items()]
    show(rows, as_json, [*lines, next_step("recipe show NAME")])


@app.command(
    "show", epilog="Example: `exgra-med recipe show demo --set stages.aligned.epochs=2 --explain`"
)
def show_recipe(
    recipe: RecipeArgument,
    assignments: Set = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where each value comes from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with every value resolved, as YAML."""
    from exgra_med.recipe.load import load_recipe
    from exgra_med.recipe.run_folder import recipe_yaml

    loaded = load_recipe(recipe, assignments or ())
    values = loaded.recipe.model_dump(mode="json")
    explained = (
        f"{path} = {value!r}  ({loaded.origins.get(path, 'default')})"
        for path, value in _leaves(values, "")
    )
    show(values, as_json, explained if explain else [recipe_yaml(loaded.recipe).rstrip("\n")])


@app.command(epilog="Example: `exgra-med recipe diff demo runs/mine/recipe.yaml`")
def diff(
    first: RecipeArgument,
    second: Annotated[str, typer.Argument(metavar="RECIPE2", help="Another one.")],
    as_json: Json = False,
) -> None:
    """Print every value in which two recipes differ."""
    from exgra_med.recipe.load import load_recipe
    from exgra_med.recipe.run_folder import differences

    found = differences(load_recipe(first).recipe, load_recipe(second).recipe)
    value = {path: [old, new] for path, old, new in found}
    lines = [f"{path}: {old!r} -> {new!r}" for path, old, new in found]
    show(value, as_json, lines or ["The two recipes are equal."])


@app.command(epilog="Example: `exgra-med recipe schema --out recipe.schema.json`")
def schema(out: OptionalOutFile = None) -> None:
    """Print the JSON Schema of a recipe, for editors that complete YAML."""
    from exgra_med.recipe.schema import Recipe

    text = json.dumps(Recipe.model_json_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


def _leaves(value: object, at: str) -> list[tuple[str, object]]:
    if isinstance(value, dict) and value:
        return [
            leaf
            for key, inner in value.items()
            for leaf in _leaves(inner, f"{at}.{key}" if at else str(key))
        ]
    return [(at, value)]
