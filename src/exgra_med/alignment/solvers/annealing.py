"""Simulated annealing over shifts, steals, swaps and removals, each judged in O(1)."""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled
from exgra_med.alignment.solvers.random_stream import EXPONENTIAL, TABLE_BITS, advance
from exgra_med.alignment.solvers.state import between, set_label


@compiled
def anneal(M, Q, g, h, matching, owner, proposals, hot, cold, stream, best_matching):
    """Cool from temperature `hot` to `cold` over a number of proposals.

    Returns the cost of the best matching on the way relative to the start, zero or negative, the
    final cost relative to the start, and the state of the random stream. `best_matching` is
    filled whenever the best improves.
    """
    n = matching.shape[0]
    block = 32
    blocks = max(1, proposals // block)
    factor = (cold / hot) ** (1.0 / blocks)
    temperature = hot
    size = np.uint64(n)
    mask = np.uint64((1 << TABLE_BITS) - 1)
    low = np.uint64(0xFFFFF)
    current = 0.0
    best = 0.0
    best_matching[:] = matching
    for _ in range(blocks):
        for _ in range(block):
            stream = advance(stream)
            i = np.int64(((stream & low) * size) >> np.uint64(20))
            b = np.int64((((stream >> np.uint64(20)) & low) * size) >> np.uint64(20))
            rise = temperature * EXPONENTIAL[np.int64((stream >> np.uint64(40)) & mask)]
            a = matching[i]
            if a == b:
                delta = -M[i, a]
                if delta < rise:
                    set_label(M, Q, g, h, matching, owner, i, -1)
                    current += delta
            else:
                j = owner[b]
                out = M[i, a] if a >= 0 else 0.0
                if j < 0:
                    delta = M[i, b] - out
                    if delta < rise:
                        set_label(M, Q, g, h, matching, owner, i, b)
                        current += delta
                else:
                    delta = M[i, b] - out - M[j, b]
                    swap = 0.0
                    if a >= 0:
                        delta += between(Q, g, h, i, a, j, b)
                        swap = M[j, a] + between(Q, g, h, i, b, j, a)
                    if delta + min(swap, 0.0) < rise:
                        set_label(M, Q, g, h, matching, owner, j, -1)
                        set_label(M, Q, g, h, matching, owner, i, b)
                        if swap < 0.0:
                            set_label(M, Q, g, h, matching, owner, j, a)
                            delta += swap
                        current += delta
            if current < best - 1e-9:
                best = current
                best_matching[:] = matching
        temperature *= factor
    return best, current, stream
