"""The default solver: a good start, a proof that it is optimal, else annealing and descent.

0. Up to six nodes, look at everything (exhaustive.py).
1. Drop pairs of node and label that no optimum needs (descent.py, `prune`).
2. If the best start is provably optimal, or an exact search among the labels that the bound leaves
   is short, stop (proof.py).
3. Where that is within reach, descend (descent.py), raise the bound, and try again.
4. Anneal a few times from the best matching known, descend, keep the best (annealing.py).

`local-search` is steps 1 to 3 at any gap, and descends from "all unmatched", too.

Why in this order: half of the problems of a step are perturbed ones, whose costs push towards the
identity. There a start that costs nothing to find is often optimal already, and showing so costs a
fraction of one annealing run. Annealing is for what is left.
"""

from dataclasses import dataclass

import numpy as np
import torch

from exgra_med.alignment.solvers.annealing import anneal, anneal_rows, dense_pair_costs
from exgra_med.alignment.solvers.descent import descend, prune
from exgra_med.alignment.solvers.exhaustive import enumerate_matchings
from exgra_med.alignment.solvers.proof import cheapest_ends, first_bound, raised_gap, settle
from exgra_med.alignment.solvers.protocol import Problems, Solution
from exgra_med.alignment.solvers.state import build_graph, compiled, load, seeded

SMALL = 6
"""Nodes up to which all matchings are looked at (13327 of them): microseconds, and exact."""
CHAIN_DEPTH = 6
"""Longest ejection chain of a descent: each link looks at all labels, and longer cycles are left to
annealing."""
DENSE = 64
"""Nodes up to which costs of pairs of labels are kept in dense rows. The table grows with the cube
of the nodes: at 64 with 5 neighbours it takes about 5 MB, and a larger one falls out of the
cache."""
USUAL = (2.0**-10, 2.0**10)
"""Costs are scaled where the largest is not between these."""
FIRST_WORK = 100_000
"""Candidates looked at before the first descent: the start is often optimal, but where it is not, a
long exact search around it is wasted."""
PASSES = 12
"""Passes over all messages before a proof is given up."""
PROOF_WORK = 20e6
"""Most pairs of labels looked at for a proof; large problems get fewer passes, or none."""
HOPELESS = 0.1
"""Relative gap above which a proof is not worth trying: far from aligned views the relaxation
itself is off by half and more, and no number of passes closes that."""
NEAR = 0.02
"""Relative gap below which a quarter of the search is enough: at most so much is left to gain."""
FEW = 0.25
"""Share of pairs left below which runs are cheap: a problem gets more and hotter ones."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how hot to anneal; temperatures in units of the RMS quadratic cost.

    Attributes:
        runs: annealing runs, each from the best matching so far.
        runs_few: the same where few pairs are left.
        sweeps: how often one run judges each pair of node and label.
        sweeps_few: the same where few pairs are left.
        nodes_in_full: above this size N `sweeps` fall with (N / n)^fall, `sweeps_few` with N / n.
        fall: see above.
        hot: temperature at the start of every other run.
        hot_few: that of the runs between, and of all where few pairs are left.
        cold: temperature at the end.
        work: candidates looked at, over all branches, before an exact search is given up.
    """

    runs: int
    runs_few: int
    sweeps: int
    sweeps_few: int
    nodes_in_full: int
    fall: float = 1.0
    hot: float = 0.35
    hot_few: float = 0.7
    cold: float = 0.07
    work: int = 400_000


SCHEDULES = {
    "fast": Schedule(
        runs=1, runs_few=4, sweeps=400, sweeps_few=80, nodes_in_full=32, fall=1.6,
        hot=0.3, hot_few=0.6, cold=0.15, work=100_000,
    ),
    "thorough": Schedule(
        runs=8, runs_few=16, sweeps=600, sweeps_few=200, nodes_in_full=64, work=40_000_000
    ),
}  # fmt: skip
"""Up to `DENSE` nodes, where a sweep is cheap."""
SCHEDULES_ABOVE = {
    "fast": Schedule(
        runs=1, runs_few=16, sweeps=80, sweeps_few=80, nodes_in_full=28,
        hot=0.4, hot_few=1.2, cold=0.1,
    ),
    "thorough": Schedule(
        runs=8, runs_few=48, sweeps=120, sweeps_few=120, nodes_in_full=64, work=40_000_000
    ),
}  # fmt: skip
"""Above, where pairs are proposed one by one."""


