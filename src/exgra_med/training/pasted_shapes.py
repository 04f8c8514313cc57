"""What an image tower learns from pictures without labels: to find shapes pasted into them.

Random blobs, bars, stars and rings are laid over a picture, lighter or darker than what is there.
From the features of each patch a linear map draws what was pasted in and around that patch, so
place, size, outline and contrast of small things must be in the features. No text is read, and the
shapes are not those of any data set.

Shapes: N images, C = 3 channels, H x W pixels, P patches, D width of the tower, S pasted shapes.

Source: restoring corrupted pictures (Zhou et al., Models Genesis, MICCAI 2019) with corruptions
that look like findings (Li et al., CutPaste, CVPR 2021). Masked patches were tried first and gave
features that knew modality and region but no lesion (docs/log.md).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from exgra_med.recipe.parts import PastedShapesSettings

LOBES = (0, 2, 3, 4)
"""Lobes of an outline: a disc, a bar, a wedge, a star."""


class PastedShapesModel(nn.Module):
    """The tower that is kept and the linear map that is not.

    Args:
        config: the tower's sizes.
    """

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.tower: Any = CLIPVisionModel(config)
        self.patch_size: int = config.patch_size  # type: ignore
        self.draw = nn.Linear(config.hidden_size, (3 * self.patch_size) ** 2)

    def forward(self, pixels_NCHW: Tensor, pasted_NHW: Tensor) -> Tensor:
        """Mean squared error of the drawn windows, relative to drawing nothing.

        Args:
            pixels_NCHW: pictures with the shapes pasted in.
            pasted_NHW: what was added to every channel.
        """
        features_NPD = self.tower(pixels_NCHW).last_hidden_state[:, 1:]
        wanted_NPX = windows(pasted_NHW, self.patch_size)
        error = (self.draw(features_NPD) - wanted_NPX).square().mean()
        return error / wanted_NPX.square().mean().clamp(min=1e-6)


def windows(values_NHW: Tensor, patch_size: int) -> Tensor:
    """Each patch with the eight around it, [N, P, 9 * patch * patch]; 0 beyond the border."""
    unfolded = nn.functional.unfold(
        values_NHW.unsqueeze(1), 3 * patch_size, padding=patch_size, stride=patch_size
    )
    return unfolded.transpose(1, 2)


def draw_shapes(
    number: int, pixels: int, settings: PastedShapesSettings, generator: torch.Generator
) -> Tensor:
    """What is added to each of `number` pictures, [N, H, W]; shapes that overlap add up.

    Args:
        number: pictures.
        pixels: side of a picture.
        settings: how many shapes, how large, of what contrast.
        generator: source of everything random.
    """

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(number, settings.max_shapes, 1, 1, generator=generator)
        return low + (high - low) * drawn

    middle = (torch.arange(pixels) + 0.5) / pixels
    x = middle.view(1, 1, 1, -1) - uniform(0.1, 0.9)
    y = middle.view(1, 1, -1, 1) - uniform(0.1, 0.9)
    radius = uniform(settings.min_radius, settings.max_radius)
    lobes = torch.tensor(LOBES)[(len(LOBES) * uniform(0, 1)).long()]
    angle = torch.atan2(y, x) + uniform(-math.pi, math.pi)
    outline = radius * (1 + 0.55 * (lobes > 0) * torch.cos(lobes * angle))
    distance = torch.hypot(x, y)
    cover = _inside(outline - distance, pixels)
    # Every fourth shape is a ring.
    hole = _inside(0.55 * outline - distance, pixels) * (uniform(0, 1) < 0.25)
    sign = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    level = sign * uniform(settings.min_contrast, settings.max_contrast)
    present = uniform(0, 1) < 0.7
    return (level * present * (cover - hole)).sum(dim=1)


def _inside(depth: Tensor, pixels: int) -> Tensor:
    """How much of a pixel lies inside, from its depth below the outline: 0..1."""
    return (0.5 + depth * pixels).clamp(0, 1)
