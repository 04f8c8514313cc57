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
Template = Annotated[
    str | None,
    typer.Option(
        help="Chat template, where not the model's own; a wrong name lists them.", metavar="NAME"
    ),
]


def refuse_for_server(out: Path | None, template: str | None) -> None:
    """Say that a server's answers need neither of these options.

    Raises:
        RunError: one was given.
    """
    from exgra_med.errors import RunError

    if template is not None:
        raise RunError("A server writes the prompt itself.", "Leave out --template.")
    if out is not None:
        raise RunError(
            "The answers of a server go to the run folder named first.", "Leave out --out."
        )
