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

VIEWS: dict[str, tuple[int, ...]] = {
    "all": (IMAGE, ANSWER, EXTENDED),
    "image-answer": (IMAGE, ANSWER),
}
"""Which views take part; without the extended answers the barycenter is the mean of two."""


def barycenter(*views: torch.Tensor) -> torch.Tensor:
    """Mean of the views, [B, D]."""
    return sum(views[1:], views[0]) / len(views)


def directed_pairs(objective: str, views: str = "all") -> tuple[tuple[int, int], ...]:
    """Ordered pairs (first graph, second graph); the first one's edges serve both.

    Args:
        objective: a name in `PAIRS`.
        views: a name in `VIEWS`; pairs with another view are left out.

    Raises:
        MatchingError: no objective or choice of views has that name.
    """
    if views not in VIEWS:
        raise MatchingError(f"No views are called {views!r}; there are {', '.join(VIEWS)}.")
    if objective not in PAIRS:
        raise MatchingError(f"No objective is called {objective!r}; there are {', '.join(PAIRS)}.")
    present = {*VIEWS[views], BARYCENTER}
    return tuple(
        pair
        for first, second in PAIRS[objective]
        if {first, second} <= present
        for pair in ((first, second), (second, first))
    )
