"""The progress of long work: a bar with rate and time left, or plain lines in a file."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ProgressCallback = Callable[[str, int], None]
"""For work whose total is not known: called with what is counted, and how many are done."""


class Reporter(Protocol):
    """Receives the progress of a piece of work."""

    def start(self, title: str, total: int, done: int) -> None:
        """A piece of work of `total` steps begins, `done` of them finished earlier."""

    def advance(self, done: int, note: str) -> None:
        """`done` steps are finished; `note` has the newest figures."""

    def finish(self) -> None:
        """The piece of work is done."""


class Silent:
    """Shows nothing; for tests and for processes other than the first."""

    def start(self, title: str, total: int, done: int) -> None:
        """See `Reporter`."""

    def advance(self, done: int, note: str) -> None:
        """See `Reporter`."""

    def finish(self) -> None:
        """See `Reporter`."""


class RichReporter:
    """A live bar on a terminal; one line for each tenth of the work in a file or pipe."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.title, self.total, self.next_line = "", 0, 0.0

    def start(self, title: str, total: int, done: int) -> None:
        """See `Reporter`."""
        self.title, self.total, self.next_line = title, total, done + total / 10
        if not self.console.is_terminal:
            self.console.print(f"{title}: {total} steps, {done} done before")
            return
        # Not before it is drawn: `--help` shall answer at once.
        from rich import progress

        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.bar.start()
        self.task = self.bar.add_task(title, total=total, completed=done, note="", rate="")

    def advance(self, done: int, note: str) -> None:
        """See `Reporter`."""
        if self.bar is not None and self.task is not None:
            speed = self.bar.tasks[0].speed
            self.bar.update(
                self.task, completed=done, note=note, rate=f"{speed:.1f}/s" if speed else ""
            )
        elif done >= self.next_line or done == self.total:
            self.console.print(f"{self.title}: {done}/{self.total}  {note}")
            self.next_line += self.total / 10

    def finish(self) -> None:
        """See `Reporter`."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def reporter(on_stderr: bool = True) -> RichReporter:
    """What tells the person at the terminal how far a verb is."""
    return RichReporter(Console(stderr=on_stderr))


def show(value: Any, as_json: bool, lines: Iterable[Any]) -> None:
    """Print the result of a verb: `value` as one JSON document, or lines for a person.

    A line is text, or what rich can print, such as a table. Give a generator where making the lines
    costs time; it is not read with `--json`.
    """
    if as_json:
        print_json(value)
        return
    for line in lines:
        say(line) if isinstance(line, str) else Console().print(line)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def say(line: Any) -> None:
    """Print a line for a person. Control characters never reach the terminal."""
    typer.echo(printable(line))


def remark(line: Any) -> None:
    """Print a line for a person on standard error, beside the result of a verb."""
    typer.echo(printable(line), err=True)


def printable(text: Any) -> str:
    """Text without characters that would steer a terminal; data and models may contain any."""
    return "".join(c if c.isprintable() or c in "\n\t\u00a0" else "�" for c in str(text))


def next_step(command: str) -> str:
    """The line that tells which command usually follows."""
    return f"Next: exgra-med {command}"


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], numbers: bool = True
) -> Any:
    """A table for `show`. The first column holds names; the others are aligned as numbers."""
    # Lines between columns would leave the numbers too little room on 80 columns.
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        is_number = numbers and index > 0 and column != ""
        is_name = not numbers and index == 0
        # A name is copied, so it stays on one line.
        made.add_column(
            column, justify="right" if is_number else "left", min_width=4, no_wrap=is_name
        )
    for first, *rest in rows:
        # Heads may break over lines, intervals such as "45.9 to 58.8" may not.
        made.add_row(first, *(re.sub(r"(?<=\d) to (?=[\d+−])", "\u00a0to\u00a0", x) for x in rest))
    return made


@contextmanager
def counting(silent: bool) -> Iterator[Callable[[str, int], None] | None]:
    """A counter on standard error for long work; nothing where no person looks."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done: progress.update(task, description=f"{done} {what}")
