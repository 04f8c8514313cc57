"""Bounds and exact search against exhaustive matching; dense rows against their slow twin."""

import itertools

import numpy as np
import pytest

from exgra_med.alignment import MultiGraphAlignment, solve_matching
from exgra_med.alignment.solvers.annealing import (
    GUMBEL,
    LEVELS,
    NOISE_BITS,
    anneal_rows,
    dense_pair_costs,
    relabel,
)
from exgra_med.alignment.solvers.descent import prune
from exgra_med.alignment.solvers.proof import (
    FORBIDDEN,
    bound_of,
    branch,
    cheapest_ends,
    first_bound,
    raise_messages,
    raised_gap,
    settle,
)
from exgra_med.alignment.solvers.search import DENSE
from exgra_med.alignment.solvers.state import between, build_graph, load, seeded
from exgra_med.lab.benchmarks.matching import make_problems

NODES = 7


def random_problem(seed: int, nodes: int = NODES, edge_share: float = 0.4):
    rng = np.random.default_rng(seed)
    linked = (rng.random((nodes, nodes)) < edge_share) & ~np.eye(nodes, dtype=bool)
    edges = np.ascontiguousarray(np.argwhere(linked).T.astype(np.int32))
    unary = rng.normal(-0.3, 0.5, (nodes, nodes)).astype(np.float32)
    quadratic = rng.normal(0.1, 0.5, (edges.shape[1], edges.shape[1])).astype(np.float32)
    return unary, quadratic, edges


def optimum(unary: np.ndarray, quadratic: np.ndarray, edges: np.ndarray) -> float:
    found = solve_matching(unary[None], quadratic[None], edges[None], "exhaustive")
    return float(found.objective[0])


def bounded(unary: np.ndarray, quadratic: np.ndarray, edges: np.ndarray, matching: np.ndarray):
    """The first bound around a matching, and its messages."""
    nodes, num_edges = len(unary), edges.shape[1]
    low = cheapest_ends(quadratic, edges, edges, nodes)
    a, b = np.empty((num_edges, nodes + 1)), np.empty((num_edges, nodes + 1))
    r = np.empty((nodes, nodes + 1))
    table = build_graph(edges, nodes)[1]
    return first_bound(unary, quadratic, edges, table, low, matching, a, b, r), (table, a, b, r)


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_below_the_optimum_around_any_matching(seed: int) -> None:
    problem = random_problem(seed)
    best = optimum(*problem)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        matching = rng.permutation(NODES).astype(np.int32)
        matching[rng.random(NODES) < 0.3] = -1
        assert bounded(*problem, matching)[0] <= best + 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_passes_over_the_messages_raise_the_bound_and_never_above_the_optimum(seed: int) -> None:
    unary, quadratic, edges = random_problem(seed)
    best = optimum(unary, quadratic, edges)
    bound, (_, a, b, r) = bounded(unary, quadratic, edges, np.full(NODES, -1, np.int32))
    pair = np.zeros((NODES + 1, NODES + 1))
    pair[range(NODES), range(NODES)] = FORBIDDEN
    first = bound
    for _ in range(8):
        raise_messages(quadratic, edges, edges, a, b, r, pair)
        assert bound - 1e-9 <= bound_of(r) <= best + 1e-5
        bound = bound_of(r)
    assert bound > first + 0.01


@pytest.mark.parametrize("seed", range(12))
def test_a_raised_gap_is_no_proof_of_a_matching_that_is_not_optimal(seed: int) -> None:
    unary, quadratic, edges = random_problem(seed)
    unary += np.float32(1.0)  # some edges have both of their ends unmatched
    best = optimum(unary, quadratic, edges)
    bound, (_, a, b, r) = bounded(unary, quadratic, edges, np.full(NODES, -1, np.int32))
    worse = best + 0.01
    gap = raised_gap(quadratic, edges, edges, a, b, r, worse, worse - bound, 50)
    assert gap >= 0.01 - 1e-5 and gap == pytest.approx(worse - bound_of(r))
    assert gap < worse - bound