@compiled
def cost_scales(U, Q):
    """Largest cost, and the root mean square quadratic cost (unary where there is no edge).

    The second is the unit of temperature: a schedule in units of the costs serves cosines and
    perturbed costs alike. Never zero, as both are divided by.
    """
    largest = 1e-300
    total_unary = 0.0
    for row in U:
        for cost in row:
            largest = max(largest, abs(cost))
            total_unary += np.float64(cost) ** 2
    # One sum for each place of a row: a single one would wait for itself at every addition. Double
    # precision, in which no square of a single one is infinite.
    squares = np.zeros(Q.shape[1], np.float64)
    most = np.zeros(Q.shape[1], np.float32)
    for e in range(Q.shape[0]):
        for x in range(Q.shape[1]):
            f = np.uint64(x)
            squares[f] += np.float64(Q[e, f]) ** 2
            most[f] = max(most[f], abs(Q[e, f]))
    total_quadratic = 0.0
    for f in range(Q.shape[1]):
        total_quadratic += squares[f]
        largest = max(largest, most[f])
    if total_quadratic > 0.0:
        return largest, np.sqrt(total_quadratic / Q.size)
    return largest, np.sqrt(total_unary / U.size) + 1e-300


@compiled
def scaled(costs, factor):
    """Costs [n, m] times a power of two, which is exact."""
    result = np.empty(costs.shape, np.float32)
    for i in range(costs.shape[0]):
        for k in range(costs.shape[1]):
            result[i, k] = np.float32(costs[i, k] * factor)
    return result


@compiled
def cheapest_start(U, Q, graph, graph2, starts, largest, M, matching, owner, best_matching):
    """Take useless pairs out of [S, n] starts and fill in the best of them; returns its cost."""
    best = 0.0  # Nobody matched is a matching, too.
    for start in starts:
        for i in range(start.shape[0]):
            # Only the penalty of `prune` is larger than the largest cost.
            if start[i] >= 0 and U[i, start[i]] > largest:
                start[i] = -1
        cost = load(M, U, Q, graph, graph2, matching, owner, start)
        if cost < best:
            best = cost
            best_matching[:] = start
    return best


@compiled
def descend_from(U, Q, graph, graph2, start, M, matching, owner, best_matching, best):
    """Descend from a matching; fills in what is better than `best`, and returns its cost."""
    cost = load(M, U, Q, graph, graph2, matching, owner, start)
    cost += descend(M, Q, graph, graph2, matching, owner, CHAIN_DEPTH)
    if cost < best - 1e-9:
        best = cost
        best_matching[:] = matching
    return best


@compiled
def search(
    U, Q, edges, edges2, graph, graph2, table, table2, pairs, M, matching, owner,
    best_matching, best, seed, few, runs, length, largest, hot, hot_others, cold,
):  # fmt: skip
    """Annealing and descent, `runs` times from the best matching known; returns its cost.

    `length` of a run is in sweeps up to `DENSE` nodes, in proposals above.
    """
    n = U.shape[0]
    found = np.empty(n, np.int32)
    stream = seeded(seed)
    dense = n <= DENSE
    linked = edges.shape[1] if dense else 0
    first, other, unit, W, C = dense_pair_costs(U, Q, edges, edges2, table, largest, linked)
    places = np.empty(n + 1, np.int32)
    owners = np.empty(n + 1, np.int32)
    for run in range(runs):
        # Every other run is hotter: a cool one refines the best matching, a hot one leaves it.
        heat = hot_others if run % 2 else hot
        if dense:
            stream = anneal_rows(
                W, C, unit, first, other, best_matching, places, owners, length,
                heat, cold, stream, found,
            )  # fmt: skip
        else:
            load(M, U, Q, graph, graph2, matching, owner, best_matching)
            stream = anneal(
                M, Q, graph, graph2, table, table2, matching, owner, pairs, length,
                heat, cold, stream, found,
            )  # fmt: skip
        # Where few pairs are left, runs are many and as cheap as a descent: one descent at the end
        # does for all of them.
        if few:
            cost = load(M, U, Q, graph, graph2, matching, owner, found)
            if cost < best - 1e-9:
                best = cost
                best_matching[:] = found
        else:
            best = descend_from(U, Q, graph, graph2, found, M, matching, owner, best_matching, best)
    if few:
        found[:] = best_matching
        best = descend_from(U, Q, graph, graph2, found, M, matching, owner, best_matching, best)
    return best


