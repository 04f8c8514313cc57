"""The mixture of the two losses, worked by hand."""

import pytest
import torch
from torch import Tensor

from exgra_med.recipe.schema import StageSettings
from exgra_med.training.loop import mean_over_graphs, total_loss

STAGE = StageSettings.model_validate(
    {
        "trainable": ["connector"],
        "learning_rate": 1e-3,
        "gradient_accumulation_steps": 2,
        "alignment": {"weight": 0.5},
    }
)
WITH_GRAPH = {"alignment_loss": torch.tensor(3.0), "matching_accuracy": torch.tensor(0.25)}


def mix(losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    language = {"language_loss_sum": torch.tensor(8.0)}
    return total_loss(
        STAGE, language | losses, torch.tensor(16), num_accumulated=2, num_processes=2
    )


def test_tokens_and_graphs_have_their_own_divisors() -> None:
    loss, shown = mix(WITH_GRAPH)
    assert float(loss) == 8 * 2 / 16 + 0.5 * 3 / 2
    assert float(shown["loss"]) == float(loss)


def test_figures_of_graphs_are_means_over_the_passes_that_have_one() -> None:
    with_graph, without = mix(WITH_GRAPH)[1], mix({})[1]
    assert with_graph.keys() == without.keys(), "processes sum the same figures"
    summed = {key: float(with_graph[key] + without[key]) for key in without}
    shown = mean_over_graphs(summed)
    assert (shown["alignment_loss"], shown["matching_accuracy"]) == (3.0, 0.25)
    assert shown["language_loss"] == 2.0
    assert set(shown) == {"loss", "language_loss", "alignment_loss", "matching_accuracy"}


def test_a_step_without_graphs_shows_none() -> None:
    shown = mean_over_graphs({key: float(value) for key, value in mix({})[1].items()})
    assert set(shown) == {"loss", "language_loss"}


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_weight_scales_the_graphs_alone(weight: float) -> None:
    settings = {"alignment": STAGE.alignment.model_copy(update={"weight": weight})}
    stage = STAGE.model_copy(update=settings)
    losses = {"language_loss_sum": torch.tensor(8.0)} | WITH_GRAPH
    loss, _ = total_loss(stage, losses, torch.tensor(16), num_accumulated=2, num_processes=2)
    assert float(loss) == 1.0 + weight * 1.5
