"""Simulated annealing over shifts, steals, swaps and removals, each judged in O(1).

Two loops over the same moves. `anneal` keeps the table M of state.py, proposes one pair of node and
label at a time, and costs O(degree^2) for each accepted move. `anneal_rows` judges all labels of a
node at once and draws one of them; it keeps what pairs of labels cost in dense rows, so that both
are a few operations on whole vectors. It is for small graphs.
"""

import numpy as np

from exgra_med.alignment.solvers.state import (
    EXPONENTIAL,
    advance,
    between,
    compiled,
    compiled_into_callers,
    set_label,
)

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
# 2 S n^2 bytes for S linked pairs, so it suits small graphs only.
#
# M knows every other node where it is now. Where i takes the label b of a linked node j, what the
# two cost together, now[i, b] = C[slot, a, b], is part of what i saves and of what j saves, and was
# taken off twice; and if j takes label a in exchange, they cost swapped[i, b] = C[slot, b, a]
# together. Most draws change nothing, so both are kept for all nodes and brought up to date by each
# move, and a draw is vectors alone.
#
# Costs are whole numbers. Sums of them have no rounding that could pile up, sixteen fit a vector of
# 512 bits, and six bits are left below a cost for the label, so that one minimum finds the least
# cost and whose it is. What a run finds is loaded again in double precision and descended from
# (search.py): no cost that is reported has the error of the unit.
#
# All tables are flat and their places unsigned: a view of a row counts references, and a place that
# may be negative is looked at once more. Both together took a draw longer than its labels.

LANES = 16
"""Rows are padded to multiples of it: numbers in a vector of 512 bits, or in two of 256."""
LABEL_BITS = 6
"""A place for each of 64 labels below a cost."""
LARGEST = 16_000
"""The largest cost in units: two of them, there and back, fit 16 bits, which halves C."""
NO_LABEL = np.int32(1 << 24)
"""Above what any noise takes off; with a place for the label it is still a number of 32 bits."""
LEVELS = 20
"""Temperatures of a run, each with a table of noise of its own."""
NOISE_BITS = 11
MOST_NOISE = np.float32(1 << 20)
"""Of a temperature that no schedule has; 64 times of it are still a whole number of 32 bits."""
GUMBEL = np.random.default_rng(0).permutation(
    -np.log(-np.log((np.arange(1 << NOISE_BITS) + 0.5) / (1 << NOISE_BITS)))
)
"""Quantiles of the Gumbel distribution in an order drawn once; a row of labels takes as many in
a row, from a random place."""
GUMBEL = np.concatenate([GUMBEL, GUMBEL[:128]]).astype(np.float32)


