"""Which graphs are matched: three views of each sample, and their barycenter.

The views are image, answer and extended answer, each [B, D]. The barycenter graph has the mean of
a sample's three views as its node; gradients flow through it to all three.

Source: ExGra-Med, "Multi-graph alignment via the barycenter graph": matching each view with one
common graph costs 3 pairs of graphs where matching all views with each other grows quadratically.
"""

import torch

from exgra_med.alignment.errors import MatchingError

IMAGE, ANSWER, EXTENDED, BARYCENTER = range(4)

PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "barycenter": ((IMAGE, BARYCENTER), (ANSWER, BARYCENTER), (EXTENDED, BARYCENTER)),
    "pairwise": ((IMAGE, ANSWER), (IMAGE, EXTENDED), (ANSWER, EXTENDED)),
}
PAIRS["all"] = PAIRS["barycenter"] + PAIRS["pairwise"]


def barycenter(image: torch.Tensor, answer: torch.Tensor, extended: torch.Tensor) -> torch.Tensor:
    """Mean of the three views, [B, D]."""
    return (image + answer + extended) / 3


def directed_pairs(objective: str) -> tuple[tuple[int, int], ...]:
    """Ordered pairs (first graph, second graph); the first one's edges serve both.

    Raises:
        MatchingError: no objective has that name.
    """
    if objective not in PAIRS:
        raise MatchingError(f"No objective is called {objective!r}; there are {', '.join(PAIRS)}.")
    return tuple(
        pair for first, second in PAIRS[objective] for pair in ((first, second), (second, first))
    )
