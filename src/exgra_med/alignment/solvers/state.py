"""The state of a search: a partial matching and what every single change would cost.

The heart is the table M[i, k]: the cost of node i having label k with everything else as it is,

    M[i, k] = U[i, k] + sum over edges (i, j) of Q[(i, j), (k, p_j)]
                      + sum over edges (j, i) of Q[(j, i), (p_j, k)].

Moving node i from label a to label b costs M[i, b] - M[i, a], so a move is judged in O(1); making
it changes only the rows of i's neighbours, in O(degree^2).

A graph is one flat int32 array, because compiled calls with many arrays are slow. For both
directions, edges that leave a node and edges that arrive, it has n + 1 places and then pairs

    start_0 .. start_n | edge, other | edge, other | ...

where node i's pairs lie from start_i to start_{i+1}; the second direction begins at `start_n` of
the first. `table[i, j]` is the number of edge (i, j); -1 where there is only the reverse, -2 where
there is neither.

All functions are plain loops over numpy arrays for numba; without numba they run, slowly.
`owner[k]` is the node that has label k, or -1: the inverse of `matching`, so that "who has it" is
answered without a search.
"""

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

HAS_NUMBA = importlib.util.find_spec("numba") is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba, where it is there, without the interpreter lock, and keep the result on
    disk, where there is a place.

    No value in these loops is ever NaN; saying so lets minima be vectorised.
    """
    if not HAS_NUMBA:
        return function
    import numba

    settings: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"nnan", "nsz"},
    }
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError as error:
        # An installation that cannot be written to, for a user without a home.
        if "no locator available" not in str(error):
            raise
        return numba.njit(**settings)(function)


def compiled_into_callers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as a part of whatever calls it: handing over ten arrays takes longer than a short
    loop over them."""
    if not HAS_NUMBA:
        return function
    import numba

    return numba.njit(inline="always", error_model="numpy")(function)


_first_call = threading.Event()


@contextmanager
def told_when_slow(seconds: float = 3.0) -> Iterator[None]:
    """Say in the log why the first call of a process takes longer than a few seconds."""
    if _first_call.is_set() or not HAS_NUMBA:
        yield
        return
    _first_call.set()
    timer = threading.Timer(
        seconds,
        logging.getLogger(__name__).warning,
        ("The matching solver's first call compiles it: once for an installation, half a minute.",),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Random numbers for compiled loops: one 64-bit state that is passed on, a few shifts. numba's own
# generator is one for a thread, so that an answer would depend on what ran before it.

TABLE_BITS = 12
EXPONENTIAL = -np.log((np.arange(1 << TABLE_BITS) + 0.5) / (1 << TABLE_BITS))
"""Quantiles of the exponential distribution: accept a rise of d at temperature T if d < T * x.
Taken in the middle of each of 4096 equal steps: the largest is 9, none is zero or infinite."""


@compiled
def seeded(seed):
    """Spread a seed over 64 bits (splitmix64); never zero, where `advance` would stay for ever.

    Without it the small seeds 0, 1, 2 would begin with nearly the same draws.
    """
    z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return z | np.uint64(1)


@compiled
def advance(state):
    """Next state of Marsaglia's xorshift64."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state


@compiled
def build_graph(edges, num_nodes):
    """The flat array and the table of a [2, E] edge list (-1: absent edge)."""
    num_edges = edges.shape[1]
    graph = np.empty(2 * (num_nodes + 1 + 2 * num_edges), np.int32)
    table = np.full((num_nodes, num_nodes), -2, np.int32)
    fill = np.empty(num_nodes, np.int32)
    begin = 0
    for row in range(2):
        fill[:] = 0
        for e in range(num_edges):
            if edges[0, e] >= 0:
                fill[edges[row, e]] += 2
        place = begin + num_nodes + 1
        for i in range(num_nodes):
            graph[begin + i] = place
            place += fill[i]
            fill[i] = graph[begin + i]
        graph[begin + num_nodes] = place
        for e in range(num_edges):
            if edges[0, e] >= 0:
                near, far = edges[row, e], edges[1 - row, e]
                graph[fill[near]] = e
                graph[fill[near] + 1] = far
                fill[near] += 2
                table[edges[0, e], edges[1, e]] = e
                # "Only the reverse" differs from "neither", so that `between` can leave at once
                # where two nodes are not linked: most pairs are not.
                if table[edges[1, e], edges[0, e]] == -2:
                    table[edges[1, e], edges[0, e]] = -1
        begin = place
    return graph, table


@compiled
def set_label(M, Q, graph, graph2, matching, owner, node, label):
    """Give `node` another `label` (-1: none). The label must be free.

    Only rows of M that belong to neighbours of `node` change, each at the neighbours of the old and
    of the new label. Row `node` itself does not: it says what `node` would pay, wherever it is.
    """
    old = matching[node]
    if old >= 0:
        owner[old] = -1
    matching[node] = label
    if label >= 0:
        owner[label] = node
    n = M.shape[0]
    begin, begin2 = 0, 0
    # Edges are directed: first those that leave, whose partners must leave the label, then those
    # that arrive. Adding the new and taking off the old in one pass over a row touches it once.
    for direction in range(2):
        first_old, last_old, first_new, last_new = 0, 0, 0, 0
        if old >= 0:
            first_old, last_old = graph2[begin2 + old], graph2[begin2 + old + 1]
        if label >= 0:
            first_new, last_new = graph2[begin2 + label], graph2[begin2 + label + 1]
        for x in range(graph[begin + node], graph[begin + node + 1], 2):
            costs = Q[graph[x]]
            row = M[graph[x + 1]]
            for y in range(first_old, last_old, 2):
                row[graph2[y + 1]] -= costs[graph2[y]]
            for y in range(first_new, last_new, 2):
                row[graph2[y + 1]] += costs[graph2[y]]
        if direction == 0:
            begin, begin2 = graph[n], graph2[n]


@compiled
def load(M, U, Q, graph, graph2, matching, owner, labels):
    """Make the state that of the matching `labels`; returns its cost."""
    n = U.shape[0]
    for i in range(n):
        matching[i] = -1
        owner[i] = -1
        for k in range(n):
            M[i, k] = U[i, k]
    cost = 0.0
    # Node after node: M[i, k] holds what i adds to the cost of those before it, each edge once.
    for i in range(n):
        if labels[i] >= 0:
            cost += M[i, labels[i]]
            set_label(M, Q, graph, graph2, matching, owner, i, labels[i])
    return cost


@compiled
def between(Q, table, table2, i, k, j, m):
    """What the edges between nodes i (with label k) and j (with label m) cost."""
    cost = 0.0
    e = table[i, j]
    if e == -2:
        return cost
    if e >= 0:
        f = table2[k, m]
        if f >= 0:
            cost += Q[e, f]
    e = table[j, i]
    if e >= 0:
        f = table2[m, k]
        if f >= 0:
            cost += Q[e, f]
    return cost
