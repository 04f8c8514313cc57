"""The progress of long work: a bar with rate and time left, or plain lines in a file."""

from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

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

    def __init__(self, console: Console) -> None:
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
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
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
