"""The vision tower runs once, and never are features of other images used."""

import pytest
import torch
from tiny_families import conversation, idefics3, llava, texts
from torch import nn

from exgra_med.alignment import MatchingError
from exgra_med.alignment.adapter import AlignmentAdapter

COUNTS = [1, 1, 1, 1]
ANSWER, EXTENDED = texts(4, 3), texts(4, 5)


def counted(model) -> list[int]:
    """Grows with each run of the vision tower."""
    runs: list[int] = []
    name = "vision_tower" if hasattr(model.base_model, "vision_tower") else "vision_model"
    getattr(model.base_model, name).register_forward_hook(lambda *_: runs.append(1))
    return runs


def loss(adapter, model, pictures):
    return adapter(model, pictures, COUNTS, ANSWER, EXTENDED, generator=0).loss


@pytest.mark.parametrize("gradients", [True, False])
def test_features_of_another_batch_are_not_used(gradients: bool) -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model.eval())
    mine, other = vision(4), vision(4)
    batch = conversation(model, other, 4)
    seen: list[torch.Tensor] = []
    adapter.align.register_forward_pre_hook(lambda _, views: seen.append(views[0]))
    loss(adapter, model, mine)
    with adapter.reuse_image_features(model), torch.set_grad_enabled(gradients):
        model(**batch)
    loss(adapter, model, mine)
    assert torch.equal(*seen)


def test_what_is_kept_serves_one_call() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model.eval())
    pictures = vision(4)
    batch = conversation(model, pictures, 4)
    runs = counted(model)
    with adapter.reuse_image_features(model):
        model(**batch)
    loss(adapter, model, pictures)
    assert len(runs) == 1
    loss(adapter, model, pictures)
    assert len(runs) == 2
    with adapter.reuse_image_features(model):
        model(**batch)
    with adapter.reuse_image_features(model):
        pass
    loss(adapter, model, pictures)
    assert len(runs) == 4, "a new block forgets the one before"


def test_a_pass_without_gradients_leaves_nothing() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model)
    pictures = vision(4)
    batch = conversation(model, pictures, 4)
    with adapter.reuse_image_features(model), torch.no_grad():
        model(**batch)
    loss(adapter, model, pictures).backward()
    tower = [weight.grad for weight in model.base_model.vision_tower.parameters()]
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in tower)


def test_images_that_a_wrapper_has_cast_are_the_same() -> None:
    model, vision = idefics3()
    adapter = AlignmentAdapter(model.to(torch.bfloat16))
    pictures = vision(4)
    cast = {name: value.to(torch.bfloat16) for name, value in pictures.items()}
    batch = conversation(model, cast, 4)
    runs = counted(model)
    with adapter.reuse_image_features(model):
        model(**batch)
    loss(adapter, model, pictures)
    assert len(runs) == 1


def test_the_tower_runs_once_below_peft() -> None:
    peft = pytest.importorskip("peft")
    model, vision = llava()
    pictures = vision(4)
    batch = conversation(model, pictures, 4)
    runs = counted(model)
    config = peft.LoraConfig(target_modules=r".*language_model.*\.q_proj", r=2)
    wrapped = peft.get_peft_model(model, config)
    adapter = AlignmentAdapter(wrapped)
    with adapter.reuse_image_features(wrapped):
        wrapped(**batch)
    loss(adapter, wrapped, pictures)
    assert len(runs) == 1
    assert "get_image_features" not in vars(model.base_model), "nothing is watched any more"


class Wrapper(nn.Module):
    """What DistributedDataParallel looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **batch):
        return self.module(**batch)


def test_around_a_wrapper_and_with_what_is_inside() -> None:
    model, vision = llava()
    pictures = vision(4)
    batch = conversation(model, pictures, 4)
    runs = counted(model)
    adapter, wrapped = AlignmentAdapter(model), Wrapper(model)
    with adapter.reuse_image_features(wrapped):
        wrapped(**batch)
    for refused in (lambda: AlignmentAdapter(wrapped), lambda: loss(adapter, wrapped, pictures)):
        with pytest.raises(MatchingError, match=r"Wrapper has no .*accelerator.unwrap_model"):
            refused()
    loss(adapter, model, pictures)
    assert len(runs) == 1