@compiled
def dense_pair_costs(U, Q, edges, edges2, table, largest, num_edges):
    """Linked pairs and their costs; empty where `num_edges` is 0 instead of E.

    Returns:
        first [n + 1] and other [S]: neighbours of node i lie from first_i to first_{i+1};
        unit: how many units a cost of one is;
        W [n, L]: U in units, L is n rounded up to whole vectors; what is more than any node can pay
        becomes twice that, and labels that do not exist cost `NO_LABEL`;
        C [S, n + 1, L]: in units.
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
    unit = LARGEST / largest
    # An edge and its reverse for every neighbour, and the node's own cost, twice.
    forbidden = 2 * largest * (1 + 2 * most)
    W = np.full((n, width), NO_LABEL, np.int32)
    for i in range(n):
        for k in range(n):
            W[i, k] = np.int32(min(U[i, k], forbidden) * unit)
    C = np.zeros((count, n + 1, width), np.int16)
    for e in range(num_edges):
        i, j = edges[0, e], edges[1, e]
        if i < 0:
            continue
        there, back = C[slot[i, j]], C[slot[j, i]]
        row = Q[e]
        for f in range(edges2.shape[1]):
            # Both places: whichever of the two nodes moves finds its row lying in one piece.
            if edges2[0, f] >= 0:
                k, m = np.uint64(edges2[0, f]), np.uint64(edges2[1, f])
                cost = np.int16(row[f] * unit)
                there[k, m] += cost
                back[m, k] += cost
    return first, other[:count], unit, W, C


@compiled_into_callers
def relabel(M, pair, now, swapped, first, other, width, node, old, new):
    """Change the rows of M for a node that goes from label `old` to `new` (n: unmatched).

    Nobody has the old label any more, until a next call says otherwise.
    """
    n = first.shape[0] - 1
    for s in range(first[node], first[node + 1]):
        j = other[s] * width
        row = np.uint64(j)
        gone = np.uint64((s * (n + 1) + old) * width)
        come = np.uint64((s * (n + 1) + new) * width)
        for k in range(width):
            x = np.uint64(k)
            M[row + x] += np.int32(pair[come + x]) - np.int32(pair[gone + x])
        if old < n:
            now[j + old] = 0
            swapped[j + old] = 0


@compiled_into_callers
def tie(M, pair, now, swapped, own, first, other, matching, width, node, label):
    """What a node and its neighbours cost together, with its new label, and what they pay."""
    n = first.shape[0] - 1
    for s in range(first[node], first[node + 1]):
        j = np.int64(other[s])
        m = np.int64(matching[j])
        together, exchanged = np.int32(0), np.int32(0)
        if m < n:
            own[m] = M[j * width + m]
            if label < n:
                together = np.int32(pair[(s * (n + 1) + label) * width + m])
                exchanged = np.int32(pair[(s * (n + 1) + m) * width + label])
            now[node * width + m] = together
            swapped[node * width + m] = exchanged
        if label < n:
            now[j * width + label] = together
            swapped[j * width + label] = exchanged
    if label < n:
        own[label] = M[node * width + label]


@compiled
def anneal_rows(
    W, C, unit, first, other, start, matching, owner, sweeps, hot, cold, stream, found
):  # fmt: skip
    """Cool from temperature `hot` to `cold` over a number of sweeps, from matching `start`.

    A sweep draws a label for each node. `M[row + b]` is what i pays at label b, `own[b]` what the
    owner of b pays, `place[b]` where the owner's row of M begins. `matching` and `owner` are
    scratch with a place for each node and one more.

    Returns the state of the random stream; `found` is the best matching on the way.
    """
    n, width = W.shape
    # "Unmatched" is label n inside this loop, so that it has a row of C (of zeros) like any other,
    # and "nobody" is node n, who pays nothing for any label; -1 comes back at the end.
    M = np.zeros((n + 1) * width, np.int32)
    M[: n * width] = W.reshape(-1)
    pair = C.reshape(-1)
    matching[:] = n
    owner[:] = n
    place = np.full(width, n * width, np.int32)
    now = np.zeros((n + 1) * width, np.int32)
    swapped = np.zeros((n + 1) * width, np.int32)
    for i in range(n):
        if start[i] >= 0:
            matching[i] = start[i]
            owner[start[i]] = i
            place[start[i]] = i * width
            relabel(M, pair, now, swapped, first, other, width, i, n, start[i])
    own = np.zeros(width, np.int32)
    for i in range(n):
        tie(M, pair, now, swapped, own, first, other, matching, width, i, np.int64(matching[i]))
    noise = np.empty(GUMBEL.shape[0], np.int32)
    levels = max(1, min(LEVELS, sweeps))
    factor = (cold / hot) ** (1.0 / max(1, levels - 1))  # Geometric cooling.
    temperature = hot * unit
    current, best = 0, 0  # Costs relative to the start.
    found[:] = matching[:n]
    nothing = np.int32(0)
    for level in range(levels):
        heat = np.float32(temperature)
        for x in range(noise.shape[0]):
            noise[x] = np.int32(min(GUMBEL[x] * heat, MOST_NOISE))
        temperature *= factor
        for _ in range(sweeps * level // levels, sweeps * (level + 1) // levels):
            for i in range(n):
                stream = advance(stream)
                offset = stream >> np.uint64(64 - NOISE_BITS)
                a = np.int64(matching[i])
                row = np.uint64(i * width)
                low = np.int32(2**31 - 1)
                # Every sum is cut to 32 bits again, or half as many labels would fit a vector.
                # Staying costs what i pays now, but never more than being unmatched.
                if a < n:
                    for b in range(width):
                        x = np.uint64(b)
                        cost = np.int32(np.int32(M[row + x] - own[x]) + now[row + x])
                        exchange = np.int32(
                            M[np.uint64(place[x]) + np.uint64(a)] + swapped[row + x]
                        )
                        cost = np.int32(cost + min(nothing, exchange))
                        cost = np.int32(np.int32(cost - noise[offset + x]) << LABEL_BITS)
                        low = min(low, np.int32(cost + np.int32(b)))
                else:
                    for b in range(width):
                        x = np.uint64(b)
                        cost = np.int32(np.int32(M[row + x] - own[x]) - noise[offset + x])
                        low = min(low, np.int32(np.int32(cost << LABEL_BITS) + np.int32(b)))
                label = np.int64(low & ((1 << LABEL_BITS) - 1))
                if low >> LABEL_BITS > -noise[offset + np.uint64(width)]:
                    label = n
                if label == a:
                    continue
                # Who has that label now, and what it gets instead.
                j, left = n, n
                if a < n:
                    current -= own[a]
                if label < n:
                    current += M[i * width + label] - own[label] + now[i * width + label]
                    j = np.int64(owner[label])
                    if j < n and a < n:
                        exchange = M[j * width + a] + swapped[i * width + label]
                        if exchange < 0:
                            current += exchange
                            left = a
                matching[i] = label
                if a < n:
                    owner[a], place[a], own[a] = n, n * width, 0
                relabel(M, pair, now, swapped, first, other, width, i, a, label)
                if j < n:
                    matching[j] = left
                    if left < n:
                        owner[left], place[left] = j, j * width
                    relabel(M, pair, now, swapped, first, other, width, j, label, left)
                    tie(M, pair, now, swapped, own, first, other, matching, width, j, left)
                if label < n:
                    owner[label], place[label] = i, i * width
                tie(M, pair, now, swapped, own, first, other, matching, width, i, label)
                if current < best:
                    best = current
                    for k in range(n):
                        found[k] = matching[k]
    for i in range(n):
        if found[i] == n:
            found[i] = -1
    return stream
