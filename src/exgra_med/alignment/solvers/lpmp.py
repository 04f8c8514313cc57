"""The original's solver LPMP, where the user has built it.

It is message passing on a Lagrange decomposition (Swoboda et al., CVPR 2017) with a Python function
`gm_solver`, in the module `lpmp_py.raw_solvers` of the version that the original asks for and
`lpmp_gm.raw_solvers` of later ones. It has no licence file, so nothing of this package depends on
it or imports it unless `solver="lpmp"` is asked for. It draws no random numbers: `seed` has no
effect. It stops after a second for each problem, so large problems depend on the machine.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from exgra_med.alignment.solvers.protocol import UNMATCHED, Problems, Solution
from exgra_med.errors import MissingSolverError

MODULES = ("lpmp_py.raw_solvers", "lpmp_gm.raw_solvers")
SETTINGS = {"maxIter": 100, "primalComputationInterval": 10, "timeout": 1000}
"""The original's: iterations, iterations between two roundings, milliseconds."""


def solve_by_message_passing(problems: Problems) -> Solution:
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
        f"The solver lpmp cannot be loaded ({cause}): with cmake, g++ 9 or newer and HDF5, "
        "pip install git+https://github.com/LPMP/LPMP.git builds it."
    ) from cause
