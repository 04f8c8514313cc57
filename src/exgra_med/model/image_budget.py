"""What an image costs in tokens, measured with a model's processor alone, and a lower budget.

A budget changes the processor itself, so what is saved with a checkpoint keeps it, and whoever
loads the folder sees images as training did. It is found by the settings that a processor has,
never by the name of a family:

    max_pixels    `size` with a smallest and a largest number of pixels (Qwen-VL, GLM-V), or with a
                  longest edge alone (Pixtral, Mistral 3)
    tiles         `max_patches` (InternVL), `max_tiles` (LFM2-VL), `image_grid_pinpoints`
                  (LLaVA-NeXT, OneVision), a longest edge in tiles (Idefics 3, SmolVLM), crops
                  (Gemma 3 with pan and scan)
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from exgra_med.alignment.image_nodes import image_token_id
from exgra_med.data.records import Turn
from exgra_med.errors import RecipeError
from exgra_med.model.chat_text import PROCESSOR_ERRORS, ChatText, not_taken
from exgra_med.recipe.schema import ImageSettings

LARGE = (1600, 1200)
"""Width and height of the picture on which a budget is tried."""


@dataclass(frozen=True)
class ImageCost:
    """What one image costs; means where it stands for several."""

    tokens: float
    """Image placeholders in the text: the vectors that enter the language model."""
    length: float
    """Tokens in the text, with the markers around and between them."""
    patches: float
    """Patches that the vision tower sees, a class token among them; as many as tokens where the
    configuration does not say how large a patch is."""


def image_cost(processor: Any, config: Any, size: tuple[int, int]) -> ImageCost:
    """The cost of an image of a width and height, measured on a blank one.

    Raises:
        CheckpointError: the processor has no chat template.
        DataError: it does not take an image of that size.
    """
    chat, turns = ChatText(processor), [Turn(role="user", text="?")]
    picture = Image.new("RGB", size)
    try:
        seen = processor(text=[chat.prompt(turns, 1)], images=[[picture]], return_tensors="pt")
    except PROCESSOR_ERRORS as error:
        raise not_taken(processor, [size], error) from error
    plain = processor(text=[chat.prompt(turns)], return_tensors="pt")
    tokens = int((seen["input_ids"] == image_token_id(config)).sum())
    vision = getattr(config, "vision_config", None)
    side = getattr(vision, "patch_size", None)
    side = side[0] if isinstance(side, list | tuple) else side
    pixels = [
        value
        for name, value in seen.items()
        if isinstance(value, Tensor) and value.is_floating_point() and "mask" not in name
    ]
    # A patch holds three channels; of a still picture some towers see two frames.
    numbers = 3 * (side or 1) ** 2 * getattr(vision, "temporal_patch_size", 1)
    return ImageCost(
        tokens=tokens,
        length=seen["input_ids"].shape[1] - plain["input_ids"].shape[1],
        patches=sum(each.numel() for each in pixels) / numbers if side else tokens,
    )


def fixed_cost(config: Any) -> ImageCost:
    """The cost of an image by the configuration alone: exact for this project's own model and for
    joined ones, whose images are all of one size, and an assumption for any other."""
    said = (getattr(config, name, None) for name in ("image_seq_length", "mm_tokens_per_image"))
    tokens = next((each for each in said if each), ASSUMED_TOKENS)
    joined = getattr(config, "downsample_factor", 1)
    return ImageCost(tokens, tokens + 2, tokens * joined**2 + 1)


ASSUMED_TOKENS = 576
"""Of an image where neither processor nor configuration says it."""


def set_image_budget(processor: Any, config: Any, images: ImageSettings) -> None:
    """Change a processor so that an image has fewer tokens; given twice, it is as given once.

    The configuration is changed too where the model reads the same setting from it.

    Raises:
        RecipeError: the processor has no such setting, or the budget is larger than its own.
    """
    tried = copy.deepcopy(processor), copy.deepcopy(config)
    asked = {name: most for name in SETTINGS if (most := getattr(images, name)) is not None}
    for name, most in asked.items():
        if not SETTINGS[name](*tried, most):
            raise _no_setting(name, *tried)
    before, after = image_cost(processor, config, LARGE), image_cost(*tried, LARGE)
    if after.length > before.length:
        raise RecipeError(
            f"`model.images` would give a large image {after.length:.0f} tokens, and the model's "
            f"own setting is {before.length:.0f}: a budget makes images smaller.",
            "Lower it, or leave `model.images` out.",
        )
    for name, most in asked.items():
        SETTINGS[name](processor, config, most)


def _set_pixels(processor: Any, config: Any, most: int) -> bool:
    """Set the most pixels of an image; false where the processor has no such setting."""
    own = processor.image_processor
    size = _given(own.size)
    if size.keys() == {"shortest_edge", "longest_edge"}:
        # Under these names, but numbers of pixels.
        own.size = {"shortest_edge": min(size["shortest_edge"], most), "longest_edge": most}
        return True
    if size.keys() == {"longest_edge"} and hasattr(processor, "patch_size"):
        # Edges are rounded up to whole patches, so the longest one is given in whole patches.
        patch = processor.patch_size * getattr(processor, "spatial_merge_size", 1)
        own.size = {"longest_edge": max(patch, math.isqrt(most) // patch * patch)}
        return True
    return False


def _set_tiles(processor: Any, config: Any, most: int) -> bool:
    """Set the most tiles of an image; false where the processor has no such setting."""
    own = processor.image_processor
    if getattr(own, "crop_to_patches", False):
        own.max_patches, own.min_patches = most, min(own.min_patches, most)
        return True
    if getattr(own, "max_tiles", None):
        own.max_tiles, own.min_tiles = most, min(own.min_tiles, most)
        own.do_image_splitting = own.do_image_splitting and most > 1
        return True
    if getattr(own, "image_grid_pinpoints", None):
        side = _tile_side(own)
        kept = _within(own.image_grid_pinpoints, side, most)
        own.image_grid_pinpoints = kept
        config.image_grid_pinpoints = kept
        return True
    if getattr(own, "max_image_size", None) and getattr(own, "do_image_splitting", False):
        side = _given(own.max_image_size)["longest_edge"]
        # A square image of n x n tiles is the largest one with that longest edge.
        own.size = {"longest_edge": math.isqrt(most) * side}
        return True
    if getattr(own, "do_pan_and_scan", False):
        own.pan_and_scan_max_num_crops = most
        return True
    return False


SETTINGS = {"max_pixels": _set_pixels, "tiles": _set_tiles}


def _within(grid: Sequence[Sequence[int]], side: int, most: int) -> list[list[int]]:
    """The sizes of a grid that have at most so many tiles.

    Raises:
        RecipeError: none has.
    """
    tiles = [-(-height // side) * -(-width // side) for height, width in grid]
    kept = [list(each) for each, count in zip(grid, tiles, strict=True) if count <= most]
    if not kept:
        raise RecipeError(
            f"`model.images.tiles: {most}`: the fewest tiles of this processor are {min(tiles)}.",
            "Raise it.",
        )
    return kept


def _tile_side(image_processor: Any) -> int:
    size = _given(image_processor.crop_size or image_processor.size)
    return size.get("height") or size["shortest_edge"]


def _given(size: Any) -> dict[str, int]:
    """What of a size is given."""
    return {name: value for name, value in dict(size).items() if value is not None}


def _no_setting(name: str, processor: Any, config: Any) -> RecipeError:
    own = processor.image_processor
    size = _given(getattr(own, "crop_size", None) or own.size)
    others = [each for each in SETTINGS if each != name and SETTINGS[each](processor, config, 16)]
    what = "has another setting for its images" if others else "has no such setting"
    if size.keys() >= {"height", "width"} and not others:
        what = f"resizes every image to {size['width']} x {size['height']}"
    return RecipeError(
        f"`model.images.{name}` does not go with this model, whose processor {what}.",
        f"Use `model.images.{others[0]}`." if others else "Leave it out.",
    )
