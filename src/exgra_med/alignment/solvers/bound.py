"""A proof that a matching is optimal, cheap enough to try before searching on.

Move the cost of each edge to its two ends: find messages a_e(k) and b_e(l) with

    a_e(k) + b_e(l) <= Q[e, (k, l)]   (0 where (k, l) is no edge, or one of them is "unmatched").

Every matching then costs at least sum_i min_k r_i(k), where r_i(k) = U[i, k] + the messages of i's
edges and r_i("unmatched") = the messages alone. Where this meets the cost of a known matching p,
p is optimal.

`guided_messages` makes p tight and gives the rest in halves, in O(E F):

    a_e(p_i) = b_e(p_j) = Q[e, p(e)] / 2
    a_e(k) = min(cheapest(k) / 2, Q[e, (k, p_j)] - Q[e, p(e)] / 2)     for every other k
    b_e(l) = min(cheapest(l) / 2, Q[e, (p_i, l)] - Q[e, p(e)] / 2)     for every other l

with cheapest(k) = min over l of Q[e, (k, l)], never above 0. It settles most perturbed problems.
`raise_messages` then goes over the edges and splits each edge's min-marginals in halves, which
never lowers the bound; a few passes settle most problems of aligned views.

Source: the dual of the linear programming relaxation, Swoboda et al. (CVPR 2017); the update is
max-product linear programming, Globerson and Jaakkola (NeurIPS 2007).
"""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled

FORBIDDEN = 1e30


@compiled
def cheapest_ends(Q, edges, edges2, n):
    """[2, E, n] least cost of each edge where its tail, or its head, has a label; 0 at most."""
    low = np.zeros((2, edges.shape[1], n), np.float32)
    for e in range(edges.shape[1]):
        if edges[0, e] < 0:
            continue
        row, tail, head = Q[e], low[0, e], low[1, e]
        for f in range(edges2.shape[1]):
            k, m = edges2[0, f], edges2[1, f]
            if k >= 0:
                tail[k] = min(tail[k], row[f])
                head[m] = min(head[m], row[f])
    return low


@compiled
def guided_messages(Q, edges, table2, low, matching, a, b, r):
    """Fill messages a, b [E, n + 1] for a matching and add them to r [n, n + 1]."""
    n = matching.shape[0]
    for e in range(edges.shape[1]):
        i, j = edges[0, e], edges[1, e]
        if i < 0:
            continue
        row, row_a, row_b = Q[e], a[e], b[e]
        own_i, own_j = matching[i], matching[j]
        own = 0.0
        if own_i >= 0 and own_j >= 0 and table2[own_i, own_j] >= 0:
            own = 0.5 * row[table2[own_i, own_j]]
        nothing = min(0.0, -own)
        for k in range(n):
            row_a[k] = min(0.5 * low[0, e, k], nothing)
            row_b[k] = min(0.5 * low[1, e, k], nothing)
        row_a[n] = nothing
        row_b[n] = nothing
        for k in range(n):
            if own_j >= 0 and table2[k, own_j] >= 0:
                pair = row[table2[k, own_j]] - own
                row_a[k] = min(0.5 * low[0, e, k], pair)
            if own_i >= 0 and table2[own_i, k] >= 0:
                pair = row[table2[own_i, k]] - own
                row_b[k] = min(0.5 * low[1, e, k], pair)
        # The last column is "unmatched"; label -1 is that column, too.
        row_a[own_i] = own
        row_b[own_j] = own
        for k in range(n + 1):
            r[i, k] += row_a[k]
            r[j, k] += row_b[k]


@compiled
def raise_messages(Q, edges, edges2, a, b, r, pair):
    """One pass over the edges; `pair` is scratch [n + 1, n + 1], zero but for its diagonal."""
    n = r.shape[0]
    low_i = np.empty(n + 1, np.float64)
    low_j = np.empty(n + 1, np.float64)
    for e in range(edges.shape[1]):
        i, j = edges[0, e], edges[1, e]
        if i < 0:
            continue
        for f in range(edges2.shape[1]):
            if edges2[0, f] >= 0:
                pair[edges2[0, f], edges2[1, f]] = Q[e, f]
        r_i, r_j = r[i], r[j]
        for k in range(n + 1):
            r_i[k] -= a[e, k]
            r_j[k] -= b[e, k]
            low_j[k] = FORBIDDEN
        for k in range(n + 1):
            row = pair[k]
            rest = r_i[k]
            least = FORBIDDEN
            for l in range(n + 1):  # noqa: E741
                least = min(least, row[l] + r_j[l])
                low_j[l] = min(low_j[l], row[l] + rest)
            low_i[k] = least
        for k in range(n + 1):
            a[e, k] = 0.5 * (low_i[k] - r_i[k])
            b[e, k] = 0.5 * (low_j[k] - r_j[k])
            r_i[k] += a[e, k]
            r_j[k] += b[e, k]
        for f in range(edges2.shape[1]):
            if edges2[0, f] >= 0:
                pair[edges2[0, f], edges2[1, f]] = 0.0


@compiled
def bound_of(r):
    """sum_i min_k r_i(k)."""
    total = 0.0
    for i in range(r.shape[0]):
        total += r[i].min()
    return total


@compiled
def first_bound(U, Q, edges, table2, low, matching, a, b, r):
    """The bound by guided messages; fills a, b and r."""
    n = U.shape[0]
    r[:, :n] = U
    r[:, n] = 0.0
    guided_messages(Q, edges, table2, low, matching, a, b, r)
    return bound_of(r)


@compiled
def raised_gap(Q, edges, edges2, a, b, r, cost, gap, passes):
    """What passes over all messages leave of a gap to `cost`; 0 is a proof.

    Gives up after `passes`, or as soon as they cannot be expected to close the gap: when as many
    passes as are left, each as good as the last one, would not do.
    """
    n = r.shape[0]
    pair = np.zeros((n + 1, n + 1), np.float64)
    for k in range(n):
        pair[k, k] = FORBIDDEN
    for left in range(passes, 0, -1):
        raise_messages(Q, edges, edges2, a, b, r, pair)
        before = gap
        gap = cost - bound_of(r)
        if gap <= tolerance_of(cost):
            return 0.0
        if (before - gap) * left < before:
            break
    return gap


@compiled
def tolerance_of(cost):
    """A gap that is nothing but rounding."""
    return 1e-6 * max(1.0, abs(cost))
