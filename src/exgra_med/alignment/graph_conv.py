"""Message passing: two graph convolutions with maximum aggregation.

Shapes: N nodes (of one graph, or of many laid side by side), D features, E edges.

Parameter names are the original's. A checkpoint entry
`model.message_pass_node_features.conv{1,2}.{lin_rel.weight, lin_rel.bias, lin_root.weight}` is
`message_passing.conv{1,2}.{lin_rel.weight, lin_rel.bias, lin_root.weight}` of
`MultiGraphAlignment`: replace the prefix, nothing else (`rename_original`).
"""

import torch
from torch import nn

ORIGINAL_PREFIX = "model.message_pass_node_features."


class GraphConv(nn.Module):
    """One convolution: conv(x)_i = W_rel max_{(s, t) in E, t = i} x_s + b + W_root x_i.

    Messages run along an edge from row 0 to row 1, as in the original: a node hears from those
    that chose it as a neighbour. A node that nobody chose aggregates zeros.

    Source: Morris et al., Weisfeiler and Leman Go Neural (AAAI 2019); PyTorch Geometric's
    `GraphConv(aggr="max")`, which is the oracle in tests/oracle.

    Args:
        dim: D, features in and out.
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

    Args:
        dim: D, features of a node.
        num_layers: convolutions; 0 leaves the nodes as they are.
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


def rename_original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Graph weights of an original checkpoint, named for `MultiGraphAlignment.load_state_dict`."""
    return {
        "message_passing." + name.removeprefix(ORIGINAL_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(ORIGINAL_PREFIX)
    }
