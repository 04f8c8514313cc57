"""Arguments that the verbs of `evaluate` share."""

from pathlib import Path
from typing import Annotated

import typer

Answering = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A finished run; with --out a checkpoint; a new folder for --engine openai.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Run folder for the answers of a checkpoint.", metavar="RUN")
]
