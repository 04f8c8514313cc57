"""The matching problem, what a solver gets, what it gives back.

    min over partial matchings p:
        sum_i U[i, p_i]  +  sum_{e = (i, j)} sum_{f = (k, l)} Q[e, f] [p_i = k and p_j = l]

A node may stay unmatched at cost 0; no two nodes share a label. Edges are directed: tail goes to
tail and head to head.

Shapes: P problems, n nodes on either side, E edges of the first graph, F of the second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from exgra_med.alignment.settings import Effort
from exgra_med.errors import MatchingError

UNMATCHED = -1


@dataclass(frozen=True, kw_only=True)
class Problems:
    """A batch of matching problems, checked and on one device.

    Attributes:
        unary: [P, n, n] float32 costs U.
        quadratic: [P, E, F] float32 costs Q.
        edges: [P, 2, E] int32 edges of the first graphs; -1 marks an absent edge.
        edges2: [P, 2, F] int32 edges of the second graphs.
        start: [P, n] int32 matching to begin from; none where absent.
        seed: of every random choice; each problem sees the same stream, so its answer depends
            neither on its place in the batch nor on the number of threads.
        effort: `fast` or `thorough`.
    """

    unary: torch.Tensor
    quadratic: torch.Tensor
    edges: torch.Tensor
    edges2: torch.Tensor
    start: torch.Tensor | None = None
    seed: int = 0
    effort: Effort = "fast"

    def arrays(self) -> list[Any]:
        """Unary and quadratic costs and both lists of edges as numpy arrays."""
        tensors = (self.unary, self.quadratic, self.edges, self.edges2)
        return [tensor.cpu().numpy() for tensor in tensors]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a solver returns.

    Attributes:
        assignment: [P, n] int64, label of each node, -1 = unmatched.
        certified: [P] bool, the matching is proven optimal.
    """

    assignment: torch.Tensor
    certified: torch.Tensor


class Solver(Protocol):
    """A function from problems to partial matchings; deterministic for equal problems.

    A solver that takes graphs up to a size only says so, see `takes_at_most`.
    """

    def __call__(self, problems: Problems) -> Solution:
        """Solve all problems of the batch."""
        ...


def takes_at_most(nodes: int) -> Callable[[Solver], Solver]:
    """Declare the size of the largest graph that a solver takes, as its attribute `max_nodes`.

    A recipe with larger graphs is then refused before anything is trained.
    """

    def declare(solver: Any) -> Solver:
        solver.max_nodes = nodes
        return solver

    return declare


def check_problems(
    unary: torch.Tensor, quadratic: torch.Tensor, edges: torch.Tensor, edges2: torch.Tensor
) -> None:
    """Refuse what is not a batch of matching problems.

    Raises:
        MatchingError: shapes do not fit, a cost is not finite, an edge has no such node, is a
            loop, half absent, or occurs twice.
    """
    num_problems, num_nodes = unary.shape[:2] if unary.ndim == 3 else (0, 0)
    if unary.ndim != 3 or unary.shape[1] != unary.shape[2]:
        raise MatchingError(f"Unary costs have shape {tuple(unary.shape)}, not [P, n, n].")
    wanted = (num_problems, edges.shape[-1], edges2.shape[-1])
    if tuple(quadratic.shape) != wanted:
        raise MatchingError(
            f"Quadratic costs have shape {tuple(quadratic.shape)}; the edges ask for {wanted}."
        )
    for name, costs in (("Unary", unary), ("Quadratic", quadratic)):
        if not _all_finite(costs):
            raise MatchingError(f"{name} costs are not all finite.")
    _check_edges(edges, num_problems, num_nodes)
    if edges2 is not edges:
        _check_edges(edges2, num_problems, num_nodes)


def _all_finite(costs: torch.Tensor) -> bool:
    # Infinity and NaN stay in a sum, which takes a tenth of the time of a look at every entry.
    return bool(torch.isfinite(costs.sum())) or bool(torch.isfinite(costs).all())


def _check_edges(edges: torch.Tensor, num_problems: int, num_nodes: int) -> None:
    if edges.ndim != 3 or tuple(edges.shape[:2]) != (num_problems, 2):
        raise MatchingError(f"Edges have shape {tuple(edges.shape)}, not [P, 2, E].")
    if edges.numel() == 0:
        return
    if int(edges.max()) >= num_nodes or int(edges.min()) < -1:
        raise MatchingError(f"An edge names a node outside of 0 to {num_nodes - 1}.")
    tail, head = edges[:, 0].long(), edges[:, 1].long()
    present = tail >= 0
    if not torch.equal(present, head >= 0):
        raise MatchingError("A column with one -1 is half an edge; an absent edge has two.")
    if bool(((tail == head) & present).any()):
        raise MatchingError("An edge leads from a node to itself.")
    problem = torch.arange(num_problems, device=edges.device)[:, None]
    keys = ((problem * num_nodes + tail) * num_nodes + head)[present]
    if int(keys.numel()) and int(torch.bincount(keys).max()) > 1:
        raise MatchingError("An edge occurs twice in one graph.")


def assignment_matrix(assignment: torch.Tensor) -> torch.Tensor:
    """X [P, n, n] float32 with X[i, k] = 1 where node i has label k; rows may be empty."""
    one_hot = torch.nn.functional.one_hot(assignment + 1, assignment.shape[-1] + 1)
    return one_hot[..., 1:].float()


def edge_images(
    assignment: torch.Tensor, edges: torch.Tensor, edges2: torch.Tensor
) -> torch.Tensor:
    """For each edge of the first graph the edge of the second that it lands on, or -1.

    This is the edge product Y in sparse form: Y[e, f] = X[i, k] X[j, l] for e = (i, j), f = (k, l).
    Of labels [P, n] and edges [P, 2, E] and [P, 2, F] it returns [P, E] int64.
    """
    num_problems, num_nodes = assignment.shape
    side = num_nodes + 1
    table = torch.full((num_problems, side * side), UNMATCHED, device=assignment.device)
    index2 = (edges2[:, 0].long() + 1) * side + edges2[:, 1].long() + 1
    numbers = torch.arange(edges2.shape[-1], device=table.device).expand(num_problems, -1)
    table.scatter_(1, index2, numbers)
    # Row and column 0 belong to "unmatched" and to absent edges: nothing lands there.
    table.view(num_problems, side, side)[:, 0] = UNMATCHED
    table.view(num_problems, side, side)[:, :, 0] = UNMATCHED
    labels = torch.nn.functional.pad(assignment, (1, 0), value=UNMATCHED) + 1
    tails = labels.gather(1, edges[:, 0].long() + 1)
    heads = labels.gather(1, edges[:, 1].long() + 1)
    return table.gather(1, tails * side + heads)


def matching_objective(
    unary: torch.Tensor,
    quadratic: torch.Tensor,
    edges: torch.Tensor,
    assignment: torch.Tensor,
    edges2: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cost of partial matchings, [P] float64, from the definition in `protocol.py`."""
    edges2 = edges if edges2 is None else edges2
    paid = unary.gather(2, assignment.clamp_min(0)[..., None])[..., 0].double()
    total = torch.where(assignment >= 0, paid, 0.0).sum(1)
    if quadratic.shape[1] and quadratic.shape[2]:
        images = edge_images(assignment, edges, edges2)
        paid = quadratic.gather(2, images.clamp_min(0)[..., None])[..., 0].double()
        total = total + torch.where(images >= 0, paid, 0.0).sum(1)
    return total
