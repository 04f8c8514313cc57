"""LPMP's adapter against a stand-in with the same call signature; pylibmgm's where it is there."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exgra_med.alignment import MatchingError, solve_matching


def _solvers() -> Any:
    path = Path(__file__).parents[4] / "benchmarks" / "third_party_solvers.py"
    spec = importlib.util.spec_from_file_location("third_party_solvers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOLVERS = _solvers()
HAS_PYLIBMGM = importlib.util.find_spec("pylibmgm") is not None


def stand_in(costs, quadratic_costs, edges_left, edges_right, solver_params, verbose=False):
    """Exhaustive matching that takes and gives what LPMP's `gm_solver` does."""
    assert quadratic_costs.shape == (len(edges_left), len(edges_right))
    assert edges_left.dtype == np.intc and edges_left.min(initial=0) >= 0
    assert solver_params == {"maxIter": 100, "primalComputationInterval": 10, "timeout": 1000}
    assert verbose is False
    found = solve_matching(
        costs[None],
        quadratic_costs[None],
        edges_left.T[None],
        "exhaustive",
        edges2=edges_right.T[None],
    )
    mask = found.assignment[0][:, None] == np.arange(len(costs))
    return mask.astype(np.int32), np.zeros_like(quadratic_costs)


def problems(count: int = 4, nodes: int = 4):
    """Two different graphs, padded with absent edges, and a price so that some stay alone."""
    rng = np.random.default_rng(0)
    links = np.full((2, count, 2, nodes * (nodes - 1)), -1)
    for graphs, share in zip(links, (0.6, 0.4), strict=True):
        for graph in graphs:
            linked = rng.random((nodes, nodes)) < share
            linked = np.argwhere(linked & ~np.eye(nodes, dtype=bool))
            graph[:, : len(linked)] = linked.T
    unary = rng.normal(0.1, 0.5, (count, nodes, nodes))
    size = links.shape[-1]
    return unary, rng.normal(0.1, 0.5, (count, size, size)), links[0], links[1]


@pytest.mark.parametrize("package", ["lpmp_py", "lpmp_gm"])
def test_every_problem_reaches_the_solver_and_comes_back(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lpmp_py", "lpmp_gm"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.raw_solvers", None)
    module = ModuleType(f"{package}.raw_solvers")
    module.gm_solver = stand_in  # pyrefly: ignore[missing-attribute]
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, f"{package}.raw_solvers", module)
    unary, quadratic, links, links2 = problems()
    found = solve_matching(unary, quadratic, links, SOLVERS.solve_by_lpmp, edges2=links2)
    best = solve_matching(unary, quadratic, links, "exhaustive", edges2=links2)
    assert np.array_equal(found.assignment, best.assignment)
    assert (found.assignment == -1).any() and (found.assignment >= 0).any()
    assert not found.certified.any()


def test_where_it_is_absent_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("lpmp_py", "lpmp_gm"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.raw_solvers", None)
    with pytest.raises(MatchingError, match=r"pip install git\+https://github.com/LPMP/LPMP"):
        solve_matching(*problems()[:3], SOLVERS.solve_by_lpmp)


@pytest.mark.skipif(HAS_PYLIBMGM, reason="pylibmgm is installed")
def test_a_solver_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(MatchingError, match="pip install pylibmgm"):
        solve_matching(*problems()[:3], SOLVERS.solve_by_pylibmgm)
    assert "pylibmgm" not in SOLVERS.installed()


@pytest.mark.skipif(not HAS_PYLIBMGM, reason="pylibmgm is not installed")
def test_pylibmgm_finds_good_matchings() -> None:
    unary, quadratic, links, links2 = problems()
    best = solve_matching(unary, quadratic, links, "exhaustive", edges2=links2)
    found = solve_matching(unary, quadratic, links, SOLVERS.solve_by_pylibmgm, edges2=links2)
    assert (found.objective >= best.objective - 1e-6).all()
    assert np.mean(found.objective <= best.objective + 1e-6) >= 0.5
