"""Which vectors are too short to have a direction: measured by a graph's own typical node."""

import torch

from exgra_med.alignment.cost import SHORTEST, matching_costs


def edge_cost(step: float, nodes: int = 50, size: float = 1.0) -> float:
    """Q of one edge of length `step` with itself, among nodes of length `size` in 4 dimensions."""
    points = torch.zeros(1, nodes, 4, dtype=torch.float64)
    points[0, :, 0] = size
    points[0, 1, 1] = step
    edges = torch.tensor([[[1], [0]]])
    return float(matching_costs(points, points, edges)[1])


def test_the_shortest_edge_is_relative_to_the_length_of_a_node() -> None:
    for size in (1.0, 100.0):
        long_enough, too_short = 1.5 * SHORTEST * size, 0.7 * SHORTEST * size
        # -0.5 * (1 - 0.5) for a direction, -0.5 * (0 - 0.5) for none.
        assert edge_cost(long_enough, size=size) == -0.25
        assert edge_cost(too_short, size=size) == 0.25


def test_how_many_nodes_there_are_does_not_matter() -> None:
    assert edge_cost(1.5 * SHORTEST, nodes=10) == edge_cost(1.5 * SHORTEST, nodes=400) == -0.25
