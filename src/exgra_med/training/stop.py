"""A polite end: SIGTERM lets the step finish, a checkpoint is written, and the run can go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from exgra_med.errors import ExgraMedError


class TrainingStopped(ExgraMedError):
    """Training was asked to stop and did, after saving where it was."""

    exit_code = 143
    """What a shell reports for a process that SIGTERM ended."""


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.made = False

    def make(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        self.made = True


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Yield a request that SIGTERM fills in; the earlier handler comes back afterwards."""
    request = StopRequest()
    earlier = signal.signal(signal.SIGTERM, request.make)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, earlier)
