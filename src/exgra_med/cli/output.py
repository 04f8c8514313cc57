"""What verbs print: JSON for a machine, lines and a progress bar for a person."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def say(line: Any) -> None:
    """Print a line for a person; control characters of a dataset's text never reach a terminal."""
    typer.echo("".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(line)))


@contextmanager
def counting(silent: bool) -> Iterator[Callable[[str, int], None] | None]:
    """A counter on standard error for long work; nothing where no person looks.

    Args:
        silent: print nothing.
    """
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done: progress.update(task, description=f"{done} {what}")
