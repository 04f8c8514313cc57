"""BiomedCLIP's vision tower, read without open_clip or timm: a ViT under other names.

The original takes its features from the blocks' outputs, numbered from 0: block i is hidden state
i + 1, and the means of `dci` are over `num_l` blocks each.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ViTConfig, ViTModel

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import key_problems, quiet, refuse
from exgra_med.model.convert.weights import read_weights
from exgra_med.model.folder import read_json

CONFIG_NAMES = ("open_clip_config.json",)
WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TRUNK = "visual.trunk."
HEAD_WIDTH = 64
"""Channels of one attention head of every timm ViT."""

OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
INSIDE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
QUERY_KEY_VALUE = ("query", "key", "value")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


def is_open_clip(folder: Path) -> bool:
    """Whether a folder is an open_clip repository."""
    return any((folder / name).is_file() for name in CONFIG_NAMES)


def read_open_clip(folder: Path) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """Configuration, weights as transformers' ViT names them, and the preprocessing's settings.

    Raises:
        CheckpointError: the tower is not a timm ViT; names every tensor that does not fit.
    """
    path = next((folder / name for name in WEIGHT_NAMES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder} has neither {' nor '.join(WEIGHT_NAMES)}.")
    trunk = {
        name.removeprefix(TRUNK): tensor
        for name, tensor in read_weights([path]).items()
        if name.startswith(TRUNK)
    }
    config = _config(trunk, path)
    renamed = _rename(trunk, config.hidden_size)
    with quiet():
        loaded: Any = ViTModel.from_pretrained(
            None,
            config=config,
            state_dict=renamed,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    tower, report = loaded
    refuse(folder, key_problems(report))
    settings = read_json(folder / CONFIG_NAMES[0]).get("preprocess_cfg", {})
    names = {"mean": "image_mean", "std": "image_std"}
    return (
        config,
        dict(tower.state_dict()),
        {names[key]: value for key, value in settings.items() if key in names},
    )


def _config(trunk: dict[str, Tensor], path: Path) -> ViTConfig:
    try:
        width, _, patch_size, _ = trunk["patch_embed.proj.weight"].shape
        num_patches = trunk["pos_embed"].shape[1] - 1
        intermediate = trunk["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no timm ViT under {TRUNK}") from error
    blocks = {int(match[1]) for name in trunk if (match := _BLOCK.fullmatch(name))}
    return ViTConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=len(blocks),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        patch_size=patch_size,
        image_size=round(num_patches**0.5) * patch_size,
        layer_norm_eps=1e-6,
        hidden_act="gelu",
    )


def _rename(trunk: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    # The pooler of transformers' ViT is never read; zeros keep two imports equal.
    renamed = {
        "pooler.dense.weight": torch.zeros(width, width),
        "pooler.dense.bias": torch.zeros(width),
    }
    for name, tensor in trunk.items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            renamed[OUTSIDE.get(name, name)] = tensor
            continue
        block, part, end = match.groups()
        if part == "attn.qkv":
            for kind, piece in zip(QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
                target = f"encoder.layer.{block}.attention.attention.{kind}.{end}"
                renamed[target] = piece.contiguous()
        else:
            renamed[f"encoder.layer.{block}.{INSIDE.get(part, part)}.{end}"] = tensor
    return renamed
