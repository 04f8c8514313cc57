"""Branch and bound over the few pairs that a bound leaves: the optimum, with its proof.

With the messages of bound.py the cost of a matching p is

    sum_i r_i(p_i)  +  sum_e ( Q[e, (p_i, p_j)] - a_e(p_i) - b_e(p_j) ),

and no term of the second sum is negative. So a label k of node i with

    sum_j min_l r_j(l)  +  r_i(k) - min_l r_i(l)  >=  the cost of a known matching

is in no better matching (reduced-cost fixing). Perturbed problems, and problems of aligned views,
keep about two labels a node ("unmatched" is one of them). They become a list of candidates
c = (node, label) with a table of what two of them cost together, and are searched depth first; the
bound of a branch is what it has paid plus the cheapest label of every other node, given what is
fixed. The node whose second best label costs most is fixed first.
"""

import numpy as np

from exgra_med.alignment.solvers.bound import tolerance_of
from exgra_med.alignment.solvers.compiled import compiled

FORBIDDEN = 1e30
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
        node = picked[depth]
        best = -1
        for c in range(first[node], first[node + 1]):
            after = last[depth] < 0 or (
                here[c] > here[last[depth]] or (here[c] == here[last[depth]] and c > last[depth])
            )
            if after and (best < 0 or here[c] < here[best]):
                best = c
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
