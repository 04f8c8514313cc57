"""Our model -> stock LLaVA: the connector is folded into a list of vision layers."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from exgra_med.data.chat_template import IMAGE_END, STOP
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import quiet, save_processor
from exgra_med.model.native import NATIVE_KEYS, NativeBundle, connector_layers

FIRST = "model.multi_modal_projector.linear_1.weight"
SECOND = "model.multi_modal_projector.linear_2.weight"


def fold(weight: Tensor, groups: list[list[int]]) -> tuple[list[int], Tensor]:
    """Spread a projection of group means over the layers themselves.

    W_1 mean(h_a, h_b) + W_2 h_b = (W_1 / 2) h_a + (W_1 / 2 + W_2) h_b, in float64 before rounding.

    Args:
        weight: [out, groups * D].
        groups: layers whose mean each block of D channels reads.

    Returns:
        The layers, ascending and each once, and the weight [out, layers * D].
    """
    blocks = weight.double().chunk(len(groups), dim=1)
    layers = sorted({layer for group in groups for layer in group})
    folded = {layer: torch.zeros_like(blocks[0]) for layer in layers}
    for group, block in zip(groups, blocks, strict=True):
        for layer in group:
            folded[layer] += block / len(group)
    return layers, torch.cat([folded[layer] for layer in layers], 1).to(weight.dtype)


def split_linear(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A linear projector for servers that know only GELU: gelu(x) - gelu(-x) = x.

    Raises:
        CheckpointError: the language model is narrower than twice the projector's input.
    """
    linear = weights[FIRST]
    width, channels = linear.shape
    if 2 * channels > width:
        raise CheckpointError(
            f"A linear projector of {channels} channels cannot be exported: it would need a "
            f"language model of width {2 * channels}, this one has {width}."
        )
    eye = torch.eye(channels, dtype=linear.dtype)
    first, second = torch.zeros_like(linear), torch.zeros(width, width, dtype=linear.dtype)
    first[:channels], first[channels : 2 * channels] = eye, -eye
    second[:, :channels], second[:, channels : 2 * channels] = linear, -linear
    bias = FIRST.replace("weight", "bias")
    return weights | {
        FIRST: first,
        bias: torch.zeros_like(weights[bias]),
        SECOND: second,
        SECOND.replace("weight", "bias"): weights[bias],
    }


def stop_ids(bundle: NativeBundle) -> list[int]:
    """Ids that end a turn for a server that knows only single tokens: the end of sequence, and the
    first piece of `###` after a newline, a blank, a word and an image.

    A heading that begins with the same piece ends the turn too.
    """
    ids = {bundle.tokenizer.eos_token_id}
    for before in ("a\n", "a ", "a", IMAGE_END):
        encoded = bundle.tokenizer(before + STOP, add_special_tokens=False)["input_ids"]
        pieces = bundle.tokenizer.convert_ids_to_tokens(encoded)
        ids.add(next(i for i, piece in zip(encoded, pieces, strict=True) if "#" in piece))
    return sorted(ids)


def write_stock(bundle: NativeBundle, fresh: Path) -> None:
    """Write the same function as a stock LLaVA model into an empty folder, which plain
    transformers, and any server built on it, loads.

    Raises:
        CheckpointError: the projector cannot be expressed.
    """
    config = bundle.model.config
    weights = dict(bundle.model.state_dict())
    values = config.to_dict()
    if config.projector_hidden_act == "linear":
        weights = split_linear(weights)
        values["projector_hidden_act"] = "gelu"
    groups = connector_layers(config)
    if config.connector != "none":
        values["vision_feature_layer"], weights[FIRST] = fold(weights[FIRST], groups)
    elif groups == [[0]]:
        values["vision_feature_layer"] = [0]  # some versions read the integer 0 as "none"
    kept = {name: value for name, value in values.items() if name not in NATIVE_KEYS}
    stock = LlavaConfig.from_dict(kept | {"model_type": LlavaConfig.model_type})
    with quiet():
        model = LlavaForConditionalGeneration.from_pretrained(
            None, config=stock, state_dict=weights, dtype=bundle.model.dtype
        )
    model.generation_config = GenerationConfig(
        bos_token_id=bundle.tokenizer.bos_token_id,
        pad_token_id=bundle.pad_token_id,
        eos_token_id=stop_ids(bundle),
        do_sample=False,
    )
    with quiet():
        model.save_pretrained(fresh)
        save_processor(bundle.processor, fresh)
