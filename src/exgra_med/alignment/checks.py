"""What a user can get wrong about the alignment, each in one sentence before anything runs."""

import math
import operator
from collections.abc import Sequence
from typing import Any, get_args

import torch

from exgra_med.alignment.graph import GRAPHS
from exgra_med.alignment.scope import SCOPES
from exgra_med.alignment.solvers.protocol import Effort
from exgra_med.errors import MatchingError

ESTIMATORS = ("blackbox", "compatible", "imle")
VIEW_NAMES = ("image", "answer", "extended")


def check_name(what: str, name: object, names: Sequence[str]) -> None:
    """Refuse a name that is not among `names`, and list them.

    Raises:
        MatchingError: it is not.
    """
    if name not in names:
        raise MatchingError(f"No {what} is called {name!r}; there are {', '.join(names)}.")


def check_settings(
    *,
    dim: int,
    neighbours: int,
    num_layers: int,
    noise_samples: int,
    dropout: float,
    noise_scale: float,
    perturbation: float,
    radius: float,
    effort: str,
    graph: str,
    estimator: str,
    scope: str,
) -> None:
    """Refuse settings of `MultiGraphAlignment` that have no meaning.

    Raises:
        MatchingError: one has none.
    """
    whole = (("dim", dim, 1), ("neighbours", neighbours, 1), ("num_layers", num_layers, 0))
    for name, value, least in (*whole, ("noise_samples", noise_samples, 1)):
        if not _is_whole(value) or value < least:
            raise MatchingError(f"{name}={value!r} is not a whole number of {least} or more.")
    for name, value, fits, words in (
        ("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1"),
        ("noise_scale", noise_scale, 0 <= noise_scale < math.inf, "0 or positive"),
        ("perturbation", perturbation, 0 < perturbation < math.inf, "positive"),
        ("radius", radius, 0 < radius < math.inf, "positive"),
    ):
        if not fits:
            raise MatchingError(f"{name}={value!r} is not {words}.")
    check_name("effort", effort, get_args(Effort))
    check_name("graph", graph, GRAPHS)
    check_name("estimator", estimator, ESTIMATORS)
    check_name("scope", scope, SCOPES)
    if noise_samples != 1 and estimator != "imle":
        raise MatchingError("Several noise samples need the estimator 'imle'.")


def check_views(views: Sequence[Any], dim: int, scope: str) -> None:
    """Refuse views that are not [B, dim] each; B may be 0 in a global scope.

    Raises:
        MatchingError: one is missing, no tensor, or of another shape.
    """
    shapes = []
    for name, view in zip(VIEW_NAMES, views, strict=False):
        if not isinstance(view, torch.Tensor):
            given = "none" if view is None else type(view).__name__
            raise MatchingError(f"The view {name!r} is {given}, not a tensor [B, D].")
        shapes.append(f"{name} {list(view.shape)}")
    if any(view.ndim != 2 for view in views) or len({view.shape for view in views}) != 1:
        raise MatchingError(f"The views have shapes {', '.join(shapes)}, not [B, D] each.")
    if views[0].shape[1] != dim:
        raise MatchingError(
            f"The views have {views[0].shape[1]} features each; this module was made for {dim}."
        )
    if views[0].shape[0] == 0 and scope == "local":
        raise MatchingError("The views hold no sample.")


def check_finite(views: Sequence[torch.Tensor]) -> None:
    """Refuse NaN and infinity, which would else show as a graph that makes no sense.

    Raises:
        MatchingError: with the view and the rows.
    """
    # Infinity and NaN stay in a sum; only where there are any is each row looked at.
    if bool(torch.isfinite(torch.stack([view.sum() for view in views])).all()):
        return
    for name, view in zip(VIEW_NAMES, views, strict=False):
        rows = (~torch.isfinite(view).all(1)).nonzero()[:, 0].tolist()
        if rows:
            more = ", ..." if len(rows) > 8 else ""
            listed = ", ".join(map(str, rows[:8])) + more
            raise MatchingError(
                f"The view {name!r} holds NaN or infinity in rows {listed}: look at what made it, "
                "in mixed precision first."
            )


def check_start(start: torch.Tensor, num_problems: int, num_nodes: int) -> None:
    """Refuse a start that is no partial matching.

    Raises:
        MatchingError: another shape or type, a label that is no node, or one that occurs twice.
    """
    wanted = (num_problems, num_nodes)
    if tuple(start.shape) != wanted or start.is_floating_point() or start.dtype == torch.bool:
        raise MatchingError(
            f"The start is {start.dtype} {list(start.shape)}, not whole numbers {list(wanted)}."
        )
    if start.numel() and not (int(start.min()) >= -1 and int(start.max()) < num_nodes):
        raise MatchingError(f"The start has a label outside of -1 to {num_nodes - 1}.")
    row = torch.arange(num_problems, device=start.device)[:, None]
    taken = (row * num_nodes + start.long())[start >= 0]
    if taken.numel() and int(torch.bincount(taken).max()) > 1:
        raise MatchingError("The start gives one label to two nodes.")


def check_seed(seed: Any) -> int:
    """The seed as a number.

    Raises:
        MatchingError: it is no whole number.
    """
    if not _is_whole(seed):
        raise MatchingError(f"The seed {seed!r} is not a whole number.")
    return operator.index(seed)


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
