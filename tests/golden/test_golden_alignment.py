"""Numbers that the original computed: edges, nodes, costs, losses and gradients.

Every file of one training step holds, for each of six directions, all that lies between pooled
embeddings and loss. Small cases lie beside this file, all of them in the shared folder.
Tolerance: 1e-6 of a tensor's largest entry. Where the original's whole tensor lies below 1e-9 it is
a zero with rounding errors (gradients of `pooled_n7_duplicates`, 3e-11), and so must ours be.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_weights import rename_original
from safetensors.torch import load_file

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.blackbox import PendingMatching, hamming
from exgra_med.alignment.cost import add_noise, matching_costs, similarities
from exgra_med.alignment.graph import knn_edges
from exgra_med.alignment.loss import barycenter
from exgra_med.alignment.matching import MatchingResult, solve_matching
from exgra_med.alignment.solvers.protocol import edge_images, matching_objective

HERE = Path(__file__).parent / "data" / "alignment"
BUNDLED = ["pooled_n3_eval", "pooled_n5_hard_eval", "pooled_n7_train_dropout"]
SHARED = [
    "pooled_n7_eval",
    "pooled_n7_duplicates",
    "full_after_de_eval",
    "full_after_de_batch2_eval",
    "full_after_de_mixed_text_only_eval",
    "full_after_de_train_dropout",
    "full_embed_level_eval",
]
FORMULAS_ONLY = ["pooled_n16_given_matching_lap"]
DIRECTIONS = [
    f"{first}_to_{second}"
    for view in ("img", "txt", "long")
    for first, second in ((view, "bary"), ("bary", view))
]
TOLERANCE = 1e-6
NOTHING = 1e-9


def labels(matrix: torch.Tensor) -> torch.Tensor:
    """[n, n] of zeros and ones -> [n] labels, -1 for an empty row."""
    return torch.where(matrix.sum(-1) > 0, matrix.argmax(-1), -1)


def gather(case: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    return torch.stack([case[f"{direction}.{key}"] for direction in DIRECTIONS])


class Step:
    """One stored step, and the same step computed by this package."""

    def __init__(self, name: str, request: pytest.FixtureRequest) -> None:
        self.name = name
        folder = HERE
        if name not in BUNDLED:
            folder = request.getfixturevalue("shared") / "golden" / "d_alignment"
        self.case = case = load_file(folder / f"{name}.safetensors")
        self.align = MultiGraphAlignment(case["pooled.img"].shape[1])
        if not name.startswith("pooled"):
            weights = rename_original(load_file(folder / "weights_none.safetensors"))
        else:
            weights = {
                key.replace("gnn.", "message_passing."): value
                for key, value in case.items()
                if key.startswith("gnn.")
            }
        self.align.load_state_dict(weights)
        self.views = [case[f"pooled.{view}"].requires_grad_() for view in ("img", "txt", "long")]
        first, second, self.edges = self.align.problem_nodes(self.views)
        if f"{DIRECTIONS[0]}.dropout_mask" in case:
            kept = gather(case, "dropout_mask") / 0.9
            count = first.shape[1]
            first, second = first * kept[:, :count], second * kept[:, count:]
        self.first, self.second = first, second
        self.noise = case["gumbel_nodes"].float(), gather(case, "gumbel_edges").float()
        clean = matching_costs(first, second, self.edges)
        self.unary, self.quadratic = add_noise(*clean, *self.noise)

    def solve(self, unary, quadratic, start) -> MatchingResult:
        if self.name in FORMULAS_ONLY:
            key = "matching" if start is None else "matching_perturbed"
            found = labels(gather(self.case, key))
            cost = matching_objective(unary, quadratic, self.edges, found)
            none = torch.zeros(len(found), dtype=torch.bool)
            return MatchingResult(
                assignment=found, objective=cost, certified=none, milliseconds=0.0
            )
        return solve_matching(unary, quadratic, self.edges, "exhaustive", start=start)

    def expect(self, got: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
        largest = float(wanted.abs().max())
        if largest < NOTHING:
            assert float(got.detach().abs().max()) < NOTHING, f"{self.name}: {what} should be zero"
            return
        error = float((got - wanted).detach().abs().max()) / largest
        assert error <= TOLERANCE, f"{self.name}: {what} is off by {error:.2e} of its largest entry"


@pytest.fixture(params=[*BUNDLED, *SHARED, *FORMULAS_ONLY])
def step(request: pytest.FixtureRequest) -> Step:
    return Step(request.param, request)


def test_graphs_and_nodes(step: Step) -> None:
    bary = barycenter(*step.views)
    step.expect(bary, step.case["barycenter"], "barycenter")
    for number, direction in enumerate(DIRECTIONS):
        edges = step.case[f"{direction}.edge_index"]
        assert torch.equal(step.edges[number], edges), direction
        assert torch.equal(knn_edges(step.case[f"{direction}.gnn_in_1"]), edges), direction
    step.expect(step.first, gather(step.case, "gnn_out_1"), "first nodes")
    step.expect(step.second, gather(step.case, "gnn_out_2"), "second nodes")


def test_costs(step: Step) -> None:
    nodes, edges = similarities(step.first, step.second, step.edges)
    step.expect(nodes, gather(step.case, "unary_similarity"), "node cosines")
    step.expect(edges, gather(step.case, "quadratic_similarity"), "edge cosines")
    step.expect(step.unary, gather(step.case, "unary_cost"), "unary costs")
    step.expect(step.quadratic, gather(step.case, "quadratic_cost"), "quadratic costs")


def test_matchings_losses_and_gradients(step: Step) -> None:
    unary, quadratic = step.unary, step.quadratic
    unary.retain_grad()
    quadratic.retain_grad()
    pending = PendingMatching(unary, quadratic, step.edges, step.solve, perturbation=80.0)
    loss = pending.loss()
    loss.backward()

    found = pending.found.result().assignment
    assert pending.found_perturbed is not None
    perturbed = pending.found_perturbed.result().assignment
    for ours, key, paid in (
        (found, "matching", "quad_paid"),
        (perturbed, "matching_perturbed", "quad_paid_perturbed"),
    ):
        assert torch.equal(ours, labels(gather(step.case, key)))
        images = edge_images(ours, step.edges, step.edges)
        assert torch.equal(images, labels(gather(step.case, paid)))
    step.expect(hamming(found), gather(step.case, "hamming_loss")[:, 0], "Hamming losses")
    step.expect(loss, step.case["loss.align"][0], "loss")
    slope = pending.perturbed_unary() - unary
    step.expect(pending.perturbed_unary(), gather(step.case, "unary_perturbed"), "perturbed costs")
    step.expect(slope / 80, gather(step.case, "grad_matching"), "slope of the loss")
    assert unary.grad is not None and quadratic.grad is not None
    step.expect(unary.grad, gather(step.case, "grad_unary"), "gradient at unary costs")
    step.expect(quadratic.grad, gather(step.case, "grad_quadratic"), "gradient at quadratic costs")
    for view, key in zip(step.views, ("img", "txt", "long"), strict=True):
        step.expect(view.grad, step.case[f"grad.pooled.{key}"], f"gradient at {key}")
    prefix = "paramgrad.model.message_pass_node_features."
    prefix = "paramgrad.gnn." if step.name.startswith("pooled") else prefix
    for name, weight in step.align.message_passing.named_parameters():
        step.expect(weight.grad, step.case[prefix + name], f"gradient at {name}")


def test_the_default_solver_is_at_least_as_good(step: Step) -> None:
    """On exact cases it is exact; on the given matching (linear assignment) it is cheaper."""
    for costs in (step.unary, gather(step.case, "unary_perturbed")):
        ours = solve_matching(costs.detach(), step.quadratic.detach(), step.edges).objective
        key = "matching" if costs is step.unary else "matching_perturbed"
        theirs = matching_objective(
            costs.detach(), step.quadratic.detach(), step.edges, labels(gather(step.case, key))
        )
        assert np.all((ours - theirs).numpy() <= 1e-6 * theirs.abs().numpy())


def test_two_equal_samples_do_not_blow_up_gradients(request: pytest.FixtureRequest) -> None:
    """The original's gradients on two text-only samples are 1e8 and more; ours stay small."""
    step = Step("UNSTABLE_two_text_only_samples_eval", request)
    pending = PendingMatching(step.unary, step.quadratic, step.edges, step.solve, perturbation=80.0)
    pending.loss().backward()
    assert max(float(step.case[f"grad.pooled.{key}"].abs().max()) for key in ("img", "txt")) > 1e8
    assert all(view.grad is not None and view.grad.abs().max() < 1 for view in step.views)
