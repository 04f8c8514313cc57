"""Going downhill against a slow twin that counts the whole cost of every step anew."""

import numpy as np
import pytest
import torch

from exgra_med.alignment.solvers.descent import chain, descend
from exgra_med.alignment.solvers.protocol import matching_objective
from exgra_med.alignment.solvers.state import build_graph, load

NODES = 6
DEPTH = 4


class Search:
    """A random problem and a partial matching of it, with all that the compiled loops need."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        linked = (rng.random((NODES, NODES)) < 0.4) & ~np.eye(NODES, dtype=bool)
        self.edges = np.ascontiguousarray(np.argwhere(linked).T.astype(np.int32))
        num_edges = self.edges.shape[1]
        self.unary = rng.normal(-0.3, 0.5, (NODES, NODES)).astype(np.float32)
        self.quadratic = rng.normal(0.1, 0.5, (num_edges, num_edges)).astype(np.float32)
        start = rng.permutation(NODES).astype(np.int32)
        start[rng.random(NODES) < 0.3] = -1
        self.graph = build_graph(self.edges, NODES)[0]
        self.costs = np.empty((NODES, NODES))
        self.matching = np.empty(NODES, np.int32)
        self.owner = np.empty(NODES, np.int32)
        loaded = (self.unary, self.quadratic, self.graph, self.graph)
        load(self.costs, *loaded, self.matching, self.owner, start)

    @property
    def state(self):
        both = (self.graph, self.graph)
        return (self.costs, self.quadratic, *both, self.matching, self.owner)

    def cost(self, matching: np.ndarray) -> float:
        given = (self.unary, self.quadratic, self.edges, matching.astype(np.int64))
        return float(matching_objective(*(torch.from_numpy(each[None]) for each in given))[0])

    def check_state(self) -> None:
        """Owners and the table of costs are those of the matching."""
        matched = np.flatnonzero(self.matching >= 0)
        owners = np.full(NODES, -1)
        owners[self.matching[matched]] = matched
        assert (self.owner == owners).all()
        fresh = np.empty_like(self.costs)
        loaded = (self.unary, self.quadratic, self.graph, self.graph)
        load(fresh, *loaded, self.matching.copy(), self.owner.copy(), self.matching.copy())
        np.testing.assert_allclose(self.costs, fresh, atol=1e-6)


def slow_chain(search: Search, first: int, depth: int) -> tuple[float, np.ndarray]:
    """The definition: the best prefix of a chain, each step the cheapest by its whole cost."""
    start = search.matching.copy()
    before = search.cost(start)
    now = start.copy()
    prefixes = [start.copy()]
    forbidden = set()
    old = now[first]
    if old >= 0:
        now[first] = -1
        forbidden.add(old)
        prefixes.append(now.copy())
    node = first
    for _ in range(depth):
        steps = {}
        for label in set(range(NODES)) - forbidden:
            after = np.where(now == label, -1, now)
            after[node] = label
            steps[label] = after
        if not steps:
            break
        label = min(steps, key=lambda each: search.cost(steps[each]))
        ejected = np.flatnonzero(now == label)
        now = steps[label]
        prefixes.append(now.copy())
        forbidden = (forbidden | {label}) - ({old} if node == first else set())
        if not len(ejected):
            break
        node = int(ejected[0])
    best = min(prefixes, key=search.cost)
    return search.cost(best) - before, best


@pytest.mark.parametrize("depth", [1, 2, DEPTH, NODES + 2])
@pytest.mark.parametrize("seed", range(30))
def test_a_chain_is_left_at_its_best_prefix(seed: int, depth: int) -> None:
    for first in range(NODES):
        search = Search(seed)
        gain, best = slow_chain(search, first, depth)
        size = 2 * depth + 2
        nodes, labels = np.empty(size, np.int32), np.empty(size, np.int32)
        taken = np.zeros(NODES, np.bool_)
        found = chain(*search.state, first, depth, nodes, labels, taken)
        assert found == pytest.approx(gain, abs=1e-5)
        assert search.matching.tolist() == best.tolist()
        search.check_state()


@pytest.mark.parametrize("seed", range(30))
def test_the_end_of_a_descent_is_better_than_every_neighbour(seed: int) -> None:
    search = Search(seed)
    before = search.cost(search.matching)
    gained = descend(*search.state, DEPTH)
    end = search.cost(search.matching)
    assert end - before == pytest.approx(gained, abs=1e-5)
    assert gained <= 0
    search.check_state()
    for node in range(NODES):
        assert slow_chain(search, node, DEPTH)[0] >= -1e-6
        for label in range(-1, NODES):
            neighbour = np.where((search.matching == label) & (label >= 0), -1, search.matching)
            neighbour[node] = label
            assert search.cost(neighbour) >= end - 1e-6
