"""Adapters: what learns, what peft reads, and what is left when they are merged."""

import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
import torch

from exgra_med.errors import MissingExtraError, RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.model.lora import attach_adapter, detach_adapter, fused_linear
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


@needs_peft
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("bias", [False, True])
def test_the_fused_layer_is_that_of_peft_with_its_gradients(dropout: float, bias: bool) -> None:
    fused, plain = _layers(dropout, bias)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    found = [_values_and_gradients(layer, x) for layer in (fused, plain)]
    for ours, theirs in zip(*found, strict=True):
        assert ours.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@needs_peft
def test_the_fused_layer_is_no_worse_in_half_precision() -> None:
    fused, plain = _layers(0.0, False)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    exact = _values_and_gradients(plain, x)
    with torch.autocast("cpu", torch.bfloat16):
        halves = [_values_and_gradients(layer.float(), x.float()) for layer in (fused, plain)]
    for right, ours, theirs in zip(exact, *halves, strict=True):
        error, usual = ((each - right).abs().max() for each in (ours, theirs))
        assert error <= 2 * usual + 1e-3


def _layers(dropout: float, bias: bool) -> list[torch.nn.Module]:
    """The same adapted layer of 6 to 7 twice: ours, and peft's."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    settings = LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=["0"])
    layers: list[torch.nn.Module] = []
    for _ in range(2):
        model = torch.nn.Sequential(torch.nn.Linear(6, 7, bias=bias))
        inject_adapter_in_model(settings, model)
        layers.append(model[0].double())
    layers[0].get_submodule("lora_B.default").weight.data.normal_()
    layers[1].load_state_dict(layers[0].state_dict())
    layers[0].__class__ = fused_linear()
    return layers


def _values_and_gradients(layer: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    out = layer(x)
    learning = [x, *(each for each in layer.parameters() if each.requires_grad)]
    return [out.double(), *(g.double() for g in torch.autograd.grad(out.sin().sum(), learning))]
