"""The third-party solver pylibmgm, where the user has installed it.

It is fusion moves with local search (Hutschenreiter et al., ICCV 2021; Kahl et al.), licensed under
GPLv3, so nothing of this package depends on it or imports it unless `solver="pylibmgm"` is asked
for: `pip install pylibmgm`. It draws from a random source of its own: `seed` has no effect.
"""

import importlib.util
from typing import Any

import numpy as np
import torch

from exgra_med.alignment.solvers.protocol import Problems, Solution
from exgra_med.errors import MissingSolverError


def solve_by_fusion_moves(problems: Problems) -> Solution:
    """Hand every problem to pylibmgm.

    Raises:
        MissingSolverError: pylibmgm is not installed.
    """
    if importlib.util.find_spec("pylibmgm") is None:
        raise MissingSolverError("The solver pylibmgm is not installed: pip install pylibmgm.")
    import pylibmgm  # pyrefly: ignore[missing-import]
    from pylibmgm import solver  # pyrefly: ignore[missing-import]

    arrays = (problems.unary, problems.quadratic, problems.edges, problems.edges2)
    assignment = []
    for unary, quadratic, edges, edges2 in zip(*(a.cpu().numpy() for a in arrays), strict=True):
        model = _build(pylibmgm, unary, quadratic, edges, edges2)
        assignment.append(solver.solve_gm(model).labeling())
    device = problems.unary.device
    return Solution(
        assignment=torch.tensor(assignment, dtype=torch.long, device=device),
        certified=torch.zeros(len(assignment), dtype=torch.bool, device=device),
    )


def _build(
    library: Any, unary: np.ndarray, quadratic: np.ndarray, edges: np.ndarray, edges2: np.ndarray
) -> Any:
    """A model whose edges are unordered: an edge and its reverse are summed."""
    nodes = len(unary)
    graphs = [library.Graph(number, nodes) for number in range(2)]
    sums: dict[tuple[int, int], float] = {}
    for (tail, head), row in zip(edges.T.tolist(), quadratic.tolist(), strict=True):
        for (tail2, head2), cost in zip(edges2.T.tolist(), row, strict=True):
            if tail >= 0 and tail2 >= 0:
                pairs = sorted((tail * nodes + tail2, head * nodes + head2))
                key = (pairs[0], pairs[1])
                sums[key] = sums.get(key, 0.0) + cost
    model = library.GmModel(*graphs, nodes * nodes, len(sums))
    for node in range(nodes):
        for label in range(nodes):
            model.add_assignment(node, label, float(unary[node, label]))
    for (first, second), cost in sums.items():
        model.add_edge(first, second, cost)
    return model