@pytest.mark.parametrize("seed", range(6))
def test_an_exact_search_from_a_poor_matching_finds_the_optimum(seed: int) -> None:
    unary, quadratic, edges = random_problem(seed)
    nobody = np.full(NODES, -1, np.int32)
    bound, (table, a, b, r) = bounded(unary, quadratic, edges, nobody)
    cost, done = settle(quadratic, edges, table, a, b, r, nobody, 0.0, -bound, 10**8)
    # The gap is wide beside a cost of zero, and 56 candidates are few enough.
    assert done
    assert cost == pytest.approx(optimum(unary, quadratic, edges), abs=1e-5)
    found = load(
        np.empty((NODES, NODES)), unary, quadratic, *[build_graph(edges, NODES)[0]] * 2,
        np.empty(NODES, np.int32), np.empty(NODES, np.int32), nobody,
    )  # fmt: skip
    assert found == pytest.approx(cost, abs=1e-5)


def test_a_search_that_is_too_long_says_so_and_keeps_what_it_has() -> None:
    unary, quadratic, edges = random_problem(0)
    nobody = np.full(NODES, -1, np.int32)
    bound, (table, a, b, r) = bounded(unary, quadratic, edges, nobody)
    cost, done = settle(quadratic, edges, table, a, b, r, nobody, 0.0, -bound, 0)
    assert not done and cost == 0.0 and (nobody == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_branches_against_every_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = np.array([0, 3, 5, 8, 9], np.int32)
    values = rng.normal(size=9)
    together = np.triu(rng.random((9, 9)), 1)
    together = together + together.T
    choices = itertools.product(*(range(*pair) for pair in itertools.pairwise(first)))
    best = min(
        sum(values[list(choice)]) + together[np.ix_(choice, choice)].sum() / 2 for choice in choices
    )
    chosen = np.full(4, -1, np.int32)
    cost, done = branch(values, together, first, np.inf, 0.0, 10_000, chosen)
    assert done and cost == pytest.approx(best)
    assert values[chosen].sum() + together[np.ix_(chosen, chosen)].sum() / 2 == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_pruned_pairs_are_those_that_cannot_pay(seed: int) -> None:
    unary, quadratic, edges = random_problem(seed)
    low = cheapest_ends(quadratic, edges, edges, NODES)
    pruned, pairs = prune(unary, edges, low, 1.0)
    kept = {tuple(pair) for pair in pairs.tolist()}
    for i, k in itertools.product(range(NODES), repeat=2):
        worth = float(unary[i, k])
        for end in range(2):
            for e in np.flatnonzero(edges[end] == i):
                landing = quadratic[e, edges[end] == k]
                worth += min(0.0, float(landing.min())) if landing.size else 0.0
        assert ((i, k) in kept) == (worth < 0)
        assert (pruned[i, k] == unary[i, k]) == (worth < 0)


def dense_problem(unary, quadratic, edges):
    table = build_graph(edges, len(unary))[1]
    largest = float(max(np.abs(unary).max(), np.abs(quadratic).max(initial=0)))
    return dense_pair_costs(unary, quadratic, edges, edges, table, largest, edges.shape[1])


def test_dense_rows_give_the_table_of_the_sparse_state() -> None:
    unary, quadratic, edges = random_problem(3)
    graph, _ = build_graph(edges, NODES)
    first, other, unit, whole, rows = dense_problem(unary, quadratic, edges)
    width = rows.shape[2]
    dense = whole.reshape(-1).copy()
    ties = np.zeros((2, NODES * width), np.int32)
    given = dense, rows.reshape(-1), *ties, first, other, width
    matching = np.array([3, -1, 0, 6, 1, 5, -1], np.int32)
    for node, label in enumerate(matching.tolist()):
        if label >= 0:
            relabel(*given, node, NODES, label)
    relabel(*given, 0, 3, 4)
    matching[0] = 4
    slow = np.empty((NODES, NODES))
    load(
        slow, unary, quadratic, graph, graph,
        np.empty(NODES, np.int32), np.empty(NODES, np.int32), matching,
    )  # fmt: skip
    # Each of up to a dozen costs of a sum is less than a unit off.
    found = dense.reshape(NODES, width)[:, :NODES]
    assert found / unit == pytest.approx(slow, abs=12 / unit)
    assert 12 / unit < 2e-3


@pytest.mark.parametrize("regime", ["random", "aniso", "aligned"])
def test_problems_of_eight_nodes_and_perturbed_ones_are_solved_exactly(regime: str) -> None:
    align = MultiGraphAlignment(64)
    small = make_problems(align, regime, 8, seed=0)
    for costs in (small.unary, small.perturbed):
        found = solve_matching(costs, small.quadratic, small.edges)
        best = solve_matching(costs, small.quadratic, small.edges, "exhaustive")
        assert found.objective.numpy() == pytest.approx(best.objective.numpy(), abs=1e-5)
    larger = make_problems(align, regime, 16, seed=0)
    fast = solve_matching(larger.perturbed, larger.quadratic, larger.edges)
    assert fast.certified.all()
    thorough = solve_matching(
        larger.perturbed, larger.quadratic, larger.edges, seed=1, effort="thorough"
    )
    assert (fast.objective <= thorough.objective + 1e-5).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("nodes", [7, 15, 16])
def test_annealing_of_rows_finds_the_optimum_among_matchings_it_says_it_found(
    nodes: int, seed: int
) -> None:
    unary, quadratic, edges = random_problem(seed, nodes, edge_share=0.3)
    found, cost = annealed_rows(unary, quadratic, edges, sweeps=400)
    taken = found[found >= 0]
    assert found.min() >= -1 and found.max() < nodes
    assert len(set(taken.tolist())) == len(taken)
    if nodes == NODES:
        assert cost == pytest.approx(optimum(unary, quadratic, edges), abs=1e-5)
    else:
        given = unary[None], quadratic[None], edges[None]
        best = solve_matching(*given, effort="thorough").objective[0]
        assert cost <= 0.9 * best


def test_annealing_of_rows_is_the_same_for_a_seed_and_another_for_another() -> None:
    problem = random_problem(5, nodes=16, edge_share=0.3)
    first, second = (annealed_rows(*problem, sweeps=3)[0].tolist() for _ in range(2))
    assert first == second
    assert len({tuple(annealed_rows(*problem, 3, seed)[0].tolist()) for seed in range(4)}) > 1


@pytest.mark.parametrize("nodes", [9, 17])
def test_no_noise_draws_a_label_that_does_not_exist(nodes: int) -> None:
    no_edges = np.empty((2, 0), np.int32)
    for seed in range(8):
        unary = np.random.default_rng(seed).choice([-1.0, 1.0], (nodes, nodes)).astype(np.float32)
        problem = unary, np.empty((0, 0), np.float32), no_edges
        found, _ = annealed_rows(*problem, sweeps=200, seed=seed, hot=1.2)
        assert found.max() < nodes


@pytest.mark.parametrize("exponent", [-140, -70, -20, 20, 70, 120])
@pytest.mark.parametrize("solver", ["anneal", "local-search"])
def test_costs_of_any_size_are_matched_as_those_near_one(solver: str, exponent: int) -> None:
    rng = np.random.default_rng(0)
    _, _, edges = random_problem(2, nodes=12, edge_share=0.3)
    # Eighths below two: the smallest that a number of 32 bits can hold at all keeps their digits.
    unary = rng.integers(-15, 16, (1, 12, 12)).astype(np.float32) / 8
    quadratic = rng.integers(-15, 16, (1, edges.shape[1], edges.shape[1])).astype(np.float32) / 8
    given = solve_matching(unary, quadratic, edges[None], solver)
    factor = np.float32(2.0**exponent)
    found = solve_matching(factor * unary, factor * quadratic, edges[None], solver)
    assert found.assignment.tolist() == given.assignment.tolist()
    assert found.certified.tolist() == given.certified.tolist()
    assert found.objective[0] == pytest.approx(float(factor) * given.objective[0])


def annealed_rows(unary, quadratic, edges, sweeps: int, seed: int = 0, hot: float = 0.3):
    """What a run from nobody matched finds, and its cost counted anew."""
    nodes = len(unary)
    graph, _ = build_graph(edges, nodes)
    first, other, unit, whole, rows = dense_problem(unary, quadratic, edges)
    start, found = np.full(nodes, -1, np.int32), np.empty(nodes, np.int32)
    scratch = np.empty(nodes + 1, np.int32), np.empty(nodes + 1, np.int32)
    stream = np.uint64(seeded(seed))
    anneal_rows(whole, rows, unit, first, other, start, *scratch, sweeps, hot, 0.07, stream, found)
    state = np.empty((nodes, nodes)), unary, quadratic, graph, graph
    return found, load(*state, np.empty(nodes, np.int32), np.empty(nodes, np.int32), found)


@pytest.mark.parametrize(("nodes", "edge_share"), [(7, 0.4), (15, 0.15), (16, 0.3), (18, 0.2)])
def test_a_run_draws_what_costs_counted_anew_for_each_label_would_draw(
    nodes: int, edge_share: float
) -> None:
    for seed in range(4):
        problem = random_problem(seed, nodes, edge_share)
        slow, moves = drawn_one_by_one(*problem, sweeps=12, seed=seed)
        assert annealed_rows(*problem, sweeps=12, seed=seed)[0].tolist() == slow
        assert moves > nodes


def drawn_one_by_one(unary, quadratic, edges, sweeps: int, seed: int) -> tuple[list[int], int]:
    """The slow twin of `anneal_rows`: the whole matching is paid for again for every label of every
    node. What it finds, and how many moves it made."""
    n = len(unary)
    first, other, unit, whole, rows = dense_problem(unary, quadratic, edges)
    links = [(i, s, other[s]) for i in range(n) for s in range(first[i], first[i + 1])]
    links = [(i, s, j) for i, s, j in links if i < j]

    def cost(labels: list[int]) -> int:
        paid = sum(int(whole[i, label]) for i, label in enumerate(labels) if label >= 0)
        for i, s, j in links:
            if labels[i] >= 0 and labels[j] >= 0:
                paid += int(rows[s, labels[i], labels[j]])
        return paid

    matching = [-1] * n
    best, found = 0, list(matching)
    stream = int(seeded(seed))
    moves = 0
    levels = min(LEVELS, sweeps)
    temperature = 0.3 * unit
    for level in range(levels):
        noise = (GUMBEL * np.float32(temperature)).astype(np.int32)
        temperature *= (0.07 / 0.3) ** (1 / (levels - 1))
        for _ in range(sweeps * level // levels, sweeps * (level + 1) // levels):
            for i in range(n):
                stream = (stream ^ (stream << 13)) % 2**64
                stream ^= stream >> 7
                stream = (stream ^ (stream << 17)) % 2**64
                offset = stream >> (64 - NOISE_BITS)
                without = list(matching)
                without[i] = -1
                # The price of each label, less its noise, and the matching that it leads to.
                draws = []
                for label in range(n):
                    after = list(without)
                    after[i] = label
                    if label in without:
                        j = without.index(label)
                        after[j] = -1
                        exchanged = list(after)
                        exchanged[j] = matching[i]
                        if matching[i] >= 0 and cost(exchanged) < cost(after):
                            after = exchanged
                    price = cost(after) - cost(without)
                    if label == matching[i]:
                        price = min(0, price)
                    draws.append((price - int(noise[offset + label]), label, after))
                draws.sort(key=lambda draw: draw[:2])
                after = draws[0][2]
                if draws[0][0] > -int(noise[offset + rows.shape[2]]):
                    after = without
                moves += after != matching
                matching = after
                if cost(matching) < best:
                    best, found = cost(matching), list(matching)
    return found, moves


@pytest.mark.parametrize("nodes", [64, 65])
def test_on_both_sides_of_the_limit_of_dense_rows_annealing_beats_descent(nodes: int) -> None:
    problems = make_problems(MultiGraphAlignment(32), "random", nodes, seed=0)
    inputs = (problems.unary[:2], problems.quadratic[:2], problems.edges[:2])
    found = solve_matching(*inputs)
    assert DENSE == 64
    assert (found.assignment >= -1).all() and (found.assignment < nodes).all()
    for labels in found.assignment.tolist():
        taken = [label for label in labels if label >= 0]
        assert len(set(taken)) == len(taken)
    assert found.objective.mean() < solve_matching(*inputs, solver="local-search").objective.mean()


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_between_two_nodes_is_both_directions_of_their_edge(seed: int) -> None:
    _, quadratic, edges = random_problem(seed)
    table = build_graph(edges, NODES)[1]
    numbers = {(int(i), int(j)): e for e, (i, j) in enumerate(edges.T)}
    some = 0
    for i, j, k, m in itertools.product(range(NODES), repeat=4):
        if i == j or k == m:
            continue
        expected = sum(
            quadratic[numbers[ends], numbers[labels]]
            for ends, labels in (((i, j), (k, m)), ((j, i), (m, k)))
            if ends in numbers and labels in numbers
        )
        found = between(quadratic, table, table, i, k, j, m)
        assert found == pytest.approx(float(expected), abs=1e-6)
        some += expected != 0
    assert some > 100
