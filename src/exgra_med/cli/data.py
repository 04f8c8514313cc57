"""`exgra-med data`: prepare, check and look at datasets."""

from typing import Annotated

import typer

from exgra_med.cli import data_derive, data_facts, data_prepare
from exgra_med.cli.output import print_json, say

app = typer.Typer(
    help="Prepare, check and look at datasets.", no_args_is_help=True, rich_markup_mode="markdown"
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Folder = Annotated[str, typer.Argument(help="A prepared folder, or `bundled:vqa-rad-sample`.")]


@app.command("list", epilog="Example: `exgra-med data list --json`")
def list_sources(as_json: Json = False) -> None:
    """List the datasets that can be prepared, and the bundled samples."""
    from exgra_med.data.inspect.listing import describe_sources

    rows = describe_sources()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        say(f"{row['name']}: {row['title']} ({row['licence']})")
        for name, line in row["variants"].items():
            say(f"    --split-variant {name}: {line}")


data_prepare.register(app)


@app.command(epilog="Example: `exgra-med data check data/vqa-rad --model checkpoints/start`")
def check(
    folder: Folder,
    model: Annotated[
        str | None, typer.Option("--model", help="Checkpoint whose tokens are counted.")
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="Tokens, the recipe's text.max_length.")
    ] = 2048,
    template: Annotated[str, typer.Option("--template", help="Chat template.")] = "exgra",
    as_json: Json = False,
) -> None:
    """Read every record and decode every image of a prepared folder; exit 2 if one is faulty."""
    from exgra_med.cli.output import counting
    from exgra_med.data.inspect.check import Window, check_prepared
    from exgra_med.data.prepared import open_prepared

    prepared = open_prepared(folder)
    window = None
    if model is not None:
        from exgra_med.model.bundle import load_tokenizer

        window = Window(*load_tokenizer(model), max_length)
    with counting(silent=as_json) as progress:
        report = check_prepared(prepared, progress, window, template)
    if as_json:
        print_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    if report.faults:
        raise typer.Exit(2)


data_derive.register(app)
data_facts.register(app)
