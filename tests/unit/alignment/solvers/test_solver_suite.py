"""The same tests for every solver of `SOLVERS`; `exhaustive` is the oracle on small problems."""

import numpy as np
import pytest
import torch

from exgra_med.alignment import MatchingError, solve_matching
from exgra_med.alignment.solvers import SOLVERS
from exgra_med.alignment.solvers.protocol import matching_objective

INSTALLED = SOLVERS.names()
HEURISTICS = [name for name in INSTALLED if name != "exhaustive"]


def instances(count: int, nodes: int, seed: int, edge_share: float = 0.6, scale: float = 1.0):
    """Random costs; problems with fewer edges are padded with -1."""
    rng = np.random.default_rng(seed)
    size = nodes * (nodes - 1)
    links = np.full((count, 2, max(size, 1)), -1)
    for problem in range(count):
        linked = np.argwhere((rng.random((nodes, nodes)) < edge_share) & ~np.eye(nodes, dtype=bool))
        links[problem, :, : len(linked)] = linked.T
    unary = rng.normal(-0.3, 0.5, (count, nodes, nodes)) * scale
    quadratic = rng.normal(0.1, 0.5, (count, links.shape[2], links.shape[2])) * scale
    return unary, quadratic, links


def is_partial_matching(assignment: np.ndarray) -> bool:
    return all(
        row.min() >= -1
        and row.max() < len(row)
        and len(set(row[row >= 0])) == np.count_nonzero(row >= 0)
        for row in np.asarray(assignment)
    )


@pytest.mark.parametrize("solver", HEURISTICS)
@pytest.mark.parametrize("nodes", [1, 2, 3, 7])
def test_close_to_the_optimum_on_small_problems(solver: str, nodes: int) -> None:
    problems = instances(20, nodes, seed=nodes, edge_share=0.6 if nodes < 7 else 0.4)
    best = solve_matching(*problems, solver="exhaustive")
    found = solve_matching(*problems, solver=solver, effort="thorough")
    assert is_partial_matching(found.assignment)
    assert (found.objective >= best.objective - 1e-6).all()
    share = 0.3 if solver == "local-search" else 0.95
    assert np.mean(found.objective <= best.objective + 1e-6) >= share
    assert (found.objective <= 0).all()


@pytest.mark.parametrize("solver", INSTALLED)
def test_the_objective_is_what_the_definition_says(solver: str) -> None:
    unary, quadratic, links = instances(4, 5, seed=1)
    found = solve_matching(unary, quadratic, links, solver=solver)
    for problem, matching in enumerate(found.assignment):
        cost = sum(unary[problem, i, k] for i, k in enumerate(matching) if k >= 0)
        for e, (i, j) in enumerate(links[problem].T):
            for f, (k, label) in enumerate(links[problem].T):
                if i >= 0 and k >= 0 and matching[i] == k and matching[j] == label:
                    cost += quadratic[problem, e, f]
        assert found.objective[problem] == pytest.approx(cost, abs=1e-9)


@pytest.mark.parametrize("solver", INSTALLED)
def test_two_different_graphs(solver: str) -> None:
    unary, _, links = instances(6, 4, seed=2)
    _, quadratic, links2 = instances(6, 4, seed=3, edge_share=0.3)
    best = solve_matching(unary, quadratic, links, "exhaustive", edges2=links2)
    found = solve_matching(unary, quadratic, links, solver, edges2=links2, effort="thorough")
    if solver != "local-search":
        assert found.objective == pytest.approx(best.objective, abs=1e-6)
    assert is_partial_matching(found.assignment)


@pytest.mark.parametrize("solver", INSTALLED)
def test_a_problem_alone_has_the_answer_it_has_in_a_batch(solver: str) -> None:
    problems = instances(5, 6, seed=4)
    together = solve_matching(*problems, solver=solver, seed=7)
    again = solve_matching(*problems, solver=solver, seed=7)
    assert np.array_equal(together.assignment, again.assignment)
    for number in range(5):
        one = [part[number : number + 1] for part in problems]
        alone = solve_matching(*one, solver=solver, seed=7)
        assert np.array_equal(alone.assignment[0], together.assignment[number])


@pytest.mark.parametrize("solver", INSTALLED)
def test_torch_in_torch_out(solver: str) -> None:
    problems = instances(3, 4, seed=5)
    numpy = solve_matching(*problems, solver=solver)
    tensors = solve_matching(*(torch.tensor(part) for part in problems), solver=solver)
    assert isinstance(tensors.assignment, torch.Tensor) and isinstance(numpy.assignment, np.ndarray)
    assert tensors.assignment.dtype == torch.int64
    assert np.array_equal(tensors.assignment.numpy(), numpy.assignment)


@pytest.mark.parametrize("solver", INSTALLED)
def test_starts_from_what_is_given(solver: str) -> None:
    problems = instances(4, 5, seed=6)
    best = solve_matching(*problems, solver="exhaustive")
    found = solve_matching(*problems, solver=solver, start=best.assignment)
    assert found.objective == pytest.approx(best.objective, abs=1e-6)


