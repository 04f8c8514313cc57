"""The vision tower of a CLIP or BiomedCLIP repository: configuration, weights, preprocessing.

BiomedCLIP's tower is a ViT under timm's names, read without open_clip or timm. The original takes
its features from the outputs of the blocks, numbered from 0: block i is hidden state i + 1, and the
means of `dci` are over `num_l` blocks each.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, ViTConfig, ViTModel

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import CONFIG, key_problems, quiet, read_json_object, refuse
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.processor import clip_image_processor
from exgra_med.recipe.run_folder import check_checkpoint

OPEN_CLIP_CONFIG = "open_clip_config.json"
WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TRUNK = "visual.trunk."
HEAD_WIDTH = 64
"""Channels of one attention head of every timm ViT."""

NAMES_OUTSIDE_BLOCKS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
NAMES_INSIDE_BLOCKS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
QUERY_KEY_VALUE = ("query", "key", "value")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


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
    settings = read_json_object(folder / OPEN_CLIP_CONFIG).get("preprocess_cfg", {})
    given = {f"image_{key}": settings[key] for key in ("mean", "std") if key in settings}
    return config, dict(tower.state_dict()), given


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
    # The pooler of transformers' ViT is not used; zeros make imports reproducible.
    renamed = {
        "pooler.dense.weight": torch.zeros(width, width),
        "pooler.dense.bias": torch.zeros(width),
    }
    for name, tensor in trunk.items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            renamed[NAMES_OUTSIDE_BLOCKS.get(name, name)] = tensor
            continue
        block, part, end = match.groups()
        if part == "attn.qkv":
            for kind, piece in zip(QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
                target = f"encoder.layer.{block}.attention.attention.{kind}.{end}"
                renamed[target] = piece.contiguous()
        else:
            renamed[f"encoder.layer.{block}.{NAMES_INSIDE_BLOCKS.get(part, part)}.{end}"] = tensor
    return renamed


TOWER_PREFIX = "vision_model."
IGNORED_SUFFIX = "embeddings.position_ids"
"""A buffer that older versions saved."""


@dataclass
class VisionSource:
    """A vision tower as it was read; weights are named as the tower names them."""

    config: Any
    weights: dict[str, Tensor]
    image_processor: CLIPImageProcessorPil
    first_layer: int = 0
    """The hidden state that the original counts as its first when it averages layers."""

    @property
    def num_patches(self) -> int:
        """Visual tokens of one image."""
        return (self.config.image_size // self.config.patch_size) ** 2


def read_vision(folder: Path) -> VisionSource:
    """Read the tower from a complete CLIP model or from a vision tower alone.

    Raises:
        CheckpointError: the folder holds another kind of model, or no vision weights.
        DamagedFileError: it has the SHA-256 of its files, and one is not what was written.
    """
    check_checkpoint(folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        vit, named, settings = read_open_clip(folder)
        return VisionSource(
            vit, named, clip_image_processor(vit.image_size, **settings), first_layer=1
        )
    config = read_json_object(folder / CONFIG)
    kind = config.get("model_type")
    if kind == "clip":
        config = config.get("vision_config") or {}
    elif kind != "clip_vision_model":
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, not a CLIP vision tower.",
            "The original's checkpoints need openai/clip-vit-large-patch14; `connector: mlp` of "
            "`model.parts` joins other towers.",
        )
    # A tower alone has names without the prefix where transformers 5.23 saved it.
    named = read_weights(weight_files(folder))
    alone = kind == "clip_vision_model" and not any(name.startswith(TOWER_PREFIX) for name in named)
    prefix = "" if alone else TOWER_PREFIX
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in named.items()
        if name.startswith(prefix) and not name.endswith(IGNORED_SUFFIX)
    }
    if not weights:
        raise CheckpointError(f"{folder} has no tensor whose name begins with {TOWER_PREFIX}")
    vision: Any = CLIPVisionConfig.from_dict(config)
    return VisionSource(vision, weights, read_image_processor(folder, vision.image_size))


def read_image_processor(folder: Path, image_size: int) -> CLIPImageProcessorPil:
    """The preprocessing of the tower; CLIP's own where the folder does not say."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return clip_image_processor(image_size)
    stored = read_json_object(path)
    changes: dict[str, Any] = {
        name: stored[name] for name in ("image_mean", "image_std", "resample") if name in stored
    }
    size, crop = stored.get("size"), stored.get("crop_size")
    changes["size"] = {"shortest_edge": size} if isinstance(size, int) else size
    changes["crop_size"] = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    given = {name: value for name, value in changes.items() if value is not None}
    return clip_image_processor(image_size, **given)
