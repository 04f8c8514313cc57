"""A polite end: SIGTERM or Ctrl-C lets the step finish, a checkpoint is written, the run can go on.

A second Ctrl-C ends at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from exgra_med.errors import ExgraMedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(ExgraMedError):
    """Training was asked to stop and did, after saving where it was."""

    exit_code = 143
    """What a shell reports for a process that SIGTERM ended; 130 where it was Ctrl-C."""


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.made = False
        self.number: int = signal.SIGTERM

    def make(self, number: int, frame: FrameType | None) -> None:
        """Signal handler.

        Raises:
            KeyboardInterrupt: Ctrl-C for the second time.
        """
        if self.made and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.made:
            self.made, self.number = True, number


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Yield a request that SIGTERM or SIGINT fills in; earlier handlers come back afterwards."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.make) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
