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
def prune(U, Q, graph, graph2, largest):
    """A copy of U with useless pairs penalised, and the [C, 2] pairs that are left."""
    n = U.shape[0]
    pruned = U.copy()
    pairs = np.empty((n * n, 2), np.int32)
    count = 0
    for i in range(n):
        for k in range(n):
            cost = np.float64(U[i, k])
            begin, begin2 = 0, 0
            for direction in range(2):
                low, high = graph2[begin2 + k], graph2[begin2 + k + 1]
                for x in range(graph[begin + i], graph[begin + i + 1], 2):
                    cheapest = np.float32(0.0)
                    for y in range(low, high, 2):
                        cheapest = min(cheapest, Q[graph[x], graph2[y]])
                    cost += cheapest
                if direction == 0:
                    begin, begin2 = graph[n], graph2[n]
            if cost < 0.0:
                pairs[count, 0], pairs[count, 1] = i, k
                count += 1
            else:
                pruned[i, k] = FORBIDDING * largest
    return pruned, pairs[:count]
