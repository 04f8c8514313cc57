"""Compile a function with numba where numba is there, else leave it as plain Python."""

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

HAS_NUMBA = importlib.util.find_spec("numba") is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock and keep the result on disk, where there is a place.

    No value in these loops is ever NaN; saying so lets minima be vectorised.
    """
    if not HAS_NUMBA:
        return function
    import numba

    settings: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"nnan", "nsz"},
    }
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError as error:
        # An installation that cannot be written to, for a user without a home.
        if "no locator available" not in str(error):
            raise
        return numba.njit(**settings)(function)


_first_call = threading.Event()


@contextmanager
def told_when_slow(seconds: float = 3.0) -> Iterator[None]:
    """Say in the log why the first call of a process takes longer than a few seconds."""
    if _first_call.is_set() or not HAS_NUMBA:
        yield
        return
    _first_call.set()
    timer = threading.Timer(
        seconds,
        logging.getLogger(__name__).warning,
        ("The matching solver's first call compiles it: once for an installation, half a minute.",),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
