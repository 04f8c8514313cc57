"""Which parts learn."""

import pytest
import torch
from pydantic import ValidationError

from exgra_med.data.records import Prepared
from exgra_med.model.batch import Layout, StageDataset
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageSettings, TextSettings
from exgra_med.training.memory import count_parameters
from exgra_med.training.objective import Objective
from exgra_med.training.trainable import set_trainable


@pytest.mark.parametrize("learns", [False, True])
def test_the_tower_gets_gradients_only_where_it_is_named(
    toy: Bundle, sample: Prepared, learns: bool
) -> None:
    set_trainable(toy, ["vision", "connector"] if learns else ["connector"])
    own = Objective(toy, None).train()
    data = StageDataset(
        sample.records("train")[:4],
        sample.image_folder(10**8),
        toy,
        TextSettings(),
        False,
        Layout(tokens_per_row=256),
    )
    own(data.collate([data[0], data[1]]), [0])["language_loss_sum"].backward()
    moved = {
        name
        for name, each in own.named_parameters()
        if "vision_tower" in name and each.grad is not None and bool(torch.any(each.grad != 0))
    }
    assert bool(moved) == learns
    if learns:
        # The last layer and its norm come after the features that are read.
        assert any("patch_embedding" in name for name in moved)
        assert any("layers.0." in name for name in moved)


def test_a_learning_tower_is_counted(toy: Bundle) -> None:
    both, one = (
        count_parameters(toy.model, StageSettings(trainable=learn, learning_rate=1e-3))
        for learn in (["vision", "connector"], ["connector"])
    )
    assert both.trainable - one.trainable == one.tower > 0


def test_a_learning_tower_is_not_sharded() -> None:
    with pytest.raises(ValidationError, match="leave `vision` out"):
        StageSettings(trainable=["vision"], learning_rate=1e-3, sharding="full")
