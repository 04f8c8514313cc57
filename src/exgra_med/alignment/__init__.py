"""Multi-graph alignment: the invention. Imports torch, numpy, numba; nothing of ours."""

from exgra_med.alignment.errors import MatchingError
from exgra_med.alignment.loss import AlignmentOutput, MultiGraphAlignment
from exgra_med.alignment.matching import MatchingResult, solve_matching

__all__ = [
    "AlignmentOutput",
    "MatchingError",
    "MatchingResult",
    "MultiGraphAlignment",
    "solve_matching",
]
