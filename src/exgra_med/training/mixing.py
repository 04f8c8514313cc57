"""The two losses of a step together, and the figures that are shown of them."""

import torch
from torch import Tensor

from exgra_med.recipe.schema import StageSettings

_WITH_GRAPH = "share_with_graph"


def total_loss(
    stage: StageSettings, losses: dict[str, Tensor], supervised: Tensor, num_processes: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the supervised tokens of the whole step, plus the mean of the graphs' losses.

    The two have different divisors on purpose: tokens of all passes and devices together, against
    one value per graph. Devices are averaged when gradients are, hence the factor.

    Args:
        stage: its accumulation and the weight of its alignment count.
        losses: of one pass, from the objective.
        supervised: supervised tokens of all passes and processes.
        num_processes: processes that share the step.

    Returns:
        The loss to differentiate, and figures that are summed over passes and averaged over
        processes; the same names on each of these, whatever their records are.
    """
    passes = stage.accumulation_steps
    language = losses["language_loss_sum"] * num_processes / supervised
    shown: dict[str, Tensor] = {"language_loss": language.detach()}
    total = language
    settings = stage.alignment
    if settings is not None and settings.weight > 0:
        nothing = torch.zeros_like(language.detach())
        alignment = losses.get("alignment_loss", nothing) / passes
        shown["alignment_loss"] = alignment.detach()
        shown["matching_accuracy"] = losses.get("matching_accuracy", nothing).float() / passes
        shown[_WITH_GRAPH] = nothing + ("alignment_loss" in losses) / passes
        total = total + settings.weight * alignment
    return total, {"loss": total.detach()} | shown


def mean_over_graphs(figures: dict[str, float]) -> dict[str, float]:
    """Alignment figures of the passes that had nodes, and none where no pass had."""
    share = figures.pop(_WITH_GRAPH, 0.0)
    of_graphs = {"alignment_loss", "matching_accuracy"}
    return {
        key: value / share if key in of_graphs else value
        for key, value in figures.items()
        if share or key not in of_graphs
    }
