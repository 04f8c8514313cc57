"""Going downhill: single moves, swaps, and ejection chains.

A chain takes a node's label away, gives it the best label there is, ejects that label's owner and
goes on with the owner, up to a depth; of all the matchings on the way the cheapest is kept. Shifts,
steals, swaps and longer cycles are all prefixes of chains. Unlike annealing it uses no random
numbers, and where it stops no chain gains.
"""

import numpy as np

from exgra_med.alignment.solvers.state import compiled, set_label

# Which node can gain from which label at all.
#
# A node may always stay unmatched for nothing. If label k costs node i something even where each of
# its edges lands as cheaply as it can,
#
#     U[i, k] + sum over edges e of i of min(0, min over edges f of k of Q[e, f]) >= 0,
#
# then some optimal matching does without it. Perturbed problems, whose off-diagonal costs are high,
# shrink to little more than their diagonal.

FORBIDDING = 1e3
"""Penalty of a useless pair, in units of the largest cost. Any positive one keeps the optimum; this
one no move ever takes, and it is no infinity, which M could not take off again."""


@compiled
def prune(U, edges, low, largest):
    """A copy of U with useless pairs penalised, and the [C, 2] pairs that are left.

    `low` [2, E, n] is what `proof.cheapest_ends` returns.
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


EPSILON = 1e-9
"""Least gain that counts: less is rounding, and could go round in a circle for ever."""


@compiled
def chain(M, Q, graph, graph2, matching, owner, first, depth, nodes, labels, taken):
    """Follow one chain from node `first`; leaves the state at its best prefix.

    Returns the gain, zero or negative; `nodes`, `labels` and `taken` are scratch of size
    2 * depth + 2, the same, and n.
    """
    n = matching.shape[0]
    taken[:] = False
    total = 0.0
    best = -EPSILON
    count = 0
    keep = 0
    node = first
    if matching[node] >= 0:
        total -= M[node, matching[node]]
        nodes[0] = node
        labels[0] = matching[node]
        count = 1
        taken[matching[node]] = True
        set_label(M, Q, graph, graph2, matching, owner, node, -1)
        if total < best:
            best = total
            keep = count
        # The first node does not take its old label back, but the end of the chain may: a cycle.
    came_from = labels[0] if count else -1
    for _ in range(depth):
        score = np.inf
        label = -1
        for k in range(n):
            if taken[k]:
                continue
            cost = M[node, k]
            if owner[k] >= 0:
                cost -= M[owner[k], k]
            if cost < score:
                score = cost
                label = k
        if label < 0:
            break
        ejected = owner[label]
        if ejected >= 0:
            nodes[count] = ejected
            labels[count] = label
            count += 1
            set_label(M, Q, graph, graph2, matching, owner, ejected, -1)
        nodes[count] = node
        labels[count] = -1
        count += 1
        set_label(M, Q, graph, graph2, matching, owner, node, label)
        taken[label] = True
        if came_from >= 0:
            taken[came_from] = False
            came_from = -1
        total += score
        if total < best:
            best = total
            keep = count
        if ejected < 0:
            break
        node = ejected
    # Undone from the end, so that each label is free again when its old owner takes it.
    while count > keep:
        count -= 1
        set_label(M, Q, graph, graph2, matching, owner, nodes[count], labels[count])
    return best if keep else 0.0


@compiled
def descend(M, Q, graph, graph2, matching, owner, depth):
    """Chains from every node until none gains; returns the gain, zero or negative.

    Goes on with the next node after a gain instead of starting over, so that every node gets its
    turn. `idle` counts nodes without a gain in a row.
    """
    n = matching.shape[0]
    nodes = np.empty(2 * depth + 2, np.int32)
    labels = np.empty(2 * depth + 2, np.int32)
    taken = np.zeros(n, np.bool_)
    gained = 0.0
    idle = 0
    first = 0
    while idle < n:
        gain = chain(M, Q, graph, graph2, matching, owner, first, depth, nodes, labels, taken)
        gained += gain
        idle = 0 if gain < 0.0 else idle + 1
        first = first + 1 if first + 1 < n else 0
    return gained
