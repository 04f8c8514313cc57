"""What a person sees of long work, and of the result of a verb.

Long work has one line: what, how many of what unit, rate, time left, the figures that matter.

    aligned ━━━━━━━━━━──  42/50 steps  3.1/s  3 s left  loss 3.62  matched 70%

It is live on a terminal. In a file or a pipe it is a line at the begin, one every 30 seconds, and
one at the end.
"""

import json
import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.live import Live

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with the unit that is counted, how many are done, and of how many; None: not known."""

SECONDS_BETWEEN_LINES = 30.0
"""In a file or a pipe."""
PATIENCE_SECONDS = 2.0
"""What is done sooner needs no word."""
_RATE_SECONDS, _RATE_REPORTS = 60.0, 5
"""The rate is that of the last minute, or of the last few reports where these are rarer."""
_APART_SECONDS = 0.5
_BAR_WIDTH = 12


class Reporter(Protocol):
    """Receives the progress of a piece of work."""

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        """A piece of work begins.

        Args:
            title: what is done.
            total: how many there are of the unit; None where it is not known.
            done: how many of them were finished earlier.
            unit: what is counted, in the plural: steps, questions.
            patient: say nothing of it where it takes less than two seconds.
        """

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        """`done` are finished; `note` has the newest figures, and further lines stand below.

        `left`: seconds that are left, where the work knows better than its rate; infinite where it
        cannot know yet.
        """

    def finish(self) -> None:
        """The piece of work is done, or given up."""


class Silent:
    """Shows nothing; for tests and for processes other than the first."""

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        """See `Reporter`."""

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        """See `Reporter`."""

    def finish(self) -> None:
        """See `Reporter`."""


class RichReporter:
    """The line of long work on a console.

    Args:
        console: where it goes; live if that is a terminal.
        seconds_between_lines: in a file or a pipe.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        console: Console,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.clock = console, clock
        self.seconds_between_lines = seconds_between_lines
        self.title = self.unit = self.note = ""
        self.total: int | None = None
        self.done = 0
        self._left: float | None = None
        self._live: Live | None = None
        self._reports: deque[tuple[float, int]] = deque()
        self._begun = self._reported = self._line_at = 0.0
        self._is_open = self._is_shown = False

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        """See `Reporter`."""
        self.finish()
        self.title, self.total, self.done, self.unit = printable(title), total, done, unit
        self.note, self._left = "", None
        self._begun = self._reported = self._line_at = self.clock()
        self._reports = deque([(self._begun, done)])
        self._is_open, self._is_shown = True, False
        if not patient:
            self._show()

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        """See `Reporter`."""
        now, self.note, self._left = self.clock(), printable(note), left
        if done != self.done or left is not None:
            self.done, self._reported = done, now
        if now - self._reports[-1][0] >= _APART_SECONDS and done != self._reports[-1][1]:
            self._reports.append((now, done))
        while len(self._reports) > _RATE_REPORTS and now - self._reports[1][0] >= _RATE_SECONDS:
            self._reports.popleft()
        if not self._is_shown:
            if now - self._begun >= PATIENCE_SECONDS:
                self._show()
        elif self._live is None and now - self._line_at >= self.seconds_between_lines:
            self._line_at = now
            self._print(self.figures(), note)

    def finish(self) -> None:
        """See `Reporter`."""
        if not self._is_open:
            return
        self._is_open = False
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._is_shown:
            took = spoken_time(self.clock() - self._begun)
            self._print(f"{self._count()} in {took}", self.note)

    def _show(self) -> None:
        self._is_shown = True
        if not self.console.is_terminal:
            self._print(self._count())
            return
        # Not before it is drawn: `--help` shall answer at once.
        from rich.live import Live

        self._live = Live(
            get_renderable=self._rows, console=self.console, refresh_per_second=4, transient=False
        )
        self._live.start()

    def figures(self) -> str:
        """Count, rate and time left, as far as they are known."""
        parts, left = [self._count()], self._left
        begun, before = self._reports[0]
        new, seconds = self.done - before, self._reported - begun
        if left is None and new > 0 and seconds > 0:
            parts.append(spoken_rate(new / seconds))
            if self.total is not None and self.done < self.total:
                left = (self.total - self.done) * seconds / new
        if left is not None and math.isfinite(left):
            waited = self.clock() - self._reported
            parts.append(f"{spoken_time(max(0.0, left - waited))} left")
        return "  ".join(parts)

    def _count(self) -> str:
        if self.total is None:
            return f"{self.done:,} {self.unit}"
        return f"{self.done:,}/{self.total:,} {self.unit}"

    def _print(self, figures: str, note: str = "") -> None:
        noted = "; ".join(line.strip() for line in note.splitlines())
        line = f"{self.title}: {figures}" + (f"  {noted}" if noted else "")
        # Neither broken at 80 columns nor read for markup.
        self.console.print(Text(line), soft_wrap=True)

    def _rows(self) -> Group:
        """The live line; figures that do not fit beside it stand below."""
        first, *below = self.note.splitlines() or [""]
        bar = ""
        if self.total:
            full = min(_BAR_WIDTH, _BAR_WIDTH * self.done // self.total)
            signs = "━─" if self.console.encoding.startswith("utf") else "#-"
            bar = f"{signs[0] * full}{signs[1] * (_BAR_WIDTH - full)}  "
        line = f"{self.title}  {bar}{self.figures()}"
        if first and len(line) + 2 + len(first) <= self.console.width:
            line += f"  {first}"
        elif first:
            below.insert(0, first)
        rows = [line, *(f"  {each.strip()}" for each in below)]
        return Group(*(Text(row, no_wrap=True, overflow="crop") for row in rows))


def reporter(
    on_stderr: bool = True, seconds_between_lines: float = SECONDS_BETWEEN_LINES
) -> RichReporter:
    """What tells the person at the terminal how far a verb is."""
    return RichReporter(Console(stderr=on_stderr), seconds_between_lines)


def spoken_time(seconds: float) -> str:
    """A duration for a person.

    >>> spoken_time(8.4), spoken_time(100), spoken_time(750), spoken_time(9000), spoken_time(400000)
    ('8 s', '1 min 40 s', '12 min', '2.5 h', '4.6 days')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 300:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 5400:
        return f"{whole // 60} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def spoken_rate(per_second: float) -> str:
    """How many in a second, or in a minute or an hour where that is more than one.

    >>> spoken_rate(250), spoken_rate(3.14), spoken_rate(0.5), spoken_rate(0.004)
    ('250/s', '3.1/s', '30/min', '14/h')
    """
    units = ((1, "s"), (60, "min"), (3600, "h"))
    factor, unit = next((each for each in units if per_second * each[0] >= 1), units[-1])
    number = per_second * factor
    return f"{number:,.1f}/{unit}" if number < 10 else f"{number:,.0f}/{unit}"


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
def counting(title: str) -> Iterator[ProgressCallback]:
    """A callback for work that counts itself, shown on standard error where it takes a while."""
    shown = reporter()
    counted: tuple[str, int | None] | None = None

    def count(unit: str, done: int, total: int | None) -> None:
        nonlocal counted
        if counted != (unit, total):
            shown.start(title, total, 0, unit, patient=True)
            counted = unit, total
        shown.advance(done, "")

    try:
        yield count
    finally:
        shown.finish()


@contextmanager
def waiting_for(what: str, is_true: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Say on a terminal what is being done, where it takes more than two seconds.

    `is_true`: asked after these, where the work may be past what would be said.
    """
    if not sys.stderr.isatty():
        yield
        return

    def tell() -> None:
        if is_true():
            remark(f"{what} ...")

    word = threading.Timer(PATIENCE_SECONDS, tell)
    word.daemon = True
    word.start()
    try:
        yield
    finally:
        word.cancel()
