"""`solve_matching`: the one door to all solvers."""

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch

from exgra_med.alignment.settings import Effort
from exgra_med.alignment.solvers import SOLVERS
from exgra_med.alignment.solvers.protocol import (
    Problems,
    Solver,
    check_problems,
    matching_objective,
)
from exgra_med.alignment.solvers.state import told_when_slow
from exgra_med.errors import MatchingError

Array = Any
"""A numpy array or a torch tensor; results come back as what was given."""


@dataclass(frozen=True, kw_only=True)
class MatchingResult:
    """Solved problems.

    Attributes:
        assignment: [P, n] int64, the label of each node, -1 = unmatched.
        objective: [P] float64, the cost of the assignment, from its definition.
        certified: [P] bool, True where the assignment is proven optimal.
        milliseconds: wall time of the solver, without checks.
    """

    assignment: Array
    objective: Array
    certified: Array
    milliseconds: float


def check_size(solver: Solver, name: str, num_nodes: int) -> None:
    """Refuse graphs that are larger than a solver says it takes.

    Raises:
        MatchingError: with both sizes.
    """
    limit = getattr(solver, "max_nodes", None)
    if limit is not None and num_nodes > limit:
        raise MatchingError(
            f"The solver {name!r} takes graphs of at most {limit} nodes, and was asked for "
            f"{num_nodes}.",
            "Use `anneal`, which has no limit, or smaller graphs.",
        )


def solve_matching(
    unary: Array,
    quadratic: Array,
    edges: Array,
    solver: str | Solver = "anneal",
    seed: int = 0,
    edges2: Array | None = None,
    *,
    start: Array | None = None,
    effort: Effort = "fast",
) -> MatchingResult:
    """Find cheap partial matchings of a batch of problems (definition: solvers/protocol.py).

    Args:
        unary: [P, n, n] costs U of matching node i with label k.
        quadratic: [P, E, F] costs Q of edge e landing on edge f.
        edges: [P, 2, E] directed edges of the first graphs, and of the second where `edges2` is
            absent; a column of -1 marks an absent edge.
        solver: a name of `SOLVERS`, or a function that obeys `Solver`.
        seed: of every random choice; equal input and seed give equal output.
        edges2: [P, 2, F] edges of the second graphs.
        start: [P, n] labels to begin from, -1 = unmatched; the identity where absent.
        effort: `fast`, or `thorough` for a better matching at several times the price.

    Raises:
        MatchingError: the input is no batch of matching problems, `start` no matching of them, the
            graphs are larger than the solver takes, or no such solver or effort exists.

    Example:
        >>> edges = np.array([[[0, 1], [1, 0]]])
        >>> result = solve_matching(-np.eye(2)[None], np.zeros((1, 2, 2)), edges)
        >>> result.assignment.tolist(), result.objective.tolist()
        ([[0, 1]], [-2.0])
    """
    given_numpy = isinstance(unary, np.ndarray)
    costs = _tensor(unary), _tensor(quadratic)
    links = _tensor(edges)
    links2 = links if edges2 is None else _tensor(edges2)
    check_problems(*costs, links, links2)
    if effort not in get_args(Effort):
        raise MatchingError(
            f"There is no effort {effort!r}.", f"Known: {', '.join(get_args(Effort))}."
        )
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise MatchingError(f"The seed {seed!r} is not a whole number.")
    begin_from = None if start is None else _tensor(start)
    if begin_from is not None:
        _check_start(begin_from, *costs[0].shape[:2])
    first = links.to(torch.int32).contiguous()
    problems = Problems(
        unary=costs[0].float().contiguous(),
        quadratic=costs[1].float().contiguous(),
        edges=first,
        edges2=first if edges2 is None else links2.to(torch.int32).contiguous(),
        start=None if begin_from is None else begin_from.to(torch.int32).contiguous(),
        seed=operator.index(seed),
        effort=effort,
    )
    solve = SOLVERS.find(solver) if isinstance(solver, str) else solver
    name = solver if isinstance(solver, str) else getattr(solver, "__name__", "given")
    check_size(solve, name, costs[0].shape[1])
    begin = time.perf_counter()
    with told_when_slow():
        solution = solve(problems)
    milliseconds = 1e3 * (time.perf_counter() - begin)
    objective = matching_objective(*costs, links, solution.assignment, links2)
    back: Callable[[torch.Tensor], Array] = (lambda t: t.numpy()) if given_numpy else (lambda t: t)
    return MatchingResult(
        assignment=back(solution.assignment),
        objective=back(objective),
        certified=back(solution.certified),
        milliseconds=milliseconds,
    )


def _check_start(start: torch.Tensor, num_problems: int, num_nodes: int) -> None:
    # A start that is no partial matching would break the search's bookkeeping without an error.
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


def _tensor(array: Array) -> torch.Tensor:
    return array.detach() if isinstance(array, torch.Tensor) else torch.as_tensor(array)
