"""What it costs to match node with node and edge with edge.

Shapes: P problems, B nodes, E edges, D features. Everything here is float32, whatever training
computes in: the solver compares sums of a few dozen costs that lie close together, and bfloat16
keeps three digits of each.
"""

import torch

MATCHED_ABOVE = 0.5
"""A pair is worth matching when its similarity exceeds this; unmatched nodes cost nothing. Without
the offset every pair with a positive cosine would be, and hardly a node would stay unmatched."""

SHORTEST = 1e-5
"""Vectors shorter than this share of the typical node have no direction."""


def gumbel(
    shape: tuple[int, ...], scale: float, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw Gumbel noise of location 0: -scale * log(Exponential(1))."""
    draw = torch.empty(shape, device=device).exponential_(generator=generator)
    # A draw can be exactly zero, whose logarithm is minus infinity.
    return draw.clamp_min_(torch.finfo(draw.dtype).tiny).log_().mul_(-scale)


def directions(vectors: torch.Tensor, typical: torch.Tensor | float) -> torch.Tensor:
    """L2-normalise along the last axis; a vector without length becomes zero, with no gradient.

    Two equal nodes give an edge of length zero, up to rounding. Dividing by that length would
    blow rounding errors up to unit vectors and gradients up to 1e10, as it does in the original.
    `typical` is the length that "zero" is measured against, broadcastable to [..., 1] for [..., D].
    """
    length = torch.linalg.vector_norm(vectors.detach(), dim=-1, keepdim=True)
    has_length = length > SHORTEST * typical
    # Replaced before the division and not only after it: the gradient of an unused branch is still
    # computed, and 0 times infinity is NaN.
    safe = torch.where(has_length, vectors, torch.ones_like(vectors))
    return torch.where(has_length, torch.nn.functional.normalize(safe, dim=-1), 0.0)


def similarities(
    first: torch.Tensor, second: torch.Tensor, edges: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of nodes and of edges; an edge's feature is h[row 0] - h[row 1].

    Args:
        first: [P, B, D] nodes of the first graphs after message passing.
        second: [P, B, D] nodes of the second graphs.
        edges: [P, 2, E], shared by both graphs of a problem; -1 marks an absent edge.

    Returns:
        cosines of nodes [P, B, B] and of edges [P, E, E].
    """
    units, edge_units = [], []
    for nodes in (first, second):
        # Root mean square length of the nodes of each graph, [P, 1, 1].
        lengths = nodes.detach().square().sum(-1, keepdim=True)
        typical = lengths.mean(-2, keepdim=True).sqrt()
        units.append(directions(nodes, typical))
        edge_units.append(directions(edge_features(nodes, edges), typical))
    return units[0] @ units[1].mT, edge_units[0] @ edge_units[1].mT


def matching_costs(
    first: torch.Tensor, second: torch.Tensor, edges: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Costs of the quadratic problem of one pair of graphs, for P pairs.

    U = -(cos(h1, h2) - 0.5)
    Q = -0.5 (<e1, e2> - 0.5)

    The arguments are those of `similarities`; returns U [P, B, B] and Q [P, E, E].

    Source: ExGra-Med, vertex and edge affinities; the offset is the original code's.
    """
    nodes, edges_ = similarities(first, second, edges)
    return -(nodes - MATCHED_ABOVE), -0.5 * (edges_ - MATCHED_ABOVE)


def add_noise(
    unary: torch.Tensor, quadratic: torch.Tensor, node_noise: torch.Tensor, edge_noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Costs of similarities with noise, U - G_node and Q - 0.5 G_edge; shapes broadcast."""
    return unary - node_noise, quadratic - 0.5 * edge_noise


def edge_features(nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """h[row 0] - h[row 1]: [P, B, D] nodes, [P, 2, E] edges -> [P, E, D]; absent edges are zero."""
    # An absent edge is -1 at both ends: as node 0 minus node 0 it has length zero.
    index = edges.clamp_min(0)[..., None].expand(-1, -1, -1, nodes.shape[-1])
    ends = nodes[:, None].expand(-1, 2, -1, -1).gather(2, index)
    return ends[:, 0] - ends[:, 1]
