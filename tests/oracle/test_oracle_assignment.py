"""Without edges the problem is a linear assignment with free absence: scipy solves it exactly."""

import numpy as np
import pytest

from exgra_med.alignment import solve_matching

optimize = pytest.importorskip("scipy.optimize", reason="needs scipy")


@pytest.mark.parametrize(("nodes", "gap"), [(7, 1e-6), (12, 0.02)])
def test_linear_problems_are_solved_nearly_or_quite(nodes: int, gap: float) -> None:
    rng = np.random.default_rng(nodes)
    unary = rng.normal(-0.2, 1.0, (4, nodes, nodes)).astype(np.float32)
    found = solve_matching(
        unary,
        np.zeros((4, 0, 0)),
        np.zeros((4, 2, 0), int),
        effort="thorough",
    )
    for costs, objective in zip(unary, found.objective, strict=True):
        padded = np.hstack([costs.astype(np.float64), np.zeros((nodes, nodes))])
        rows, columns = optimize.linear_sum_assignment(padded)
        best = padded[rows, columns].sum()
        assert best - 1e-4 <= objective <= best * (1 - gap)