@compiled
def solve_one(
    U, Q, edges, edges2, starts, seed, runs, runs_few, sweeps, sweeps_few,
    hot, hot_few, cold, work,
):  # fmt: skip
    """Solve one problem from [S, n] starts; returns the matching and whether it is proven."""
    n = U.shape[0]
    graph, table = build_graph(edges, n)
    graph2, table2 = build_graph(edges2, n)
    best_matching = np.full(n, -1, np.int32)
    if n <= SMALL:
        best_matching[:] = enumerate_matchings(U, Q, table, table2)
        return best_matching, True
    largest, scale = cost_scales(U, Q)
    if not USUAL[0] < largest < USUAL[1]:
        # What counts as rounding, here and in all steps, is said for costs near one.
        factor = 2.0 ** -np.floor(np.log2(largest))
        U, Q = scaled(U, factor), scaled(Q, factor)
        largest, scale = largest * factor, scale * factor
    low = cheapest_ends(Q, edges, edges2, n)
    U, pairs = prune(U, edges, low, largest)
    # Double precision: M is changed thousands of times in place, and rounding must not add up.
    M = np.empty((n, n), np.float64)
    matching = np.empty(n, np.int32)
    owner = np.empty(n, np.int32)
    best = cheapest_start(U, Q, graph, graph2, starts, largest, M, matching, owner, best_matching)

    a = np.empty((edges.shape[1], n + 1), np.float64)
    b = np.empty((edges.shape[1], n + 1), np.float64)
    r = np.empty((n, n + 1), np.float64)
    gap = best - first_bound(U, Q, edges, table2, low, best_matching, a, b, r)
    best, proven = settle(
        Q, edges, table2, a, b, r, best_matching, best, gap, min(work, FIRST_WORK)
    )
    few = pairs.shape[0] < FEW * n * n
    hopeful = gap <= HOPELESS * abs(best)
    if not proven and (few or hopeful or runs == 0):
        for start in starts:
            best = descend_from(U, Q, graph, graph2, start, M, matching, owner, best_matching, best)
        # The messages are built around a matching: around a better one they give a better bound.
        gap = best - first_bound(U, Q, edges, table2, low, best_matching, a, b, r)
        if gap <= HOPELESS * abs(best):
            passes = min(PASSES, int(PROOF_WORK / (edges.shape[1] * n * n + 1)))
            gap = raised_gap(Q, edges, edges2, a, b, r, best, gap, passes)
        best, proven = settle(Q, edges, table2, a, b, r, best_matching, best, gap, work)
    if proven:
        return best_matching, True
    length = int(sweeps_few if few else sweeps)
    if n > DENSE:
        length = int((sweeps_few if few else sweeps) * pairs.shape[0])
    if gap < NEAR * abs(best):
        length //= 4
    search(
        U, Q, edges, edges2, graph, graph2, table, table2, pairs, M, matching, owner,
        best_matching, best, seed, few, runs_few if few else runs, length, largest,
        (hot_few if few else hot) * scale, hot_few * scale, cold * scale,
    )  # fmt: skip
    return best_matching, False


def solve_by_annealing(problems: Problems) -> Solution:
    """Steps 0 to 4, with the schedule that the effort names."""
    schedules = SCHEDULES if problems.unary.shape[1] <= DENSE else SCHEDULES_ABOVE
    return _solve(problems, schedules[problems.effort], from_nothing=False)


def solve_by_local_search(problems: Problems) -> Solution:
    """Steps 0 to 3."""
    schedule = Schedule(runs=0, runs_few=0, sweeps=0, sweeps_few=0, nodes_in_full=1)
    return _solve(problems, schedule, from_nothing=True)


def _solve(problems: Problems, schedule: Schedule, from_nothing: bool) -> Solution:
    unary, quadratic, edges, edges2 = problems.arrays()
    num_problems, num_nodes = unary.shape[:2]
    # The identity is what alignment wants, and what perturbed costs push towards.
    starts = [np.tile(np.arange(num_nodes, dtype=np.int32), (num_problems, 1))]
    if problems.start is not None:
        starts.append(problems.start.cpu().numpy())
    if from_nothing:
        starts.append(np.full_like(starts[0], -1))
    stacked = np.stack(starts, axis=1)
    # The work of a sweep grows with n^2 by itself; above `nodes_in_full` that of all grows less.
    share = min(1.0, schedule.nodes_in_full / num_nodes)
    sweeps = schedule.sweeps * share**schedule.fall, schedule.sweeps_few * share
    assignment = np.empty((num_problems, num_nodes), np.int64)
    certified = np.empty(num_problems, np.bool_)
    lengths = problems.seed, schedule.runs, schedule.runs_few, *sweeps
    heats = schedule.hot, schedule.hot_few, schedule.cold, schedule.work
    # One after the other, each with the same seed: the answer to a problem does not depend on the
    # batch that it comes in.
    for p, given in enumerate(zip(unary, quadratic, edges, edges2, stacked, strict=True)):
        assignment[p], certified[p] = solve_one(*given, *lengths, *heats)
    device = problems.unary.device
    return Solution(
        assignment=torch.from_numpy(assignment).to(device),
        certified=torch.from_numpy(certified).to(device),
    )
