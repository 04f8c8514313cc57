"""Two solvers of others, to compare ours with. No part of the package, which never imports them.

Each obeys `exgra_med.alignment.solvers.protocol.Solver`, so that
`solve_matching(..., solver=solve_by_lpmp)` takes it. Install what you want to compare with:

* LPMP, the original's solver: message passing on a Lagrange decomposition (Swoboda et al., CVPR
  2017). It has no licence file. With cmake, g++ 9 or newer and HDF5, pip builds it from
  `git+https://github.com/LPMP/LPMP.git`; its Python function `gm_solver` is in the module
  `lpmp_py.raw_solvers` of the version that the original asks for, in `lpmp_gm.raw_solvers` later.
  It draws no random numbers: `seed` has no effect. It stops after a second for each problem, so
  the results of large problems depend on the machine.
* pylibmgm (GPLv3, `pip install pylibmgm`): fusion moves with local search (Hutschenreiter et al.,
  ICCV 2021; Kahl et al.). It draws from a random source of its own: `seed` has no effect.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from exgra_med.alignment.solvers.protocol import UNMATCHED, Problems, Solution
from exgra_med.errors import MissingSolverError

MODULES = ("lpmp_py.raw_solvers", "lpmp_gm.raw_solvers")
SETTINGS = {"maxIter": 100, "primalComputationInterval": 10, "timeout": 1000}
"""The original's: iterations, iterations between two roundings, milliseconds."""


def solve_by_lpmp(problems: Problems) -> Solution:
    """Hand every problem to LPMP; no certificates.

    Raises:
        MissingSolverError: LPMP is not installed.
    """
    gm_solver = _load()
    arrays = (problems.unary, problems.quadratic, problems.edges, problems.edges2)
    assignment = []
    for unary, quadratic, edges, edges2 in zip(*(a.cpu().numpy() for a in arrays), strict=True):
        present, present2 = edges[0] >= 0, edges2[0] >= 0
        mask, _ = gm_solver(
            unary.astype(np.float64),
            quadratic[present][:, present2].astype(np.float64),
            np.ascontiguousarray(edges[:, present].T, np.intc),
            np.ascontiguousarray(edges2[:, present2].T, np.intc),
            dict(SETTINGS),
            verbose=False,
        )
        chosen = np.asarray(mask) > 0.5
        assignment.append(np.where(chosen.any(1), chosen.argmax(1), UNMATCHED))
    device = problems.unary.device
    return Solution(
        assignment=torch.tensor(np.stack(assignment), dtype=torch.long, device=device),
        certified=torch.zeros(len(assignment), dtype=torch.bool, device=device),
    )


def _load() -> Callable[..., Any]:
    cause: ImportError | None = None
    for name in MODULES:
        try:
            return importlib.import_module(name).gm_solver
        except ImportError as error:
            # A module that is there but cannot be loaded says more than one that is not there.
            if cause is None or getattr(error, "name", None) not in (name, name.split(".")[0]):
                cause = error
    raise MissingSolverError(
        f"LPMP cannot be loaded ({cause}).",
        "With cmake, g++ 9 or newer and HDF5, pip install git+https://github.com/LPMP/LPMP.git "
        "builds it.",
    ) from cause


def solve_by_pylibmgm(problems: Problems) -> Solution:
    """Hand every problem to pylibmgm.

    Raises:
        MissingSolverError: pylibmgm is not installed.
    """
    if importlib.util.find_spec("pylibmgm") is None:
        raise MissingSolverError("pylibmgm is not installed.", "pip install pylibmgm")
    import pylibmgm
    from pylibmgm import solver

    arrays = (problems.unary, problems.quadratic, problems.edges, problems.edges2)
    assignment = []
    for unary, quadratic, edges, edges2 in zip(*(a.cpu().numpy() for a in arrays), strict=True):
        model = _pylibmgm_model(pylibmgm, unary, quadratic, edges, edges2)
        assignment.append(solver.solve_gm(model).labeling())
    device = problems.unary.device
    return Solution(
        assignment=torch.tensor(assignment, dtype=torch.long, device=device),
        certified=torch.zeros(len(assignment), dtype=torch.bool, device=device),
    )


def _pylibmgm_model(
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


def installed() -> dict[str, Callable[[Problems], Solution]]:
    """Name -> solver, of those that this environment has."""
    found: dict[str, Callable[[Problems], Solution]] = {}
    if any(importlib.util.find_spec(name.split(".")[0]) for name in MODULES):
        found["lpmp"] = solve_by_lpmp
    if importlib.util.find_spec("pylibmgm"):
        found["pylibmgm"] = solve_by_pylibmgm
    return found
