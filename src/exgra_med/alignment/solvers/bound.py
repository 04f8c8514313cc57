"""A lower bound that is cheap enough to try first, and exact when the views are aligned.

Each edge pair's cost is split in halves between its two ends. For node i with label k the cheapest
its halves can be is

    L[i, k] = U[i, k] + sum over edges e of i of min(0, min over edges f of k of Q[e, f] / 2),

edges that leave with edges that leave, edges that arrive with edges that arrive. Every matching
costs at least sum_i min(0, min_k L[i, k]): a matching that costs no more than that is optimal.
"""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled


@compiled
def lower_bound(U, Q, g, h):
    """sum_i min(0, min_k L[i, k]), in O(n^2 * degree^2)."""
    n = U.shape[0]
    total = 0.0
    for i in range(n):
        least = 0.0
        for k in range(n):
            cost = np.float64(U[i, k])
            for x in range(g[0][i], g[0][i + 1]):
                cheapest = 0.0
                for y in range(h[0][k], h[0][k + 1]):
                    cheapest = min(cheapest, Q[g[1][x], h[1][y]])
                cost += 0.5 * cheapest
            for x in range(g[3][i], g[3][i + 1]):
                cheapest = 0.0
                for y in range(h[3][k], h[3][k + 1]):
                    cheapest = min(cheapest, Q[g[4][x], h[4][y]])
                cost += 0.5 * cheapest
            least = min(least, cost)
        total += least
    return total
