"""Compile a function with numba where numba is there, else leave it as plain Python."""

import importlib.util
from collections.abc import Callable
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
