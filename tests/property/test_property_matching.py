"""What holds for every matching problem."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exgra_med.alignment import solve_matching


@st.composite
def problems(draw, most_nodes: int = 8):
    nodes = draw(st.integers(1, most_nodes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    linked = np.argwhere(
        (rng.random((nodes, nodes)) < draw(st.floats(0, 1))) & ~np.eye(nodes, dtype=bool)
    )
    unary = rng.normal(draw(st.floats(-1, 1)), 1, (1, nodes, nodes))
    quadratic = rng.normal(draw(st.floats(-1, 1)), 1, (1, len(linked), len(linked)))
    return unary, quadratic, linked.T[None].astype(np.int64)


@pytest.mark.parametrize("solver", ["anneal", "local-search"])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_a_partial_matching_that_is_never_worse_than_none(solver, problem) -> None:
    found = solve_matching(*problem, solver=solver)
    labels = found.assignment[0]
    matched = labels[labels >= 0]
    assert len(set(matched.tolist())) == len(matched)
    assert labels.min() >= -1 and labels.max() < len(labels)
    assert found.objective[0] <= 1e-9


@settings(max_examples=40, deadline=None)
@given(problem=problems(most_nodes=6), seed=st.integers(0, 1000))
def test_renaming_nodes_renames_the_answer(problem, seed: int) -> None:
    unary, quadratic, links = problem
    nodes = unary.shape[1]
    new_name = np.random.default_rng(seed).permutation(nodes)
    renamed = np.empty_like(unary)
    renamed[:, new_name[:, None], new_name] = unary
    plain = solve_matching(unary, quadratic, links)
    moved = solve_matching(renamed, quadratic, new_name[links])
    expected = np.full(nodes, -1)
    for node, label in enumerate(plain.assignment[0]):
        expected[new_name[node]] = new_name[label] if label >= 0 else -1
    assert moved.objective == pytest.approx(plain.objective, abs=1e-5)
    assert np.array_equal(moved.assignment[0], expected)


@settings(max_examples=30, deadline=None)
@given(problem=problems(), factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_costs_times_a_power_of_two_have_the_same_answer(problem, factor: float) -> None:
    unary, quadratic, links = problem
    plain = solve_matching(unary, quadratic, links)
    scaled = solve_matching(unary * factor, quadratic * factor, links)
    assert scaled.objective == pytest.approx(plain.objective * factor, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(problem=problems(most_nodes=6))
def test_exact_up_to_six_nodes(problem) -> None:
    found = solve_matching(*problem)
    best = solve_matching(*problem, solver="exhaustive")
    assert found.objective == pytest.approx(best.objective, abs=1e-6)
    assert found.certified.all()
