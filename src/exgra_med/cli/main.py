"""`exgra-med`: nouns and verbs. Imports nothing heavier than typer, so `--help` answers at once."""

import logging
import sys
from typing import Annotated

import typer

from exgra_med import __version__
from exgra_med.cli import (
    bench,
    captions,
    card,
    chat,
    checkpoint,
    data,
    demo,
    doctor,
    draw,
    evaluate,
    evaluate_chat,
    evaluate_checks,
    evaluate_model,
    make_parts,
    recipe,
    serve,
    study,
    train,
    web,
)
from exgra_med.errors import ExgraMedError

app = typer.Typer(
    name="exgra-med",
    help="Train and evaluate medical vision-language models with multi-graph alignment.",
    epilog="Research use only: no output of this software is clinical advice.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: exgra-med demo --out runs/demo")(demo.demo)
app.command(epilog="Example: exgra-med doctor --json")(doctor.doctor)
app.command(epilog="Example: exgra-med train demo --out runs/mine --set stages.aligned.epochs=2")(
    train.train
)
app.command(epilog=make_parts.EXAMPLE)(make_parts.make_parts)
app.command(epilog=chat.EXAMPLE)(chat.chat)
app.command(epilog=serve.EXAMPLE)(serve.serve)
app.command(epilog=draw.EXAMPLE)(draw.draw)
app.command(epilog=web.EXAMPLE)(web.web)
app.add_typer(recipe.app, name="recipe")
app.add_typer(study.app, name="study")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(evaluate_model.app, name="evaluate")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(captions.app, name="captions")
app.add_typer(card.app, name="card")
evaluate.register(app)
evaluate_checks.register(evaluate_model.app)
evaluate_chat.register(evaluate_model.app)


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
        # On one line each, whatever a name that they quote holds.
        typer.secho(f"Error: {' '.join(error.message.split())}", fg="red", err=True)
        if error.hint:
            typer.secho(" ".join(error.hint.split()), err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A path that the system refuses: too long, a loop of links, no permission to look.
        typer.secho(
            f"Error: {error.strerror or error}: {error.filename!s:.200}", fg="red", err=True
        )
        sys.exit(ExgraMedError.exit_code)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # A progress bar hides the cursor, and may not have got to show it again.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        typer.secho(f"{show_cursor}\nStopped.", err=True)
        sys.exit(INTERRUPTED)
