"""Simulated annealing over shifts, steals, swaps and removals, each judged in O(1)."""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled
from exgra_med.alignment.solvers.random_stream import EXPONENTIAL, TABLE_BITS, advance
from exgra_med.alignment.solvers.state import between, set_label

BLOCK = 32
"""Proposals at one temperature."""


@compiled
def anneal(
    M,
    Q,
    graph,
    graph2,
    table,
    table2,
    matching,
    owner,
    pairs,
    proposals,
    hot,
    cold,
    stream,
    best_matching,
):
    """Cool from temperature `hot` to `cold` over a number of proposals.

    A proposal is one of the `pairs` (node, label). If the node has that label, it is to lose it;
    if the label is free, the node is to take it; if it is taken, the owner is to lose it, or to
    take the node's old label, whichever is cheaper.

    Returns the state of the random stream; `best_matching` is the best matching on the way.
    """
    blocks = max(1, proposals // BLOCK)
    factor = (cold / hot) ** (1.0 / blocks)
    temperature = hot
    size = np.uint64(pairs.shape[0])
    mask = np.uint64((1 << TABLE_BITS) - 1)
    current = 0.0
    best = 0.0
    best_matching[:] = matching
    for _ in range(blocks):
        for _ in range(BLOCK):
            stream = advance(stream)
            drawn = np.int64(((stream >> np.uint64(32)) * size) >> np.uint64(32))
            rise = temperature * EXPONENTIAL[np.int64(stream & mask)]
            i, b = pairs[drawn, 0], pairs[drawn, 1]
            a = matching[i]
            if a == b:
                delta = -M[i, a]
                if delta < rise:
                    set_label(M, Q, graph, graph2, matching, owner, i, -1)
                    current += delta
                continue
            j = owner[b]
            delta = M[i, b]
            if a >= 0:
                delta -= M[i, a]
            if j < 0:
                if delta < rise:
                    set_label(M, Q, graph, graph2, matching, owner, i, b)
                    current += delta
            else:
                delta -= M[j, b]
                swap = 0.0
                if a >= 0:
                    delta += between(Q, table, table2, i, a, j, b)
                    swap = M[j, a] + between(Q, table, table2, i, b, j, a)
                if delta + min(swap, 0.0) < rise:
                    set_label(M, Q, graph, graph2, matching, owner, j, -1)
                    set_label(M, Q, graph, graph2, matching, owner, i, b)
                    if swap < 0.0:
                        set_label(M, Q, graph, graph2, matching, owner, j, a)
                        delta += swap
                    current += delta
            if current < best - 1e-9:
                best = current
                best_matching[:] = matching
        temperature *= factor
    return stream
