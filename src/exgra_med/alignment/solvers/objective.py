"""The value of a matching, and which edge lands on which.

Shapes: P problems, n nodes, E and F edges of the first and second graphs.
"""

import torch

from exgra_med.alignment.solvers.protocol import UNMATCHED


def assignment_matrix(assignment: torch.Tensor) -> torch.Tensor:
    """X [P, n, n] float32 with X[i, k] = 1 where node i has label k; rows may be empty."""
    one_hot = torch.nn.functional.one_hot(assignment + 1, assignment.shape[-1] + 1)
    return one_hot[..., 1:].float()


def edge_images(
    assignment: torch.Tensor, edges: torch.Tensor, edges2: torch.Tensor
) -> torch.Tensor:
    """For each edge of the first graph the edge of the second that it lands on, or -1.

    This is the edge product Y in sparse form: Y[e, f] = X[i, k] X[j, l] for e = (i, j), f = (k, l).

    Args:
        assignment: [P, n] labels.
        edges: [P, 2, E].
        edges2: [P, 2, F].

    Returns:
        [P, E] int64.
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
