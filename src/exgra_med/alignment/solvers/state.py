"""The state of a search: a partial matching and what every single change would cost.

The heart is the table M[i, k]: the cost of node i having label k with everything else as it is,

    M[i, k] = U[i, k] + sum over edges between i and matched nodes j of Q[(i, j), (k, p_j)] + ...

both directions of an edge. Moving node i from label a to label b costs M[i, b] - M[i, a], so a move
is judged in O(1); making it changes only rows of i's neighbours, in O(degree^2).

A graph is stored as three arrays for edges that leave a node and three for those that arrive:
`start[i]:start[i + 1]` is node i's range in `edge` (its number) and `other` (the far end), and as
`table[i, j]`, the number of edge (i, j) or -1.

All functions are plain loops over numpy arrays for numba; without numba they run, slowly.
"""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled


@compiled
def lists(edges, num_nodes, row):
    """Edges that leave (`row` 0) or arrive at (`row` 1) each node: start, edge, other."""
    num_edges = edges.shape[1]
    start = np.zeros(num_nodes + 1, np.int32)
    for e in range(num_edges):
        if edges[0, e] >= 0:
            start[edges[row, e] + 1] += 1
    for i in range(num_nodes):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    edge = np.empty(num_edges, np.int32)
    other = np.empty(num_edges, np.int32)
    for e in range(num_edges):
        if edges[0, e] >= 0:
            place = fill[edges[row, e]]
            edge[place] = e
            other[place] = edges[1 - row, e]
            fill[edges[row, e]] += 1
    return start, edge, other


@compiled
def build_graph(edges, num_nodes):
    """Both kinds of lists and the table of edge numbers."""
    table = np.full((num_nodes, num_nodes), -1, np.int32)
    for e in range(edges.shape[1]):
        if edges[0, e] >= 0:
            table[edges[0, e], edges[1, e]] = e
    leave = lists(edges, num_nodes, 0)
    arrive = lists(edges, num_nodes, 1)
    return leave[0], leave[1], leave[2], arrive[0], arrive[1], arrive[2], table


@compiled
def add_label(M, Q, g, h, node, label, sign):
    """Add (sign 1) or take away (sign -1) what `node` having `label` means to its neighbours."""
    for x in range(g[0][node], g[0][node + 1]):
        e, i = g[1][x], g[2][x]
        for y in range(h[0][label], h[0][label + 1]):
            M[i, h[2][y]] += sign * Q[e, h[1][y]]
    for x in range(g[3][node], g[3][node + 1]):
        e, i = g[4][x], g[5][x]
        for y in range(h[3][label], h[3][label + 1]):
            M[i, h[5][y]] += sign * Q[e, h[4][y]]


@compiled
def set_label(M, Q, g, h, matching, owner, node, label):
    """Give `node` another `label` (-1: none). The label must be free."""
    old = matching[node]
    if old >= 0:
        add_label(M, Q, g, h, node, old, -1.0)
        owner[old] = -1
    matching[node] = label
    if label >= 0:
        owner[label] = node
        add_label(M, Q, g, h, node, label, 1.0)


@compiled
def load(M, U, Q, g, h, matching, owner, labels):
    """Make the state that of the matching `labels`; returns its cost."""
    n = U.shape[0]
    for i in range(n):
        matching[i] = -1
        owner[i] = -1
        for k in range(n):
            M[i, k] = U[i, k]
    cost = 0.0
    for i in range(n):
        if labels[i] >= 0:
            cost += M[i, labels[i]]
            set_label(M, Q, g, h, matching, owner, i, labels[i])
    return cost


@compiled
def between(Q, g, h, i, k, j, m):
    """What the edges between nodes i (with label k) and j (with label m) cost."""
    cost = 0.0
    e = g[6][i, j]
    if e >= 0:
        f = h[6][k, m]
        if f >= 0:
            cost += Q[e, f]
    e = g[6][j, i]
    if e >= 0:
        f = h[6][m, k]
        if f >= 0:
            cost += Q[e, f]
    return cost
