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

from exgra_med.alignment.solvers.state import compiled

FORBIDDEN = 1e30
"""Stands for infinity in tables that are added to and taken off: infinity minus itself is not a
number, and the loops are compiled as if that could not be (compiled.py)."""


@compiled
def cheapest_ends(Q, edges, edges2, n):
    """[2, E, n] least cost of each edge where its tail, or its head, has a label; 0 at most.

    0, because the other end may always be unmatched, or land where there is no edge.
    """
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
        # `own` is half of what this edge costs in the matching: both ends pay the same there, which
        # makes the bound tight for it if it is optimal.
        own = 0.0
        if own_i >= 0 and own_j >= 0 and table2[own_i, own_j] >= 0:
            own = 0.5 * row[table2[own_i, own_j]]
        # A label whose edge meets the other end's own label costs nothing: with that end's message
        # `own` this one's must be at most -own, and never above half of the edge's cheapest.
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
    """One pass over the edges; `pair` is scratch [n + 1, n + 1], zero but for its diagonal.

    For each edge in turn: take its messages back, find for every label of either end the cheapest
    that the whole edge can be (its min-marginals, with what the other end pays), and give half of
    it to each end. What one edge gains the next one already sees, so a single pass goes far.
    """
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
        # Halves of min-marginals: their sum never exceeds the edge's cost at any pair of labels, so
        # the bound stays one; and neither end is left with all the slack, where it could not move.
        for k in range(n + 1):
            a[e, k] = 0.5 * (low_i[k] - r_i[k])
            b[e, k] = 0.5 * (low_j[k] - r_j[k])
            r_i[k] += a[e, k]
            r_j[k] += b[e, k]
        # Only what was written is wiped: filling the whole table would cost as much as the pass.
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
    # No two nodes share a label; but any number of them is unmatched, the last place.
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
    """A gap that is nothing but rounding: the costs come in single precision, 6e-8 each."""
    return 1e-6 * max(1.0, abs(cost))


# Branch and bound over the few pairs that a bound leaves: the optimum, with its proof.
#
# With the messages above the cost of a matching p is
#
#     sum_i r_i(p_i)  +  sum_e ( Q[e, (p_i, p_j)] - a_e(p_i) - b_e(p_j) ),
#
# and no term of the second sum is negative. So a label k of node i with
#
#     sum_j min_l r_j(l)  +  r_i(k) - min_l r_i(l)  >=  the cost of a known matching
#
# is in no better matching (reduced-cost fixing). Perturbed problems, and problems of aligned views,
# keep about two labels a node ("unmatched" is one of them). They become a list of candidates c =
# (node, label) with a table of what two of them cost together, and are searched depth first; the
# bound of a branch is what it has paid plus the cheapest label of every other node, given what is
# fixed. The node whose second best label costs most is fixed first.

NARROW = 0.3
"""Relative gap below which a search is short even with many candidates."""
MOST = 512
"""Candidates of a search below a narrow gap."""
MOST_WIDE = 80
"""Candidates of a search below a wide gap: eight nodes in full, or a few for each of 16."""
WORK_PER_CANDIDATE = 200_000
"""Work that lets such a search have one candidate more."""


@compiled
def candidates_left(r, gap, most):
    """Places [n + 1] of the nodes and labels [C] that a gap leaves; an empty list if over `most`.

    Label n is "unmatched".
    """
    n = r.shape[0]
    first = np.zeros(n + 1, np.int32)
    labels = np.empty(most, np.int32)
    count = 0
    for i in range(n):
        limit = r[i].min() + gap
        for k in range(n + 1):
            if r[i, k] <= limit:
                if count == most:
                    return first, labels[:0]
                labels[count] = k
                count += 1
        first[i + 1] = count
    return first, labels[:count]


@compiled
def costs_together(Q, edges, table2, a, b, first, labels):
    """What two candidates cost together beyond r: [C, C], forbidden where they share a label."""
    n = first.shape[0] - 1
    count = labels.shape[0]
    together = np.zeros((count, count), np.float64)
    for c in range(count):
        if labels[c] < n:
            for d in range(c):
                if labels[c] == labels[d]:
                    together[c, d] = FORBIDDEN
                    together[d, c] = FORBIDDEN
    for e in range(edges.shape[1]):
        i, j = edges[0, e], edges[1, e]
        if i < 0:
            continue
        for c in range(first[i], first[i + 1]):
            k = labels[c]
            for d in range(first[j], first[j + 1]):
                m = labels[d]
                cost = -a[e, k] - b[e, m]
                if k < n and m < n and table2[k, m] >= 0:
                    cost += Q[e, table2[k, m]]
                together[c, d] += cost
                together[d, c] += cost
    return together


