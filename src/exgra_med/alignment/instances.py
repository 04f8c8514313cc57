"""Matching problems as they occur in training, made from synthetic embeddings.

Three regimes, and the way between two of them:

* `random`: three independent Gaussian sets of embeddings;
* `aniso`: independent, too, but with a large shared mean per set, as pooled features have;
* `aligned`: one set, twice with Gaussian noise of 0.5;
* `aligned@2.0`: the same with another amount of noise; with growing noise it becomes `random`.

The graph layers have their initial weights and dropout, as at the start of training.
"""

from dataclasses import dataclass

import torch

from exgra_med.alignment.blackbox import hamming_slope
from exgra_med.alignment.errors import MatchingError
from exgra_med.alignment.loss import MultiGraphAlignment

REGIMES = ("random", "aniso", "aligned")
TRANSITION = ("aligned@1.0", "aligned@2.0", "aligned@4.0", "aligned@8.0")


@dataclass(frozen=True)
class StepProblems:
    """The six problems of one training step, and the same ones perturbed for backward.

    Attributes:
        unary: [6, n, n] costs.
        perturbed: [6, n, n] costs of the perturbed problems.
        quadratic: [6, E, E] costs, the same for both.
        edges: [6, 2, E].
    """

    unary: torch.Tensor
    perturbed: torch.Tensor
    quadratic: torch.Tensor
    edges: torch.Tensor


def make_views(regime: str, nodes: int, dim: int, seed: int) -> list[torch.Tensor]:
    """Three [n, D] sets of embeddings.

    Raises:
        MatchingError: no regime has that name.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int = nodes) -> torch.Tensor:
        return torch.randn(rows, dim, generator=generator)

    name, _, amount = regime.partition("@")
    if name == "random":
        return [draw() for _ in range(3)]
    if name == "aniso":
        return [draw(1) + 0.3 * draw() for _ in range(3)]
    if name == "aligned":
        base = draw()
        return [base] + [base + float(amount or 0.5) * draw() for _ in range(2)]
    raise MatchingError(f"No regime is called {regime!r}; there are {', '.join(REGIMES)}.")


def make_problems(align: MultiGraphAlignment, regime: str, nodes: int, seed: int) -> StepProblems:
    """Problems of one step of `align`, in training mode, for n nodes."""
    dim = align.message_passing.get_submodule("conv1").get_parameter("lin_rel.weight").shape[0]
    with torch.no_grad():
        costs = align.train().costs(make_views(regime, nodes, dim, seed), generator=seed)
    unary, quadratic, edges, _ = costs
    slope = hamming_slope(unary.shape[0], nodes, unary.device)
    return StepProblems(unary, unary + align.perturbation * slope, quadratic, edges)
