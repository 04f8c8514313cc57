"""PyTorch Geometric's GraphConv(aggr="max") is the oracle of the layer."""

import pytest
import torch

from exgra_med.alignment.graph import GraphConv, knn_edges

geometric = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")


@pytest.mark.parametrize(("nodes", "neighbours"), [(2, 1), (9, 3), (16, 5)])
def test_value_and_gradients_are_equal(nodes: int, neighbours: int) -> None:
    ours, theirs = GraphConv(24), geometric.GraphConv(24, 24, aggr="max")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(nodes, 24)
    edges = knn_edges(x, neighbours)
    if nodes == 9:
        edges = edges[:, edges[1] != 4]
        assert 4 not in edges[1], "one node is nobody's neighbour"
    weights = torch.randn(nodes, 24)
    gradients = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        out = layer(given, edges)
        (out * weights).sum().backward()
        gradients.append((out, given.grad, *(weight.grad for weight in layer.parameters())))
    names = [name for name, _ in ours.named_parameters()]
    assert names == [name for name, _ in theirs.named_parameters()]
    for mine, other in zip(*gradients, strict=True):
        assert torch.equal(mine, other)


def test_initial_weights_have_the_same_distribution() -> None:
    ours, theirs = GraphConv(64), geometric.GraphConv(64, 64, aggr="max")
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.abs().max() <= 64**-0.5 and other.abs().max() <= 64**-0.5
        assert mine.std().item() == pytest.approx(other.std().item(), rel=0.3)
