"""Which node can gain from which label at all.

A node may always stay unmatched for nothing. If even the best company could not make label k worth
having for node i,

    U[i, k] + sum over edges e of i of min(0, min over edges f of k of Q[e, f]) >= 0,

then some optimal matching does without it. Perturbed problems, whose off-diagonal costs are high,
shrink to little more than their diagonal.
"""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled

FORBIDDING = 1e3
"""Penalty of a useless pair, in units of the largest cost; any positive one keeps the optimum."""


@compiled
def prune(U, edges, low, largest):
    """A copy of U with useless pairs penalised, and the [C, 2] pairs that are left.

    `low` [2, E, n] is what bound.cheapest_ends returns.
    """
    n = U.shape[0]
    worth = U.astype(np.float64)
    for e in range(edges.shape[1]):
        if edges[0, e] >= 0:
            tail, head = worth[edges[0, e]], worth[edges[1, e]]
            for k in range(n):
                tail[k] += low[0, e, k]
            for k in range(n):
                head[k] += low[1, e, k]
    pruned = U.copy()
    pairs = np.empty((n * n, 2), np.int32)
    count = 0
    for i in range(n):
        for k in range(n):
            if worth[i, k] < 0.0:
                pairs[count, 0], pairs[count, 1] = i, k
                count += 1
            else:
                pruned[i, k] = FORBIDDING * largest
    return pruned, pairs[:count]
