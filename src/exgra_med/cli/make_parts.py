"""`exgra-med make-parts`: an image tower and a language model trained from nothing."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.recipe import AsJson

EXAMPLE = "Example: exgra-med make-parts --data data/phantom --out runs/parts"


def make_parts(
    data: Annotated[
        Path, typer.Option(help="Prepared folder with the splits `vision` and `language`.")
    ],
    out: Annotated[Path, typer.Option(help="Where the parts go.")],
    settings: Annotated[
        Path | None, typer.Argument(help="YAML file; what it does not say is as for the phantoms.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train small base models for `model.parts`: a tower on pictures, a language model on text.

    Neither sees a question about an image. Started again, it goes on where it was stopped.
    """
    import json

    from rich.console import Console

    from exgra_med.lab.base_models.make import make_parts as make
    from exgra_med.lab.base_models.settings import PartsSettings, load_parts
    from exgra_med.progress import RichReporter

    chosen = PartsSettings() if settings is None else load_parts(settings)
    console = Console(stderr=as_json)
    made = make(chosen, data, out, RichReporter(console))
    places = {"language": str(made.language), "vision": str(made.vision)}
    if as_json:
        typer.echo(json.dumps(places))
    else:
        console.print(f"Finished. In a recipe:\nmodel:\n  parts: {json.dumps(places)}")
