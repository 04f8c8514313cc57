"""Simulated annealing over shifts, steals, swaps and removals, each judged in O(1).

Two loops over the same moves. `anneal` keeps the table M of state.py and costs O(degree^2) for each
accepted move. `anneal_dense` keeps what pairs of labels cost in dense rows besides, so that a move
is a few additions of whole vectors; it is for small graphs.
"""

import numpy as np

from exgra_med.alignment.solvers.state import EXPONENTIAL, advance, between, compiled, set_label

BLOCK = 32
"""Proposals at one temperature; cooling after every single one would be one more multiplication in
the innermost loop, each waiting for the one before."""


@compiled
def propose(stream, pairs, exponential):
    """Next state of the random stream, a node and a label for it, and the threshold in units of the
    temperature.

    One draw serves twice: its upper half picks the pair (a multiplication instead of a division),
    its lowest bits the threshold. Metropolis accepts a rise d with probability exp(-d / T), that is
    if d < T x with x exponential; x comes from a table of quantiles, because a logarithm for each
    proposal is slow.
    """
    stream = advance(stream)
    drawn = np.int64(((stream >> np.uint64(32)) * np.uint64(pairs.shape[0])) >> np.uint64(32))
    threshold = exponential[np.int64(stream & np.uint64(exponential.shape[0] - 1))]
    return stream, pairs[drawn, 0], pairs[drawn, 1], threshold


