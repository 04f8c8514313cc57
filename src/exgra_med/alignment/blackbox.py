"""A gradient through a solver that has none.

The loss is L(X) with X = solve(U, Q), a step function of the costs. The black-box gradient solves
once more with costs pushed along dL/dX and takes the difference:

    X' = solve(U + lambda dL/dX, Q)
    dL/dU = (X' - X) / lambda          dL/dQ = (Y' - Y) / lambda,    Y[e, f] = X[i, k] X[j, l]

Source: Vlastelica et al., Differentiation of Blackbox Combinatorial Solvers (ICLR 2020), algorithm
1; Rolinek et al. (ECCV 2020) for matching. With several noise samples of the costs and the mean
over them it is the estimator of Niepert et al., Implicit MLE (NeurIPS 2021).

Two ways to meet a factor on the loss (fp16 loss scale, accumulation, alpha):

* equivariant (default): dL/dX is that of the bare loss, so the second problem is known before
  backward starts and is solved meanwhile; the factor multiplies the result.
* compatible: the factor multiplies dL/dX and does not appear in the result, as in the original
  code. A factor on the loss then does not scale the gradient (see docs/faithfulness).

Lambda says how far to push: a small one asks about the nearest step of the loss, which may be none;
a large one jumps over many and smooths them. The original's 80 moves each unary cost by 80 / (6 n),
0.8 at 16 nodes, which is what lies between a good match and a bad one.

Shapes: P problems, n nodes, E edges.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch

from exgra_med.alignment.matching import MatchingResult
from exgra_med.alignment.solvers.protocol import assignment_matrix, edge_images


@functools.cache
def _worker() -> ThreadPoolExecutor:
    """One thread that solves while the training thread goes on.

    The compiled solvers hold no interpreter lock, so the rest of the forward pass runs beside them.
    One thread is enough: the perturbed problems start from the solution of the forward ones and
    have to wait for it.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="matching")


if hasattr(os, "register_at_fork"):
    # A forked child inherits the executor, but not its thread.
    os.register_at_fork(after_in_child=_worker.cache_clear)


Solve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], MatchingResult]
"""(unary, quadratic, start) -> result."""


def hamming(assignment: torch.Tensor) -> torch.Tensor:
    """Hamming distance between X and the identity, sum(X (1 - I) + (1 - X) I) / n: [P] float32."""
    own = torch.arange(assignment.shape[1], device=assignment.device)
    wrong = (assignment >= 0) & (assignment != own)
    return (wrong.sum(1) + (assignment != own).sum(1)).float() / assignment.shape[1]


def hamming_slope(num_problems: int, num_nodes: int, device: torch.device) -> torch.Tensor:
    """dL/dX of the mean Hamming loss of P problems: (1 - 2 I) / (P n), [n, n]."""
    # Hamming is linear in X, so its slope is the same at every X: it is known before the solution.
    return (1.0 - 2.0 * torch.eye(num_nodes, device=device)) / (num_problems * num_nodes)


def blackbox_gradient(
    assignment: torch.Tensor,
    perturbed: torch.Tensor,
    edges: torch.Tensor,
    perturbation: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(X' - X) / lambda, [P, n, n], and (Y' - Y) / lambda, [P, E, E].

    Solutions of the problem and the perturbed one are [P, n], `edges` [P, 2, E]; the perturbation
    is lambda.
    """
    unary = (assignment_matrix(perturbed) - assignment_matrix(assignment)) / perturbation
    num_edges = edges.shape[-1]
    # Y' - Y has at most 2 E entries of E^2 that are not zero: they are scattered from the list of
    # which edge lands where, instead of multiplying Y out of X.
    # One more column takes the edges that land nowhere.
    quadratic = unary.new_zeros(edges.shape[0], num_edges, num_edges + 1)
    for labels, sign in ((perturbed, 1.0), (assignment, -1.0)):
        images = edge_images(labels, edges, edges)
        images = torch.where(images >= 0, images, num_edges)[..., None]
        quadratic.scatter_add_(2, images, unary.new_full(images.shape, sign / perturbation))
    return unary, quadratic[..., :num_edges]


@dataclass
class PendingMatching:
    """Problems whose solutions are under way: all of a step, the forward ones and the perturbed
    ones, go to the worker when this is made.

    Attributes:
        unary: [S * P, n, n] float32 costs, with their graph.
        quadratic: [S * P, E, E] float32 costs, with their graph.
        edges: [S * P, 2, E].
        solve: the solver, with its seed and effort.
        perturbation: lambda.
        samples: S noise samples of P problems.
        compatible: the original's behaviour under a factor on the loss; perturbed problems are then
            solved in backward.
        found: the solution of the problems.
        found_perturbed: that of the perturbed problems; None where it has to wait for backward.
    """

    unary: torch.Tensor
    quadratic: torch.Tensor
    edges: torch.Tensor
    solve: Solve
    _: KW_ONLY
    perturbation: float
    samples: int = 1
    compatible: bool = False
    found: "Future[MatchingResult]" = field(init=False)
    found_perturbed: "Future[MatchingResult] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        # The solver has no gradient of its own: autograd has nothing to record in its thread.
        fixed, fixed_quadratic, solve = self.unary.detach(), self.quadratic.detach(), self.solve
        self.found = found = _worker().submit(lambda: solve(fixed, fixed_quadratic, None))
        if torch.is_grad_enabled() and self.unary.requires_grad and not self.compatible:
            pushed = self.perturbed_unary()
            # From the forward solution: most of a perturbed matching is the same, and the proof
            # that it is optimal is built around its start.
            self.found_perturbed = _worker().submit(
                lambda: solve(pushed, fixed_quadratic, found.result().assignment)
            )

    def loss(self) -> torch.Tensor:
        """Wait for the solution; mean Hamming loss, differentiable by the black-box rule."""
        value = hamming(self.found.result().assignment).mean()
        return _BlackBox.apply(self.unary, self.quadratic, value, self)

    def perturbed_unary(self, factor: torch.Tensor | float = 1.0) -> torch.Tensor:
        """U + lambda * factor * dL/dX, [S * P, n, n]."""
        total, num_nodes = self.unary.shape[:2]
        # Of the loss of one noise sample: the mean over samples is taken in `gradient`, so that
        # more samples do not weaken the push.
        slope = hamming_slope(total // self.samples, num_nodes, self.unary.device)
        return self.unary.detach() + self.perturbation * factor * slope

    def gradient(self, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient at the costs when the loss arrives with `factor` upstream."""
        start = self.found.result().assignment
        if self.found_perturbed is None:
            # The original's rule: the factor pushes, and does not multiply.
            perturbed = self.solve(self.perturbed_unary(factor), self.quadratic.detach(), start)
            factor = torch.ones_like(factor)
        else:
            perturbed = self.found_perturbed.result()
        factor = factor / self.samples
        unary, quadratic = blackbox_gradient(
            start, perturbed.assignment, self.edges, self.perturbation
        )
        return unary * factor, quadratic * factor


class _BlackBox(torch.autograd.Function):
    """Returns the loss that was found; its backward joins the worker."""

    @staticmethod
    def forward(
        ctx: Any,
        unary: torch.Tensor,
        quadratic: torch.Tensor,
        value: torch.Tensor,
        pending: PendingMatching,
    ) -> torch.Tensor:
        # The costs are inputs only so that autograd asks for their gradient; the value is known.
        ctx.pending = pending
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        unary, quadratic = ctx.pending.gradient(grad_outputs[0])
        return unary, quadratic, None, None
