"""Matchings are found beside the training thread, and do not depend on threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from exgra_med.alignment import MultiGraphAlignment, solve_matching
from exgra_med.alignment.solvers import search
from exgra_med.alignment.solvers.state import HAS_NUMBA

VIEWS = [torch.randn(9, 16, generator=torch.Generator().manual_seed(n)) for n in range(3)]


def test_backward_problems_are_under_way_before_backward() -> None:
    views = [view.clone().requires_grad_() for view in VIEWS]
    pending = MultiGraphAlignment(16).begin(*views, generator=0).matching
    assert pending is not None and pending.found_perturbed is not None
    perturbed = pending.found_perturbed.result(timeout=60)
    assert perturbed.assignment.shape == (6, 9)


def test_without_gradients_nothing_is_perturbed() -> None:
    with torch.no_grad():
        pending = MultiGraphAlignment(16).begin(*VIEWS, generator=0).matching
    assert pending is not None and pending.found_perturbed is None


@pytest.mark.skipif(not HAS_NUMBA, reason="compiled solvers need numba")
def test_the_compiled_solver_holds_no_interpreter_lock() -> None:
    assert search.solve_one.targetoptions["nogil"]


def test_answers_do_not_depend_on_threads() -> None:
    rng = np.random.default_rng(0)
    links = np.argwhere(~np.eye(9, dtype=bool))[::2].T[None]
    problem = rng.normal(size=(1, 9, 9)), rng.normal(size=(1, 36, 36)), links
    alone = solve_matching(*problem).assignment
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: solve_matching(*problem).assignment, range(8)))
    assert all(np.array_equal(answer, alone) for answer in together)


@pytest.mark.slow
def test_everything_runs_where_numba_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch\n"
        "from exgra_med.alignment import MultiGraphAlignment\n"
        "from exgra_med.alignment.solvers.state import HAS_NUMBA\n"
        "assert not HAS_NUMBA\n"
        "views = [torch.randn(7, 16, requires_grad=True) for _ in range(3)]\n"
        "MultiGraphAlignment(16)(*views, generator=0).loss.backward()\n"
        "MultiGraphAlignment(16, solver='local-search')(*views, generator=0).loss.backward()\n"
        "assert views[0].grad.abs().max() > 0\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | paths)
