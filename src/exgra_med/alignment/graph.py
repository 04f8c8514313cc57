"""From pooled features to a graph: who is whose neighbour.

Shapes: B nodes of one graph, D features, E directed edges. Row 0 of an edge list is the node that
asks, row 1 the neighbour that it found. Graphs are always built in float32: half precision
overflows in squared distances over thousands of features, and neighbours get lost.
"""

from typing import Literal

import torch
from torch import nn


def knn_edges(nodes: torch.Tensor, neighbours: int = 5) -> torch.Tensor:
    """Connect each of [B, D] nodes with its nearest (Euclidean, no loops), nearest first.

    Of equally near nodes the one with the lower number comes first, on every device.

    Returns:
        [2, E] int64, E = B * min(neighbours, B - 1), grouped by asking node.

    Source: ExGra-Med, section "Multi-graph construction" (k-nearest-neighbour graphs, k = 5).
    """
    # Without the matrix product, which cancels where features share a large mean and makes
    # duplicates differ.
    distances = torch.cdist(nodes, nodes, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(float("inf"))
    count = min(neighbours, nodes.shape[0] - 1)
    found = distances.argsort(dim=1, stable=True)[:, :count]
    asking = torch.arange(nodes.shape[0], device=nodes.device).repeat_interleave(count)
    return torch.stack([asking, found.reshape(-1)])


def full_edges(nodes: torch.Tensor) -> torch.Tensor:
    """Connect each node with all others. Returns [2, B * (B - 1)] int64."""
    return (~torch.eye(nodes.shape[0], dtype=torch.bool, device=nodes.device)).nonzero().T


def build_edges(
    nodes: torch.Tensor, kind: Literal["knn", "full"] = "knn", neighbours: int = 5
) -> torch.Tensor:
    """Edges of one graph, [2, E] int64, by the name of its construction."""
    nodes = nodes.detach().float()
    return full_edges(nodes) if kind == "full" else knn_edges(nodes, neighbours)


def pad_edges(graphs: list[torch.Tensor]) -> torch.Tensor:
    """Stack edge lists of different lengths: [G, 2, E], absent edges are -1."""
    longest, pad = max(graph.shape[1] for graph in graphs), nn.functional.pad
    return torch.stack([pad(graph, (0, longest - graph.shape[1]), value=-1) for graph in graphs])


# Message passing: two graph convolutions with maximum aggregation.
#
# Shapes: N nodes (of one graph, or of many laid side by side), D features, E edges.
#
# Parameter names are the original's. A checkpoint entry
# `model.message_pass_node_features.conv{1,2}.{lin_rel.weight, lin_rel.bias, lin_root.weight}` is
# `message_passing.conv{1,2}.{lin_rel.weight, lin_rel.bias, lin_root.weight}` of
# `MultiGraphAlignment`: replace the prefix, nothing else.


class GraphConv(nn.Module):
    """One convolution: conv(x)_i = W_rel max_{(s, t) in E, t = i} x_s + b + W_root x_i.

    Messages run along an edge from row 0 to row 1, as in the original: a node hears from those
    that chose it as a neighbour. A node that nobody chose aggregates zeros.

    Source: Morris et al., Weisfeiler and Leman Go Neural (AAAI 2019); PyTorch Geometric's
    `GraphConv(aggr="max")`, which is the oracle in tests/oracle.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin_rel = nn.Linear(dim, dim, bias=True)
        self.lin_root = nn.Linear(dim, dim, bias=False)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Convolve [N, D] nodes over [2, E] edges; returns [N, D] in the dtype of the nodes."""
        source, target = edges
        target = target[:, None].expand(-1, nodes.shape[1])
        heard = torch.zeros_like(nodes).scatter_reduce(
            0, target, nodes[source], "amax", include_self=False
        )
        dtype = nodes.dtype
        related = nn.functional.linear(
            heard, self.lin_rel.weight.to(dtype), self.lin_rel.bias.to(dtype)
        )
        return related + nn.functional.linear(nodes, self.lin_root.weight.to(dtype))


class MessagePassing(nn.Module):
    """h = relu(conv_L(... relu(conv_1(x)))); the same weights for all graphs.

    0 layers leave the nodes as they are.
    """

    def __init__(self, dim: int, num_layers: int = 2) -> None:
        super().__init__()
        self.num_layers = num_layers
        for layer in range(1, num_layers + 1):
            self.add_module(f"conv{layer}", GraphConv(dim))

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Pass messages among [N, D] nodes over [2, E] edges; returns [N, D]."""
        for layer in range(1, self.num_layers + 1):
            nodes = self.get_submodule(f"conv{layer}")(nodes, edges).relu()
        return nodes
