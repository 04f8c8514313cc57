"""A step of the batched torch search against a slow twin that counts every whole cost anew."""

import pytest
import torch

from exgra_med.alignment import MatchingError, solve_matching
from exgra_med.alignment.solvers.protocol import matching_objective
from exgra_med.alignment.solvers.torch_batched import _Replicas, pair_costs

NODES, PROBLEMS, REPLICAS = 5, 3, 4


def problems(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    unary = torch.randn(PROBLEMS, NODES, NODES, generator=generator)
    every = (~torch.eye(NODES, dtype=torch.bool)).nonzero().T
    edges = every[:, torch.randperm(every.shape[1], generator=generator)[:9]]
    quadratic = torch.randn(PROBLEMS, 9, 9, generator=generator)
    return unary, quadratic, edges.expand(PROBLEMS, 2, 9)


def cost_of(given: tuple[torch.Tensor, ...], row: int, labels: torch.Tensor) -> float:
    problem = row // REPLICAS
    one = (each[problem : problem + 1] for each in given)
    return float(matching_objective(*one, labels[None].long())[0])


def cheapest_step(given: tuple[torch.Tensor, ...], row: int, labels: torch.Tensor, node: int):
    """What the best change of one node costs: to nothing, to a free label, to another's label
    whose owner then has none, or takes the node's old one."""
    costs = []
    for label in range(-1, NODES):
        after = labels.clone()
        gone = (labels == label).nonzero()[:, 0].tolist() if label >= 0 else []
        after[node] = label
        for other in [each for each in gone if each != node]:
            after[other] = labels[node]
            costs.append(cost_of(given, row, after))
            after[other] = -1
        costs.append(cost_of(given, row, after))
    return min(costs)


@pytest.mark.parametrize("seed", range(6))
def test_a_cold_step_is_the_cheapest_and_a_hot_one_keeps_count(seed: int) -> None:
    given = problems(seed)
    unary, quadratic, edges = given
    state = _Replicas(unary, pair_costs(quadratic, edges, edges, NODES), REPLICAS)
    rows = PROBLEMS * REPLICAS
    generator = torch.Generator().manual_seed(seed)
    for heat in [1.0] * 10 + [0.0] * 6:
        before = state.labels[:, :NODES].clone()
        drawn = torch.Generator()
        drawn.set_state(generator.get_state())
        nodes = torch.randint(NODES, (rows,), generator=drawn)
        state.step(torch.full((rows,), heat), generator)
        after = state.labels[:, :NODES]
        true = [cost_of(given, row, after[row]) for row in range(rows)]
        assert state.cost.tolist() == pytest.approx(true, abs=1e-4)
        if heat == 0:
            best = [cheapest_step(given, r, before[r], int(nodes[r])) for r in range(rows)]
            assert true == pytest.approx(best, abs=1e-4)
    kept = [cost_of(given, row, state.best_labels[row]) for row in range(rows)]
    assert state.best_cost.tolist() == pytest.approx(kept, abs=1e-4)


def test_an_edge_that_is_half_absent_is_refused() -> None:
    edges = torch.tensor([[[0, 1], [1, -1]]])
    with pytest.raises(MatchingError, match="half an edge"):
        solve_matching(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), edges)
