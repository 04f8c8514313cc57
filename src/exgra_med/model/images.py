"""Images -> pixel values, the same for training and for asking."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from exgra_med.model.bundle import Bundle


def pixel_values(bundle: Bundle, images: Sequence[Image.Image]) -> Tensor:
    """Preprocess images as the original does: RGB, resize, centre crop, normalise.

    Args:
        bundle: whose image processor to use.
        images: any mode and size.

    Returns:
        [N, 3, H, W] float32; [0, 3, H, W] for no image.
    """
    if not images:
        size = bundle.model.config.vision_config.image_size
        return torch.empty(0, 3, size, size)
    rgb = [image.convert("RGB") for image in images]
    return bundle.image_processor(rgb, return_tensors="pt")["pixel_values"]
