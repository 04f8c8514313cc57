"""The solver `greedy`: node by node, the cheapest free label, if it costs less than nothing."""

import torch

from exgra_med.alignment.solvers.protocol import Problems, Solution


def solve(problems: Problems) -> Solution:
    """Look at node costs only; quick, and far from the optimum where edges matter.

    Args:
        problems: P problems of n nodes; `unary` is [P, n, n].

    Returns:
        Labels [P, n], -1 where a node stays unmatched; nothing is proven optimal.
    """
    costs = problems.unary.clone()
    num_problems, num_nodes, _ = costs.shape
    labels = torch.full((num_problems, num_nodes), -1)
    every = torch.arange(num_problems)
    for node in range(num_nodes):
        cost, label = costs[:, node].min(dim=1)
        gains = cost < 0
        labels[gains, node] = label[gains]
        # A label that is taken is free for no other node.
        costs[every[gains], :, label[gains]] = torch.inf
    return Solution(assignment=labels, certified=torch.zeros(num_problems, dtype=torch.bool))