@pytest.mark.parametrize("solver", INSTALLED)
def test_nothing_worth_matching_and_no_edges(solver: str) -> None:
    worthless = solve_matching(
        np.ones((2, 3, 3)), np.zeros((2, 0, 0)), np.zeros((2, 2, 0), int), solver
    )
    assert (worthless.assignment == -1).all() and (worthless.objective == 0).all()
    clear = -np.eye(4)[None] - 0.1
    found = solve_matching(clear, np.zeros((1, 0, 0)), np.zeros((1, 2, 0), int), solver)
    assert found.assignment.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("solver", ["anneal", "local-search"])
def test_certificates_are_true(solver: str) -> None:
    certified = 0
    for bonus in (0.0, 2.0, 4.0):
        unary, quadratic, links = instances(20, 7, seed=8, edge_share=0.3)
        unary = unary - bonus * np.eye(7)
        best = solve_matching(unary, quadratic, links, "exhaustive")
        found = solve_matching(unary, quadratic, links, solver)
        certified += int(found.certified.sum())
        proven = found.objective[found.certified]
        assert proven == pytest.approx(best.objective[found.certified], abs=1e-5)
    assert certified >= 20


def test_the_identity_is_certified_under_strong_perturbation() -> None:
    unary, quadratic, links = instances(5, 12, seed=9, edge_share=0.3)
    found = solve_matching(unary - 40 * np.eye(12), quadratic, links)
    assert (found.assignment == np.arange(12)).all() and found.certified.all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda u, q, e: (u[0], q, e), "Unary costs have shape"),
        (lambda u, q, e: (u, q[:, :2], e), "Quadratic costs have shape"),
        (lambda u, q, e: (u, q, e[:1]), "Edges have shape"),
        (lambda u, q, e: (u * np.nan, q, e), "Unary costs are not all finite"),
        (lambda u, q, e: (u, q + np.inf, e), "Quadratic costs are not all finite"),
        (lambda u, q, e: (u, q, e + 9), "names a node"),
        (lambda u, q, e: (u, q, e * 0), "itself"),
        (lambda u, q, e: (u, q, np.where(np.arange(2)[:, None] == 0, e, -1)), "half an edge"),
        (lambda u, q, e: (u, q, np.repeat(e[:, :, :1], e.shape[2], 2)), "twice"),
    ],
)
def test_what_is_no_problem_is_refused(change, word: str) -> None:
    unary, quadratic, _ = instances(2, 3, seed=0)
    links = np.array([[[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]] * 2)
    with pytest.raises(MatchingError, match=word):
        solve_matching(*change(unary, quadratic, links))


def test_limits_and_unknown_names_are_refused_in_words() -> None:
    big = np.zeros((1, 12, 12)), np.zeros((1, 0, 0)), np.zeros((1, 2, 0), int)
    with pytest.raises(MatchingError, match="at most 9 nodes, and was asked for 12"):
        solve_matching(*big, solver="exhaustive")
    with pytest.raises(MatchingError, match="no solver 'best'"):
        solve_matching(*big, solver="best")


def test_a_solver_of_your_own() -> None:
    from exgra_med.alignment.solvers.protocol import Problems, Solution

    def nobody(problems: Problems) -> Solution:
        empty = torch.full(problems.unary.shape[:2], -1)
        return Solution(assignment=empty, certified=torch.zeros(len(empty), dtype=torch.bool))

    assert (solve_matching(*instances(2, 3, seed=0), solver=nobody).objective == 0).all()


def test_objective_of_an_edge_that_lands_on_the_reverse_is_not_paid() -> None:
    links = torch.tensor([[[0], [1]]])
    value = matching_objective(
        torch.zeros(1, 2, 2), torch.ones(1, 1, 1), links, torch.tensor([[1, 0]])
    )
    assert value.tolist() == [0.0]
    value = matching_objective(
        torch.zeros(1, 2, 2), torch.ones(1, 1, 1), links, torch.tensor([[0, 1]])
    )
    assert value.tolist() == [1.0]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (np.full((4, 5), 99), "outside of -1 to 4"),
        (np.full((4, 5), -7), "outside of -1 to 4"),
        (np.zeros((4, 5), int), "one label to two nodes"),
        (np.tile(np.arange(5.0), (4, 1)), "not whole numbers"),
        (np.arange(5), "not whole numbers"),
    ],
)
@pytest.mark.parametrize("solver", ["anneal", "local-search"])
def test_a_start_that_is_no_matching_is_refused(solver: str, start, words: str) -> None:
    with pytest.raises(MatchingError, match=words):
        solve_matching(*instances(4, 5, seed=1), solver, start=start)


def test_a_seed_and_an_effort_without_meaning_are_refused() -> None:
    problems = instances(4, 5, seed=1)
    with pytest.raises(MatchingError, match="seed None"):
        solve_matching(*problems, seed=None)
    with pytest.raises(MatchingError, match="no effort 'slow'"):
        solve_matching(*problems, "local-search", effort="slow")
