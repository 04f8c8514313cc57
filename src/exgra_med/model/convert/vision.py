"""The vision tower of a CLIP or BiomedCLIP repository: configuration, weights, preprocessing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig

from exgra_med.errors import CheckpointError
from exgra_med.model.convert.biomedclip import is_open_clip, read_open_clip
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.folder import CONFIG, read_json
from exgra_med.model.processor import clip_image_processor

PREFIX = "vision_model."
IGNORED = "embeddings.position_ids"
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
    """
    if is_open_clip(folder):
        vit, named, settings = read_open_clip(folder)
        processor = clip_image_processor(vit.image_size)
        kept = {name: getattr(processor, name) for name in ("size", "crop_size")}
        return VisionSource(vit, named, CLIPImageProcessorPil(**(kept | settings)), first_layer=1)
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind == "clip":
        config = config.get("vision_config") or {}
    elif kind != "clip_vision_model":
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, not a CLIP vision tower.",
            "The original's checkpoints need openai/clip-vit-large-patch14.",
        )
    # A tower alone has names without the prefix where transformers 5.23 saved it.
    named = read_weights(weight_files(folder))
    alone = kind == "clip_vision_model" and not any(name.startswith(PREFIX) for name in named)
    prefix = "" if alone else PREFIX
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in named.items()
        if name.startswith(prefix) and not name.endswith(IGNORED)
    }
    if not weights:
        raise CheckpointError(f"{folder} has no tensor whose name begins with {PREFIX}")
    vision: Any = CLIPVisionConfig.from_dict(config)
    return VisionSource(vision, weights, read_image_processor(folder, vision.image_size))


def read_image_processor(folder: Path, image_size: int) -> CLIPImageProcessorPil:
    """The preprocessing of the tower; CLIP's own where the folder does not say."""
    processor = clip_image_processor(image_size)
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return processor
    stored = read_json(path)
    changes: dict[str, Any] = {
        name: stored[name] for name in ("image_mean", "image_std", "resample") if name in stored
    }
    size, crop = stored.get("size"), stored.get("crop_size")
    changes["size"] = {"shortest_edge": size} if isinstance(size, int) else size
    changes["crop_size"] = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    given = {name: value for name, value in changes.items() if value is not None}
    kept = {name: getattr(processor, name) for name in ("size", "crop_size")}
    return CLIPImageProcessorPil(**(kept | given))
