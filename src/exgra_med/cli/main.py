"""`exgra-med`: nouns and verbs. Imports nothing heavier than typer, so `--help` answers at once."""

import logging
import sys
from typing import Annotated, Any

import typer

from exgra_med import __version__
from exgra_med.cli import (
    bench,
    captions,
    chat,
    checkpoint,
    data,
    demo,
    doctor,
    evaluate,
    recipe,
    serve,
    study,
    train,
    web,
)
from exgra_med.cli.output import printable
from exgra_med.cli.spelling import CommandLine
from exgra_med.errors import ExgraMedError

PANELS = ("First steps", "Prepare data", "Train and evaluate", "Use a model", "Study the method")
START, DATA, TRAIN, USE, LAB = PANELS


class _InPanels(CommandLine):
    """The verbs and nouns in the order of their panels; typer puts verbs before nouns."""

    def list_commands(self, ctx: Any) -> list[str]:
        panels = {n: getattr(c, "rich_help_panel", None) for n, c in self.commands.items()}
        return sorted(panels, key=lambda name: PANELS.index(panels[name]))


app = typer.Typer(
    cls=_InPanels,
    name="exgra-med",
    help="Train and evaluate medical vision-language models with multi-graph alignment.",
    epilog="Start with `exgra-med demo`. Research use only: no output of this software is clinical"
    " advice.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel=START, epilog=demo.EXAMPLES)(demo.demo)
app.command(rich_help_panel=START, epilog="Example: `exgra-med doctor`")(doctor.doctor)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.add_typer(captions.app, name="captions", rich_help_panel=DATA)
app.add_typer(recipe.app, name="recipe", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN, epilog=train.EXAMPLES)(train.train)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=TRAIN)
app.add_typer(checkpoint.app, name="checkpoint", rich_help_panel=TRAIN)
app.command(rich_help_panel=USE, epilog=chat.EXAMPLE)(chat.chat)
app.command(rich_help_panel=USE, epilog=serve.EXAMPLE)(serve.serve)
app.command(rich_help_panel=USE, epilog=web.EXAMPLE)(web.web)
app.add_typer(study.app, name="study", rich_help_panel=LAB)
app.add_typer(bench.app, name="bench", rich_help_panel=LAB)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


INTERRUPTED = 130
"""What a shell reports for a process that Ctrl-C ended."""


def run() -> None:
    """Run the command line; a known error becomes one sentence on stderr and its exit code."""
    # transformers loads torchao where it is installed, which warns of each kernel that this machine
    # cannot load; none of them is needed here.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app()
    except ExgraMedError as error:
        _fail(error.message, error.hint, error.exit_code)
    except OSError as error:
        # A path that was given: a folder where a file is needed, a file that may not be read.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}.", "Is this the path that was meant?", 2)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # A progress bar hides the cursor, and may not have got to show it again.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        typer.secho(f"{show_cursor}\nStopped.", err=True)
        sys.exit(INTERRUPTED)


def _fail(message: str, hint: str, exit_code: int) -> None:
    # On one line each, whatever a name that they quote holds.
    typer.secho(f"Error: {' '.join(printable(message).split())}", fg="red", err=True)
    if hint:
        typer.secho(" ".join(printable(hint).split()), err=True)
    sys.exit(exit_code)
