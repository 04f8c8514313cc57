"""Multi-graph alignment: the invention. Imports torch, numpy, numba; nothing of ours."""

from exgra_med.alignment.loss import AlignmentOutput, MultiGraphAlignment
from exgra_med.alignment.matching import MatchingResult, solve_matching
from exgra_med.errors import MatchingError

__all__ = [
    "AlignmentOutput",
    "MatchingError",
    "MatchingResult",
    "MultiGraphAlignment",
    "solve_matching",
]