@compiled
def branch(values, together, first, cost, tolerance, budget, chosen):
    """Search for a choice of one candidate per node cheaper than `cost` by `tolerance`.

    Args:
        values: [C] r of the candidates.
        together: [C, C].
        first: [n + 1].
        cost: of the best choice known.
        budget: branches looked at before the search is given up.
        chosen: [n] gets the best choice; left alone where there is none.

    Returns:
        its cost (or `cost`), and whether the search came to its end.
    """
    n = first.shape[0] - 1
    count = values.shape[0]
    # One row for each depth: going up again then needs no undoing, which in floating point would
    # not lead back to the same numbers.
    rest = np.empty((n + 1, count), np.float64)
    rest[0] = values
    paid = np.zeros(n + 1, np.float64)
    bounds = np.empty(n + 1, np.float64)
    lowest = np.empty(n + 1, np.float64)
    picked = np.full(n + 1, -1, np.int32)
    last = np.empty(n + 1, np.int32)
    path = np.full(n, -1, np.int32)
    depth = 0
    visited = 0
    while depth >= 0:
        here = rest[depth]
        if picked[depth] < 0:
            visited += 1
            if visited > budget:
                return cost, False
            bound = paid[depth]
            widest = -1.0
            node = -1
            for i in range(n):
                if path[i] >= 0:
                    continue
                low, second = np.inf, np.inf
                for c in range(first[i], first[i + 1]):
                    if here[c] < low:
                        second = low
                        low = here[c]
                    elif here[c] < second:
                        second = here[c]
                bound += low
                # Fix first where the second best label costs most: one branch of it is cut at once.
                if second - low > widest:
                    widest = second - low
                    node = i
                    lowest[depth] = low
            if bound >= cost - tolerance:
                depth -= 1
                continue
            if node < 0:
                cost = bound
                chosen[:] = path
                depth -= 1
                continue
            bounds[depth] = bound
            picked[depth] = node
            last[depth] = -1
        # The next label of this node in the order of cost; equal costs in the order of their
        # places. Found by looking again: sorting them would cost more than the few that are tried.
        node = picked[depth]
        best = -1
        for c in range(first[node], first[node + 1]):
            after = last[depth] < 0 or (
                here[c] > here[last[depth]] or (here[c] == here[last[depth]] and c > last[depth])
            )
            if after and (best < 0 or here[c] < here[best]):
                best = c
        # Labels come in the order of cost, so that the first one that is too dear ends them all.
        if best < 0 or bounds[depth] + here[best] - lowest[depth] >= cost - tolerance:
            path[node] = -1
            picked[depth] = -1
            depth -= 1
            continue
        last[depth] = best
        path[node] = best
        paid[depth + 1] = paid[depth] + here[best]
        below = rest[depth + 1]
        pays = together[best]
        for c in range(count):
            below[c] = here[c] + pays[c]
        depth += 1
    return cost, True


@compiled
def settle(Q, edges, table2, a, b, r, matching, cost, gap, work):
    """Search what a gap leaves, where that looks short; `matching` becomes the best one known.

    `work` is the number of candidates looked at, over all branches, before the search is given up.

    Returns:
        the cost of `matching`, and whether it is proven optimal.
    """
    n = r.shape[0]
    if gap <= tolerance_of(cost):
        return cost, True
    most = MOST if gap <= NARROW * abs(cost) else min(MOST, MOST_WIDE + work // WORK_PER_CANDIDATE)
    # A little more than the gap, so that rounding does not rule out the optimum.
    first, labels = candidates_left(r, gap + 1e-9 * abs(cost), most)
    count = labels.shape[0]
    if count == 0:
        return cost, False
    values = np.empty(count, np.float64)
    for i in range(n):
        for c in range(first[i], first[i + 1]):
            values[c] = r[i, labels[c]]
    together = costs_together(Q, edges, table2, a, b, first, labels)
    chosen = np.full(n, -1, np.int32)
    tolerance = 1e-7 * max(1.0, abs(cost))
    cost, done = branch(values, together, first, cost, tolerance, work // count, chosen)
    if chosen[0] >= 0:
        for i in range(n):
            label = labels[chosen[i]]
            matching[i] = label if label < n else -1
    return cost, done
