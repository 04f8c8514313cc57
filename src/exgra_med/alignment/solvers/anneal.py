"""The default solver: descent from known starts, a certificate, then annealing and descent again.

1. Descend from the start given (or from the identity), and from "all unmatched".
2. If the cheaper of the two costs no more than the lower bound, it is optimal: stop.
3. Anneal a few times from the best matching known, descend, keep the best.

`local-search` is steps 1 and 2 alone.
"""

from dataclasses import dataclass

import numpy as np
import torch

from exgra_med.alignment.solvers.annealing import anneal
from exgra_med.alignment.solvers.bound import lower_bound
from exgra_med.alignment.solvers.compiled import compiled
from exgra_med.alignment.solvers.descent import descend
from exgra_med.alignment.solvers.protocol import Problems, Solution
from exgra_med.alignment.solvers.random_stream import seeded
from exgra_med.alignment.solvers.state import build_graph, load

CHAIN_DEPTH = 6


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how hot to anneal.

    Attributes:
        runs: annealing runs, each from the best matching so far.
        proposals_per_pair: proposals of one run for each pair of node and label.
        hot: temperature at the start, in units of the root mean square quadratic cost.
        cold: temperature at the end.
    """

    runs: int
    proposals_per_pair: int
    hot: float = 0.5
    cold: float = 0.05


SCHEDULES = {
    "fast": Schedule(runs=1, proposals_per_pair=20),
    "thorough": Schedule(runs=8, proposals_per_pair=80),
}


@compiled
def cost_scale(U, Q):
    """Root mean square quadratic cost, or unary cost where there is no edge."""
    total = 0.0
    for row in Q:
        for cost in row:
            total += cost * cost
    if total > 0.0:
        return np.sqrt(total / Q.size)
    for row in U:
        for cost in row:
            total += cost * cost
    return np.sqrt(total / U.size) + 1e-30


@compiled
def solve_one(U, Q, edges, edges2, start, seed, runs, proposals_per_pair, depth, hot, cold):
    """Solve one problem; returns the matching and whether it is proven optimal."""
    n = U.shape[0]
    g = build_graph(edges, n)
    h = build_graph(edges2, n)
    M = np.empty((n, n), np.float64)
    matching = np.empty(n, np.int32)
    owner = np.empty(n, np.int32)
    found = np.empty(n, np.int32)

    best = load(M, U, Q, g, h, matching, owner, start)
    best += descend(M, Q, g, h, matching, owner, depth)
    best_matching = matching.copy()
    bound = lower_bound(U, Q, g, h)
    optimal = bound + 1e-6 * max(1.0, abs(bound))
    if best <= optimal:
        return best_matching, True
    found[:] = -1
    cost = load(M, U, Q, g, h, matching, owner, found)
    cost += descend(M, Q, g, h, matching, owner, depth)
    if cost < best:
        best = cost
        best_matching[:] = matching
    scale = cost_scale(U, Q)
    stream = seeded(seed)
    for _ in range(runs):
        if best <= optimal:
            break
        load(M, U, Q, g, h, matching, owner, best_matching)
        _, _, stream = anneal(
            M,
            Q,
            g,
            h,
            matching,
            owner,
            proposals_per_pair * n * n,
            hot * scale,
            cold * scale,
            stream,
            found,
        )
        cost = load(M, U, Q, g, h, matching, owner, found)
        cost += descend(M, Q, g, h, matching, owner, depth)
        if cost < best - 1e-9:
            best = cost
            best_matching[:] = matching
    return best_matching, best <= optimal


def solve_by_annealing(problems: Problems) -> Solution:
    """Steps 1 to 3, with the schedule that the effort names."""
    return _solve(problems, SCHEDULES[problems.effort])


def solve_by_local_search(problems: Problems) -> Solution:
    """Steps 1 and 2."""
    return _solve(problems, Schedule(runs=0, proposals_per_pair=0))


def _solve(problems: Problems, schedule: Schedule) -> Solution:
    unary, quadratic, edges, edges2 = (
        tensor.cpu().numpy()
        for tensor in (problems.unary, problems.quadratic, problems.edges, problems.edges2)
    )
    num_problems, num_nodes = unary.shape[:2]
    if problems.start is None:
        start = np.tile(np.arange(num_nodes, dtype=np.int32), (num_problems, 1))
    else:
        start = problems.start.cpu().numpy()
    assignment = np.empty((num_problems, num_nodes), np.int64)
    certified = np.empty(num_problems, np.bool_)
    for p in range(num_problems):
        assignment[p], certified[p] = solve_one(
            unary[p],
            quadratic[p],
            edges[p],
            edges2[p],
            start[p],
            problems.seed,
            schedule.runs,
            schedule.proposals_per_pair,
            CHAIN_DEPTH,
            schedule.hot,
            schedule.cold,
        )
    device = problems.unary.device
    return Solution(
        assignment=torch.from_numpy(assignment).to(device),
        certified=torch.from_numpy(certified).to(device),
    )
