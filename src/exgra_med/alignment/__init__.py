"""Multi-graph alignment: the invention. Imports torch, numpy, numba; nothing of ours.

The names below are imported when they are first used, so that the settings come without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exgra_med.alignment.loss import AlignmentOutput, MultiGraphAlignment
    from exgra_med.alignment.matching import MatchingResult, solve_matching
    from exgra_med.alignment.settings import AlignmentSettings
    from exgra_med.errors import MatchingError

__all__ = [
    "AlignmentOutput",
    "AlignmentSettings",
    "MatchingError",
    "MatchingResult",
    "MultiGraphAlignment",
    "solve_matching",
]

_LAZY = {
    "AlignmentOutput": "exgra_med.alignment.loss",
    "AlignmentSettings": "exgra_med.alignment.settings",
    "MatchingError": "exgra_med.errors",
    "MatchingResult": "exgra_med.alignment.matching",
    "MultiGraphAlignment": "exgra_med.alignment.loss",
    "solve_matching": "exgra_med.alignment.matching",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Also the names that have not been imported yet, so that `help` and completion show them."""
    return sorted({*globals(), *__all__})
