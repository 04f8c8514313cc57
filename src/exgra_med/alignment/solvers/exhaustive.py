"""The oracle: all partial matchings, one after the other. For tests and for tiny problems."""

import numpy as np
import torch

from exgra_med.alignment.solvers.protocol import Problems, Solution, takes_at_most
from exgra_med.alignment.solvers.state import HAS_NUMBA, build_graph, compiled


@compiled
def enumerate_matchings(U, Q, table, table2):
    """Depth-first over nodes; the cost of a prefix is kept for each depth.

    Nothing is cut, although many prefixes could not become the best: an oracle should have no idea
    in it that can be wrong.
    """
    n = U.shape[0]
    matching = np.full(n, -2, np.int64)  # -2: nothing tried yet; the next is -1, "unmatched".
    used = np.zeros(n, np.bool_)
    cost = np.zeros(n + 1, np.float64)
    best = 0.0
    best_matching = np.full(n, -1, np.int64)
    depth = 0
    while depth >= 0:
        if depth == n:
            if cost[n] < best:
                best = cost[n]
                best_matching[:] = matching
            depth -= 1
            continue
        old = matching[depth]
        if old >= 0:
            used[old] = False
        label = old + 1
        while label >= 0 and label < n and used[label]:
            label += 1
        if label >= n:
            matching[depth] = -2
            depth -= 1
            continue
        matching[depth] = label
        total = cost[depth]
        if label >= 0:
            used[label] = True
            total += U[depth, label]
            for j in range(depth):
                other = matching[j]
                if other >= 0:
                    if table[depth, j] >= 0 and table2[label, other] >= 0:
                        total += Q[table[depth, j], table2[label, other]]
                    if table[j, depth] >= 0 and table2[other, label] >= 0:
                        total += Q[table[j, depth], table2[other, label]]
        cost[depth + 1] = total
        depth += 1
    return best_matching


# Nine nodes have 17 572 114 matchings, which take seconds; ten have twelve times as many.
@takes_at_most(9 if HAS_NUMBA else 6)
def solve_exhaustively(problems: Problems) -> Solution:
    """Look at every partial matching of every problem."""
    num_nodes = problems.unary.shape[1]
    assignment = []
    for U, Q, edges, edges2 in zip(*problems.arrays(), strict=True):
        table, table2 = build_graph(edges, num_nodes)[1], build_graph(edges2, num_nodes)[1]
        assignment.append(enumerate_matchings(U, Q, table, table2))
    device = problems.unary.device
    return Solution(
        assignment=torch.from_numpy(np.stack(assignment)).to(device),
        certified=torch.ones(len(assignment), dtype=torch.bool, device=device),
    )
