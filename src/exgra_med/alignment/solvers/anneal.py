"""The default solver: descent from a known start, a proof, then annealing and descent again.

0. Up to six nodes, look at everything (exhaustive.py).
1. Drop pairs that cannot be worth having (pruning.py).
2. Descend from the start given and from the identity (descent.py).
3. If the cheaper of the two is provably optimal, stop (bound.py).
4. Anneal a few times from the best matching known, descend, keep the best (annealing.py).

`local-search` is steps 1 to 3, and descends from "all unmatched", too.
"""

from dataclasses import dataclass

import numpy as np
import torch

from exgra_med.alignment.solvers.annealing import anneal
from exgra_med.alignment.solvers.bound import optimality_gap
from exgra_med.alignment.solvers.compiled import HAS_NUMBA, compiled
from exgra_med.alignment.solvers.descent import descend
from exgra_med.alignment.solvers.exhaustive import enumerate_matchings
from exgra_med.alignment.solvers.protocol import Problems, Solution
from exgra_med.alignment.solvers.pruning import prune
from exgra_med.alignment.solvers.random_stream import seeded
from exgra_med.alignment.solvers.state import build_graph, load
from exgra_med.alignment.solvers.torch_batched import solve_batched

SMALL = 6
"""Nodes up to which all matchings are looked at (13327 of them)."""
CHAIN_DEPTH = 6
PASSES = 12
"""Passes over all messages before a proof is given up."""
PROOF_WORK = 20e6
"""Most pairs of labels looked at for a proof; large problems get fewer passes, or none."""
HOPELESS = 0.1
"""Relative gap above which a proof is not worth trying."""
NEAR = 0.02
"""Relative gap below which a quarter of the search is enough."""
FEW = 0.25
"""Share of pairs left below which a problem is small: it gets more and hotter runs."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how hot to anneal; temperatures in units of the RMS quadratic cost.

    Attributes:
        runs: annealing runs, each from the best matching so far.
        proposals_per_pair: proposals of one run for each pair of node and label.
        nodes_in_full: above this size proposals per pair fall with 1 / n.
        hot: temperature at the start of every other run.
        hot_few: that of the runs between, and of all where few pairs are left.
        cold: temperature at the end.
    """

    runs: int
    proposals_per_pair: int
    nodes_in_full: int
    hot: float = 0.35
    hot_few: float = 0.7
    cold: float = 0.07


SCHEDULES = {
    "fast": Schedule(runs=1, proposals_per_pair=60, nodes_in_full=28),
    "thorough": Schedule(runs=8, proposals_per_pair=120, nodes_in_full=64),
}


@compiled
def cost_scales(U, Q):
    """Largest cost, and the root mean square quadratic cost (unary where there is no edge)."""
    largest = 1e-30
    total_unary, total_quadratic = 0.0, 0.0
    for row in U:
        for cost in row:
            largest = max(largest, abs(cost))
            total_unary += cost * cost
    for row in Q:
        for cost in row:
            largest = max(largest, abs(cost))
            total_quadratic += cost * cost
    if total_quadratic > 0.0:
        return largest, np.sqrt(total_quadratic / Q.size)
    return largest, np.sqrt(total_unary / U.size) + 1e-30


@compiled
def solve_one(U, Q, edges, edges2, starts, seed, runs, per_pair, hot, hot_few, cold):
    """Solve one problem from [S, n] starts; returns the matching and whether it is proven."""
    n = U.shape[0]
    graph, table = build_graph(edges, n)
    graph2, table2 = build_graph(edges2, n)
    if n <= SMALL:
        return enumerate_matchings(U, Q, table, table2), True
    largest, scale = cost_scales(U, Q)
    U, pairs = prune(U, Q, graph, graph2, largest)
    M = np.empty((n, n), np.float64)
    matching = np.empty(n, np.int32)
    owner = np.empty(n, np.int32)
    found = np.empty(n, np.int32)
    best_matching = np.full(n, -1, np.int64)
    best = 0.0
    for s in range(starts.shape[0]):
        found[:] = starts[s]
        for i in range(n):
            if found[i] >= 0 and U[i, found[i]] > largest:
                found[i] = -1
        cost = load(M, U, Q, graph, graph2, matching, owner, found)
        cost += descend(M, Q, graph, graph2, matching, owner, CHAIN_DEPTH)
        if cost < best:
            best = cost
            best_matching[:] = matching
    passes = min(PASSES, int(PROOF_WORK / (edges.shape[1] * n * n + 1)))
    gap = optimality_gap(U, Q, edges, edges2, table2, best_matching, best, passes, HOPELESS)
    if gap == 0.0:
        return best_matching, True
    proposals = int(per_pair * pairs.shape[0])
    few = pairs.shape[0] < FEW * n * n
    if few:
        runs *= 4
    if gap < NEAR * abs(best):
        proposals //= 4
    stream = seeded(seed)
    for run in range(runs):
        load(M, U, Q, graph, graph2, matching, owner, best_matching)
        _, stream = anneal(
            M,
            Q,
            graph,
            graph2,
            table,
            table2,
            matching,
            owner,
            pairs,
            proposals,
            (hot_few if few or run % 2 else hot) * scale,
            cold * scale,
            stream,
            found,
        )
        cost = load(M, U, Q, graph, graph2, matching, owner, found)
        cost += descend(M, Q, graph, graph2, matching, owner, CHAIN_DEPTH)
        if cost < best - 1e-9:
            best = cost
            best_matching[:] = matching
    return best_matching, False


def solve_by_annealing(problems: Problems) -> Solution:
    """Steps 1 to 4, with the schedule that the effort names; without numba, the torch solver."""
    if not HAS_NUMBA:
        return solve_batched(problems)
    return _solve(problems, SCHEDULES[problems.effort], from_nothing=False)


def solve_by_local_search(problems: Problems) -> Solution:
    """Steps 1 to 3."""
    schedule = Schedule(runs=0, proposals_per_pair=0, nodes_in_full=1)
    return _solve(problems, schedule, from_nothing=True)


def _solve(problems: Problems, schedule: Schedule, from_nothing: bool) -> Solution:
    unary, quadratic, edges, edges2 = (
        tensor.cpu().numpy()
        for tensor in (problems.unary, problems.quadratic, problems.edges, problems.edges2)
    )
    num_problems, num_nodes = unary.shape[:2]
    starts = [np.tile(np.arange(num_nodes, dtype=np.int32), (num_problems, 1))]
    if problems.start is not None:
        starts.append(problems.start.cpu().numpy())
    if from_nothing:
        starts.append(np.full_like(starts[0], -1))
    stacked = np.stack(starts, axis=1)
    per_pair = schedule.proposals_per_pair * min(1.0, schedule.nodes_in_full / num_nodes)
    assignment = np.empty((num_problems, num_nodes), np.int64)
    certified = np.empty(num_problems, np.bool_)
    for p in range(num_problems):
        assignment[p], certified[p] = solve_one(
            unary[p],
            quadratic[p],
            edges[p],
            edges2[p],
            stacked[p],
            problems.seed,
            schedule.runs,
            per_pair,
            schedule.hot,
            schedule.hot_few,
            schedule.cold,
        )
    device = problems.unary.device
    return Solution(
        assignment=torch.from_numpy(assignment).to(device),
        certified=torch.from_numpy(certified).to(device),
    )
