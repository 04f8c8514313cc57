"""`exgra-med recipe`: list, show, diff, schema."""

import json
from pathlib import Path
from typing import Annotated

import typer

from exgra_med.files import write_text
from exgra_med.recipe.load import load_recipe, shipped_recipes
from exgra_med.recipe.run_folder import differences, recipe_yaml
from exgra_med.recipe.schema import Recipe

app = typer.Typer(help="Look at recipes: what a run is, before it runs.", no_args_is_help=True)

Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="a.b=value, applied last; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: exgra-med recipe list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with the package."""
    rows = {name: load_recipe(name).recipe.description for name in shipped_recipes()}
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, rows))
    for name, description in rows.items():
        typer.echo(f"{name:<{width}}  {' '.join(description.split())}")


@app.command(epilog="Example: exgra-med recipe show demo --set stages.aligned.epochs=2 --explain")
def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    assignments: Assignments = None,
    explain: Annotated[bool, typer.Option(help="Say where each value was written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe with every value resolved."""
    loaded = load_recipe(name, assignments or ())
    if as_json:
        typer.echo(json.dumps(loaded.recipe.model_dump(mode="json"), indent=2))
    elif explain:
        for path, value in _leaves(loaded.recipe.model_dump(mode="json"), ""):
            typer.echo(f"{path} = {value!r}  ({loaded.origins.get(path, 'default')})")
    else:
        typer.echo(recipe_yaml(loaded.recipe), nl=False)


@app.command(epilog="Example: exgra-med recipe diff demo runs/mine/recipe.yaml")
def diff(
    first: Annotated[str, typer.Argument(help="A recipe.")],
    second: Annotated[str, typer.Argument(help="Another recipe.")],
    as_json: AsJson = False,
) -> None:
    """Print every value in which two recipes differ."""
    found = differences(load_recipe(first).recipe, load_recipe(second).recipe)
    if as_json:
        typer.echo(json.dumps({path: [old, new] for path, old, new in found}, indent=2))
        return
    for path, old, new in found:
        typer.echo(f"{path}: {old!r} -> {new!r}")
    if not found:
        typer.echo("The two recipes are equal.")


@app.command(epilog="Example: exgra-med recipe schema --out recipe.schema.json")
def schema(
    out: Annotated[Path | None, typer.Option(help="File to write; standard output else.")] = None,
) -> None:
    """Print the JSON Schema of a recipe, for editors that complete YAML."""
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
