"""Adapters: what learns, what peft reads, and what is left when they are merged."""

import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
import torch

from exgra_med.errors import MissingExtraError, RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.model.lora import attach_adapter, detach_adapter
from exgra_med.recipe.schema import LoraSettings
from exgra_med.training.trainable import set_trainable

SETTINGS = LoraSettings(rank=2, alpha=4.0, dropout=0.0)

needs_peft = pytest.mark.skipif(util.find_spec("peft") is None, reason="needs peft")


def logits(model: torch.nn.Module, bundle: Bundle) -> torch.Tensor:
    ids = torch.tensor([[1, *[bundle.image_token_id] * 4, 9, 10, 11]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


def stir(bundle: Bundle) -> None:
    """Stands for training: the second factors are zero before it."""
    for weight in bundle.model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)


@needs_peft
def test_only_adapters_and_the_connector_learn(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle("dci")
    set_trainable(bundle, ["connector", "language"], SETTINGS)
    learning = {name for name, each in bundle.model.named_parameters() if each.requires_grad}
    adapters = {name for name in learning if ".lora_" in name}
    assert len(adapters) == 2 * 7 * 2
    assert all("language_model" in name for name in adapters)
    rest = learning - adapters
    assert len(rest) == 4 and all("multi_modal_projector" in name for name in rest)


@needs_peft
def test_merged_weights_and_plain_peft_answer_as_the_adapter_did(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    from peft import PeftModel

    bundle = make_bundle("dci")
    names = list(bundle.model.state_dict())
    before = logits(bundle.model, bundle)
    set_trainable(bundle, ["connector", "language"], SETTINGS)
    assert torch.equal(logits(bundle.model, bundle), before)
    stir(bundle)
    with_adapter = logits(bundle.model, bundle)
    assert (with_adapter - before).abs().max() > 1e-2
    detach_adapter(bundle, SETTINGS)(tmp_path / "adapter")
    assert list(bundle.model.state_dict()) == names
    # Measured: 2e-7.
    assert (logits(bundle.model, bundle) - with_adapter).abs().max() <= 1e-5
    plain = PeftModel.from_pretrained(make_bundle("dci").model, str(tmp_path / "adapter"))
    assert (logits(plain.eval(), bundle) - with_adapter).abs().max() <= 1e-5


@needs_peft
def test_a_name_that_fits_no_layer_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    settings = SETTINGS.model_copy(update={"target_modules": ".*nowhere"})
    with pytest.raises(RecipeError, match="fits no linear layer"):
        attach_adapter(make_bundle("none"), settings)


def test_what_is_not_installed_is_said_in_one_sentence(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"peft"}

    def find(name: str) -> object:
        return None if name in absent else sys

    monkeypatch.setattr("exgra_med.model.lora.util.find_spec", find)
    with pytest.raises(MissingExtraError, match=r"exgra-med\[lora\]"):
        attach_adapter(make_bundle("none"), SETTINGS)
    absent = {"bitsandbytes"}
    small = SETTINGS.model_copy(update={"quantize": "nf4"})
    with pytest.raises(RecipeError, match="needs bitsandbytes"):
        attach_adapter(make_bundle("none"), small)
    absent.clear()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RecipeError, match="needs a GPU"):
        attach_adapter(make_bundle("none"), small)


@needs_peft
def test_adapters_on_4_bit_layers_merge_to_what_they_answered(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = pytest.importorskip("bitsandbytes")
    bundle = make_bundle("dci")
    before = logits(bundle.model, bundle)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    small = SETTINGS.model_copy(update={"quantize": "nf4"})
    set_trainable(bundle, ["connector", "language"], small)
    # Stands for the move to a GPU, where the bits are made.
    for layer in bundle.model.modules():
        if isinstance(layer, bits.nn.Linear4bit):
            layer.weight = layer.weight.cpu()
            layer.compute_dtype = torch.float32
            if not layer.weight.bnb_quantized:
                layer.weight = layer.weight._quantize("cpu")
            assert layer.weight.dtype == torch.uint8
    adapters = [each for name, each in bundle.model.named_parameters() if ".lora_" in name]
    assert all(each.dtype == torch.float32 and each.requires_grad for each in adapters)
    stir(bundle)
    with_adapter = logits(bundle.model, bundle)
    assert (with_adapter - before).abs().max() > 1e-2
    detach_adapter(bundle, small)
    # Measured on a CPU with bitsandbytes 0.50.2: 2e-7.
    assert (logits(bundle.model, bundle) - with_adapter).abs().max() <= 1e-5