@compiled
def anneal(
    M, Q, graph, graph2, table, table2, matching, owner, pairs, proposals, hot, cold, stream, found
):
    """Cool from temperature `hot` to `cold` over a number of proposals.

    A proposal is one of the `pairs` (node, label). If the node has that label, it is to lose it;
    if the label is free, the node is to take it; if it is taken, the owner is to lose it, or to
    take the node's old label, whichever is cheaper.

    Returns the state of the random stream; `found` is the best matching on the way.
    """
    blocks = max(1, proposals // BLOCK)
    factor = (cold / hot) ** (1.0 / blocks)  # Geometric cooling.
    temperature = hot
    current = 0.0  # Costs relative to the start: only differences are known, and needed.
    best = 0.0
    found[:] = matching
    for _ in range(blocks):
        for _ in range(BLOCK):
            stream, i, b, threshold = propose(stream, pairs, EXPONENTIAL)
            a = matching[i]
            # What i is labelled next; who has that label now, and what it gets instead.
            label, j, left = b, -1, -1
            delta = -M[i, a] if a >= 0 else 0.0
            if a == b:
                label = -1
            else:
                # M knows every other node where it is now, which is right while only i moves. Where
                # j leaves too, what i and j cost together is part of M[i, a] and of M[j, b] and is
                # taken off twice: `between` gives it back once. And M[j, a] does not know i at b
                # yet.
                delta += M[i, b]
                j = owner[b]
                if j >= 0:
                    delta -= M[j, b]
                    if a >= 0:
                        delta += between(Q, table, table2, i, a, j, b)
                        swap = M[j, a] + between(Q, table, table2, i, b, j, a)
                        if swap < 0.0:
                            delta += swap
                            left = a
            if delta >= temperature * threshold:
                continue
            if j >= 0:  # First, because a label has to be free before somebody takes it.
                set_label(M, Q, graph, graph2, matching, owner, j, -1)
            set_label(M, Q, graph, graph2, matching, owner, i, label)
            if left >= 0:
                set_label(M, Q, graph, graph2, matching, owner, j, left)
            current += delta
            # By a margin, so that rounding does not copy the matching again and again.
            if current < best - 1e-9:
                best = current
                found[:] = matching
        temperature *= factor
    return stream


# Annealing of small problems: what pairs of labels cost, as dense rows that are added at once.
#
# The moves are those above. The state is the table M[i, k] in single precision and, for each pair
# of linked nodes (i, j) and each pair of labels, what the two cost together,
#
#     C[slot(i, j), k, m] = Q[(i, j), (k, m)] + Q[(j, i), (m, k)].
#
# When i goes from label a to label b, every neighbour's row of M changes by C[slot, b] - C[slot,
# a], without a look at the second graph. Row n of C is that of "unmatched": zeros. Rows are padded
# to whole vectors. The table takes 4 S n^2 bytes for S linked pairs, so it suits small graphs only.
#
# Single precision, because twice as many numbers fit a vector and the cache. Rounding may misjudge
# a move by far less than a temperature; what a run finds is loaded again in double precision and
# descended from (search.py), so that no cost that is reported has these errors.

LANES = 8
"""Numbers of single precision in a vector of 256 bits."""
SMALL_EXPONENTIAL = (-np.log((np.arange(1 << 10) + 0.5) / (1 << 10))).astype(np.float32)
"""A table of 4 KiB, beside rows of C that want the cache for themselves."""


@compiled
def dense_pair_costs(Q, edges, edges2, table, num_edges):
    """Linked pairs and their costs; empty where `num_edges` is 0 instead of E.

    Returns:
        first [n + 1] and other [S]: neighbours of node i lie from first_i to first_{i+1};
        slot [n, n]: the number of a linked pair, or -1;
        C [S, n + 1, W]: W is n rounded up to whole vectors.
    """
    n = table.shape[0]
    width = (n + LANES - 1) // LANES * LANES
    first = np.zeros(n + 1, np.int32)
    slot = np.full((n, n), -1, np.int32)
    other = np.empty(n * n, np.int32)
    count = 0
    for i in range(n if num_edges else 0):
        for j in range(n):
            if table[i, j] != -2:
                slot[i, j] = count
                other[count] = j
                count += 1
        first[i + 1] = count
    C = np.zeros((count, n + 1, width), np.float32)
    for e in range(num_edges):
        i, j = edges[0, e], edges[1, e]
        if i < 0:
            continue
        there, back = C[slot[i, j]], C[slot[j, i]]
        row = Q[e]
        for f in range(edges2.shape[1]):
            k, m = edges2[0, f], edges2[1, f]
            # Both places: whichever of the two nodes moves finds its row lying in one piece.
            if k >= 0:
                there[k, m] += row[f]
                back[m, k] += row[f]
    return first, other[:count], slot, C


@compiled
def relabel(M, C, first, other, node, old, new):
    """Change the rows of M for a node that goes from label `old` to `new` (n: unmatched)."""
    for s in range(first[node], first[node + 1]):
        row = M[other[s]]
        gone, come = C[s, old], C[s, new]
        for l in range(row.shape[0]):  # noqa: E741
            row[l] += come[l] - gone[l]


@compiled
def anneal_dense(
    U, C, first, other, slot, start, matching, owner, pairs, proposals, hot, cold, stream, found
):
    """Cool from temperature `hot` to `cold` over a number of proposals, from matching `start`.

    Returns the state of the random stream; `found` is the best matching on the way.
    """
    n = U.shape[0]
    M = np.zeros((n, C.shape[2]), np.float32)
    M[:, :n] = U
    # "Unmatched" is label n inside this loop, so that it has a row of C (of zeros) like any other
    # and no branch is needed; -1 comes back at the end.
    matching[:] = n
    owner[:] = -1
    for i in range(n):
        if start[i] >= 0:
            matching[i] = start[i]
            owner[start[i]] = i
            relabel(M, C, first, other, i, n, start[i])
    blocks = max(1, proposals // BLOCK)
    factor = np.float32((cold / hot) ** (1.0 / blocks))
    temperature = np.float32(hot)
    current = np.float32(0.0)
    # As above: `best` is kept a little below what was found.
    best = np.float32(-1e-6)
    found[:] = matching
    for _ in range(blocks):
        for _ in range(BLOCK):
            stream, i, b, threshold = propose(stream, pairs, SMALL_EXPONENTIAL)
            a = matching[i]
            label, j, left = b, -1, n
            delta = np.float32(0.0)
            if a < n:
                delta -= M[i, a]
            if a == b:
                label = n
            else:
                delta += M[i, b]
                j = owner[b]
                if j >= 0:
                    delta -= M[j, b]
                    if a < n:
                        swap = M[j, a]
                        # What i and j cost together, as `between` gives it above.
                        s = slot[i, j]
                        if s >= 0:
                            delta += C[s, a, b]
                            swap += C[s, b, a]
                        if swap < np.float32(0.0):
                            delta += swap
                            left = a
            if delta >= temperature * threshold:
                continue
            relabel(M, C, first, other, i, a, label)
            matching[i] = label
            if a < n:
                owner[a] = -1
            if label < n:
                owner[label] = i
            if j >= 0:
                relabel(M, C, first, other, j, b, left)
                matching[j] = left
                if left < n:
                    owner[left] = j
            current += delta
            if current < best:
                best = current - np.float32(1e-6)
                found[:] = matching
        temperature *= factor
    for i in range(n):
        if found[i] == n:
            found[i] = -1
    return stream
