"""LoRA adapters in the language model, through peft: attached, merged and removed.

The layers are found by what they are, not by their names: every linear layer inside the language
model. The model stays the same object of the same class, so nothing else in training changes. What
`detach_adapter` returns writes what loads in plain peft, with the connector. The model then has the
products of the adapters added to its weights, and no peft layer is left in it.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exgra_med.errors import MissingExtraError, RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import LoraSettings

ADAPTER_NAME = "default"
"""peft's own name of a single adapter."""


def check_adapters_possible(settings: LoraSettings) -> None:
    """Refuse settings that this machine cannot train.

    Raises:
        MissingExtraError: peft is absent.
        RecipeError: 4 bits are asked for without bitsandbytes or without a GPU.
    """
    if util.find_spec("peft") is None:
        raise MissingExtraError("`lora`", "lora")
    if settings.quantize == "none":
        return
    if util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            "`lora.quantize: nf4` needs bitsandbytes, which is not installed.",
            "pip install bitsandbytes, or set quantize to none.",
        )
    if not torch.cuda.is_available():
        raise RecipeError(
            "`lora.quantize: nf4` needs a GPU, and there is none.", "Set quantize to none."
        )


def attach_adapter(bundle: Bundle, settings: LoraSettings) -> None:
    """Add trainable adapters to the language model; other parameters stay trainable or frozen.

    Their first factor is random under torch's global seed, the second is zero.

    Raises:
        MissingExtraError: peft is absent.
        RecipeError: no layer has such a name, or 4 bits are not possible here.
    """
    check_adapters_possible(settings)
    from peft import inject_adapter_in_model
    from peft.tuners.lora.layer import Linear

    model: Any = bundle.model
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    names = adapted_layers(model, settings)
    if settings.quantize == "nf4":
        _quantize(model, names)
    inject_adapter_in_model(_config(settings, names), model, ADAPTER_NAME)
    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear:
            layer.__class__ = fused_linear()
    # On 4-bit layers peft makes the factors in the type that these compute with.
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            weight.data = weight.data.float()
    # peft freezes everything that is not an adapter.
    for weight in trainable:
        weight.requires_grad_(True)


class _AddProduct(torch.autograd.Function):
    """out += thin second^T in place: [N, out], [N, r] and [out, r], all of one type."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, thin: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(thin, second)
        ctx.mark_dirty(out)
        return out.addmm_(thin, second.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad,), (thin, second) = grads, ctx.saved_tensors
        # Both products read the wide gradient along its rows. In autograd's own order they read it
        # across, and take 2 and 7 times as long (1056 x 1536 and rank 8, one core).
        return grad, grad @ second.t().contiguous().t(), (thin.t() @ grad).t()


@cache
def fused_linear() -> Any:
    """peft's adapted linear layer W x + s B A x, as one pass over its wide output.

    peft makes B A x, its multiple s B A x and the sum one after another, each as wide as the
    output. Here s multiplies A x, and the product with B adds to W x in place. The layer has one
    adapter, and is neither merged nor disabled.
    """
    from peft.tuners.lora.layer import Linear

    class FusedLinear(Linear):
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """[..., in] -> [..., out]."""
            first: Any = self.lora_A[ADAPTER_NAME]
            second: Any = self.lora_B[ADAPTER_NAME]
            # In rows, because autograd copies where a view is changed in place.
            rows = x.flatten(0, -2)
            out = self.base_layer(rows)
            dropped = self.lora_dropout[ADAPTER_NAME](rows.to(first.weight.dtype))
            thin = first(dropped) * self.scaling[ADAPTER_NAME]
            # Autocast leaves operations in place alone.
            out = _AddProduct.apply(out, thin.to(out.dtype), second.weight.to(out.dtype))
            return out.unflatten(0, x.shape[:-1])

    return FusedLinear


def detach_adapter(bundle: Bundle, settings: LoraSettings) -> Callable[[Path], None]:
    """Merge the adapters into the weights and remove them. A 4-bit weight is dequantized first.

    Returns what writes them into a new folder, as peft's `adapter_config.json` and
    `adapter_model.safetensors`.
    """
    from peft.tuners.lora import LoraLayer

    model: Any = bundle.model
    connector = connector_modules(bundle)
    tensors = {
        f"base_model.model.{name.replace(f'.{ADAPTER_NAME}', '')}": tensor.cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name or name.startswith(tuple(f"{each}." for each in connector))
    }
    names = []
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            names.append(name)
            model.set_submodule(name, _merged(layer))

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = _config(settings, names, modules_to_save=connector, inference_mode=True)
        config.save_pretrained(folder)
        save_file(tensors, folder / "adapter_model.safetensors")

    return save


def adapted_layers(model: nn.Module, settings: LoraSettings) -> list[str]:
    """Names of the layers that get an adapter: every linear layer inside the language model, of
    which `target_modules` may choose some.

    Raises:
        RecipeError: it chooses none.
    """
    decoder: Any = model.get_decoder()  # type: ignore
    inside = {id(each) for each in decoder.modules() if isinstance(each, nn.Linear)}
    found = [name for name, each in model.named_modules() if id(each) in inside]
    if settings.target_modules is not None:
        found = [name for name in found if re.fullmatch(settings.target_modules, name)]
    if not found:
        raise RecipeError(
            f"`lora.target_modules` fits no linear layer of the language model: "
            f"{settings.target_modules!r}.",
            "Leave it out to adapt every linear layer.",
        )
    return found


def connector_modules(bundle: Bundle) -> list[str]:
    """Names of the outermost modules that hold nothing but weights of the connector.

    peft replaces a module as a whole, so a list of modules is named by its members, and a weight
    that stands beside modules (`image_newline` of LLaVA-NeXT) cannot be named at all.
    """
    own = {id(weight) for weight in bundle.part("connector")}
    found: list[str] = []
    for name, module in bundle.model.named_modules():
        weights = {id(weight) for weight in module.parameters()}
        inside = name.startswith(tuple(f"{each}." for each in found))
        is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
        if name and weights and weights <= own and not (inside or is_list):
            found.append(name)
    return found


def _config(settings: LoraSettings, names: list[str], **more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore
        lora_dropout=settings.dropout,
        target_modules=names,
        **more,
    )


@torch.no_grad()
def _merged(layer: Any) -> nn.Linear:
    """A plain linear layer with weight W + (alpha / rank) B A."""
    base = layer.get_base_layer()
    weight = base.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit  # type: ignore

        weight = dequantize_4bit(weight.data, weight.quant_state)
    delta = layer.get_delta_weight(ADAPTER_NAME)
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    plain.weight = nn.Parameter(weight.to(delta.dtype) + delta, requires_grad=False)
    if base.bias is not None:
        plain.bias = nn.Parameter(base.bias.detach(), requires_grad=False)
    return plain


def _quantize(model: nn.Module, names: list[str]) -> None:
    """Replace the linear layers of these names by 4-bit ones, quantized when moved to the GPU."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # type: ignore

    chosen = set(names)
    for prefix, parent in model.named_modules():
        for name, child in parent.named_children():
            path = f"{prefix}.{name}"
            if path.removeprefix(".") not in chosen:
                continue
            small = Linear4bit(
                child.in_features,
                child.out_features,
                bias=child.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
            )
            small.weight = Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
            small.bias = child.bias
            setattr(parent, name, small)
