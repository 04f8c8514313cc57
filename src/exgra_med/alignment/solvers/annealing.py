"""Simulated annealing over shifts, steals, swaps and removals, each judged in O(1).

Two loops over the same moves. `anneal` keeps the table M of state.py, proposes one pair of node and
label at a time, and costs O(degree^2) for each accepted move. `anneal_rows` judges all labels of a
node at once and draws one of them; it keeps what pairs of labels cost in dense rows, so that both
are a few operations on whole vectors. It is for small graphs.
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


# Annealing of small problems: all labels of a node at once.
#
# The moves are those above. A node in turn looks at every label it could take, and at none, and
# draws one with probability proportional to exp(-cost / T): a heat bath. Adding noise of the Gumbel
# distribution times T to each cost and taking the least is such a draw, and needs no sum and no
# exponential. A row of n labels costs little more than a few single proposals, because it is
# a straight run over vectors, where proposals are a chain of branches that nothing predicts.
#
# The state is the table M[i, k] and, for each pair of linked nodes (i, j) and each pair of labels,
# what the two cost together,
#
#     C[slot(i, j), k, m] = Q[(i, j), (k, m)] + Q[(j, i), (m, k)].
#
# When i goes from label a to label b, every neighbour's row of M changes by C[slot, b] - C[slot,
# a], without a look at the second graph. Row n of C is that of "unmatched": zeros. The table takes
# 4 S n^2 bytes for S linked pairs, so it suits small graphs only.
#
# Costs are whole numbers, multiples of 64 of a unit so small that 2^27 of them are more than a node
# can pay. Sums of them have no rounding that could pile up, eight fit a vector, and the six bits
# that are left carry the label, so that one minimum finds the least cost and whose it is. What a
# run finds is loaded again in double precision and descended from (search.py): no cost that is
# reported has the error of the unit.

LANES = 16
"""Rows are padded to multiples of it: numbers in a vector of 512 bits, or in two of 256."""
LABEL_BITS = 63
"""The bits of a cost that carry a label."""
REACH = 1 << 27
"""More than a node can pay, in units."""
LEVELS = 20
"""Temperatures of a run, each with a table of noise of its own."""
NOISE_BITS = 11
GUMBEL = np.random.default_rng(0).permutation(
    -np.log(-np.log((np.arange(1 << NOISE_BITS) + 0.5) / (1 << NOISE_BITS)))
)
"""Quantiles of the Gumbel distribution in an order drawn once; a row of labels takes as many in
a row, from a random place."""
GUMBEL = np.concatenate([GUMBEL, GUMBEL[:128]]).astype(np.float32)


@compiled
def whole_cost(cost, unit):
    """A cost as a multiple of 64 of the unit."""
    return np.int32(cost * unit) & np.int32(~LABEL_BITS)


@compiled
def dense_pair_costs(U, Q, edges, edges2, table, largest, num_edges):
    """Linked pairs and their costs; empty where `num_edges` is 0 instead of E.

    Returns:
        first [n + 1] and other [S]: neighbours of node i lie from first_i to first_{i+1};
        slot [n, n]: the number of a linked pair, or -1;
        unit: how many units a cost of one is;
        W [n, n]: U in units; what is more than any node can pay becomes twice that;
        C [S, n + 1, L]: in units; L is n rounded up to whole vectors.
    """
    n = table.shape[0]
    width = (n + LANES - 1) // LANES * LANES
    first = np.zeros(n + 1, np.int32)
    slot = np.full((n, n), -1, np.int32)
    other = np.empty(n * n, np.int32)
    count = 0
    most = 0
    for i in range(n if num_edges else 0):
        for j in range(n):
            if table[i, j] != -2:
                slot[i, j] = count
                other[count] = j
                count += 1
        first[i + 1] = count
        most = max(most, count - first[i])
    # An edge and its reverse for every neighbour, and the node's own cost.
    reach = largest * (1 + 2 * most)
    unit = REACH / reach
    W = np.empty((n, n), np.int32)
    for i in range(n):
        for k in range(n):
            W[i, k] = whole_cost(min(U[i, k], 2 * reach), unit)
    C = np.zeros((count, n + 1, width), np.int32)
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
                cost = whole_cost(row[f], unit)
                there[k, m] += cost
                back[m, k] += cost
    return first, other[:count], slot, unit, W, C


@compiled
def relabel(M, C, first, other, node, old, new):
    """Change the rows of M for a node that goes from label `old` to `new` (n: unmatched)."""
    for s in range(first[node], first[node + 1]):
        row = M[other[s]]
        gone, come = C[s, old], C[s, new]
        for l in range(row.shape[0]):  # noqa: E741
            row[l] += come[l] - gone[l]


@compiled
def anneal_rows(
    W, C, unit, first, other, slot, start, matching, owner, sweeps, hot, cold, stream, found
):
    """Cool from temperature `hot` to `cold` over a number of sweeps, from matching `start`.

    A sweep draws a label for each node. What i would pay at label b, less what others save by it,
    is `value[b]`; staying is what it pays now, and being unmatched zero. `own[b]` is what the owner
    of b pays. `matching` and `owner` are scratch with a place for each node and one more.

    Returns the state of the random stream; `found` is the best matching on the way.
    """
    n = W.shape[0]
    width = C.shape[2]
    # "Unmatched" is label n inside this loop, so that it has a row of C (of zeros) like any other,
    # and "nobody" is node n, who pays nothing for any label; -1 comes back at the end.
    M = np.zeros((n + 1, width), np.int32)
    M[:n, n:] = 4 * REACH
    M[:n, :n] = W
    matching[:] = n
    owner[:] = n
    for i in range(n):
        if start[i] >= 0:
            matching[i] = start[i]
            owner[start[i]] = i
            relabel(M, C, first, other, i, n, start[i])
    own = np.zeros(width, np.int32)
    for b in range(n):
        own[b] = M[owner[b], b]
    column = np.zeros(width, np.int32)
    value = np.empty(width, np.int32)
    noise = np.empty(GUMBEL.shape[0], np.int32)
    levels = max(1, min(LEVELS, sweeps))
    factor = (cold / hot) ** (1.0 / max(1, levels - 1))  # Geometric cooling.
    temperature = hot * unit
    current, best = 0, 0  # Costs relative to the start.
    found[:] = matching[:n]
    for level in range(levels):
        for x in range(noise.shape[0]):
            noise[x] = whole_cost(min(GUMBEL[x] * temperature, 0.5 * REACH), 1.0)
        temperature *= factor
        for _ in range(sweeps * level // levels, sweeps * (level + 1) // levels):
            for i in range(n):
                stream = advance(stream)
                offset = stream >> np.uint64(64 - NOISE_BITS)
                a = matching[i]
                row = M[i]
                # What the owner of each label would pay for i's in exchange.
                if a < n:
                    for b in range(n):
                        column[b] = M[owner[b], a]
                else:
                    column[:] = 0
                for b in range(width):
                    value[b] = row[b] - own[b] + min(np.int32(0), column[b])
                # A neighbour's costs know i where it is now. What the two cost together is part of
                # both and was taken off twice; and its cost at label a does not know i at b yet.
                for s in range(first[i], first[i + 1]):
                    b = matching[other[s]]
                    if b < n:
                        value[b] = row[b] - own[b] + C[s, a, b]
                        if a < n:
                            value[b] += min(0, column[b] + C[s, b, a])
                stay = 0
                if a < n:
                    stay = row[a]
                    value[a] = row[a]
                low = np.int32(2**31 - 1)
                for b in range(width):
                    # Unsigned: an index that might be negative is no straight run over memory.
                    x = np.uint64(b)
                    low = min(low, np.int32(value[x] - noise[offset + x] + np.int32(b)))
                label = np.int64(low & LABEL_BITS)
                if low > -noise[offset + np.uint64(width)]:
                    label = n
                if label == a:
                    continue
                current -= stay
                j, left = n, n
                if label < n:
                    current += value[label]
                    j = owner[label]
                if j < n and a < n:
                    swap = M[j, a]
                    s = slot[i, j]
                    if s >= 0:
                        swap += C[s, label, a]
                    if swap < 0:
                        left = a
                relabel(M, C, first, other, i, a, label)
                matching[i] = label
                owner[a] = n
                owner[label] = i
                if j < n:
                    relabel(M, C, first, other, j, label, left)
                    matching[j] = left
                    owner[left] = j
                owner[n] = n
                for b in range(n):
                    own[b] = M[owner[b], b]
                if current < best:
                    best = current
                    found[:] = matching[:n]
    for i in range(n):
        if found[i] == n:
            found[i] = -1
    return stream
