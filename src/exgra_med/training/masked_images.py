"""A masked autoencoder around a CLIP vision tower: most patches are hidden, and drawn again.

Shapes: N images, C = 3 channels, P patches, V visible ones, D width of the tower.

Source: He et al., Masked Autoencoders Are Scalable Vision Learners (CVPR 2022). As there, the tower
sees only visible patches and a small decoder does the rest. Otherwise than there, pixels are not
normalised patch by patch: how bright a patch is must stay in the features.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from exgra_med.recipe.parts import MaskedImageSettings


class MaskedImageModel(nn.Module):
    """The tower that is kept and the decoder that is not.

    Args:
        config: the tower's sizes.
        settings: mask and decoder.
    """

    def __init__(self, config: CLIPVisionConfig, settings: MaskedImageSettings) -> None:
        super().__init__()
        self.tower: Any = CLIPVisionModel(config)
        self.patch_size: int = config.patch_size  # type: ignore
        self.num_patches = (config.image_size // self.patch_size) ** 2  # type: ignore
        self.num_visible = max(1, round(self.num_patches * (1 - settings.mask_fraction)))
        width = settings.decoder_hidden_size
        self.enter = nn.Linear(config.hidden_size, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(0.02 * torch.randn(self.num_patches, width))
        layer = nn.TransformerEncoderLayer(
            width,
            settings.decoder_num_heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerEncoder(
            layer, settings.decoder_num_layers, enable_nested_tensor=False
        )
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, 3 * self.patch_size**2)

    def forward(self, pixels_NCHW: Tensor, order_NP: Tensor) -> Tensor:
        """Mean squared error of the hidden patches.

        Args:
            pixels_NCHW: images as the tower's processor makes them.
            order_NP: for each image its patches in random order; the first V are visible.
        """
        seen_NVD = self.encode_visible(pixels_NCHW, order_NP[:, : self.num_visible])
        drawn_NPX = self.decode(seen_NVD, order_NP)
        hidden_NM = order_NP[:, self.num_visible :]
        wanted_NMX = _take(patches_of(pixels_NCHW, self.patch_size), hidden_NM)
        return (_take(drawn_NPX, hidden_NM) - wanted_NMX).square().mean()

    def encode_visible(self, pixels_NCHW: Tensor, visible_NV: Tensor) -> Tensor:
        """Last hidden states [N, V, D] of the visible patches; the class token joins in."""
        tower = self.tower
        embedded = tower.embeddings(pixels_NCHW)
        kept = torch.cat([embedded[:, :1], _take(embedded[:, 1:], visible_NV)], dim=1)
        states = tower.encoder(inputs_embeds=tower.pre_layrnorm(kept)).last_hidden_state
        return states[:, 1:]

    def decode(self, seen_NVD: Tensor, order_NP: Tensor) -> Tensor:
        """Pixels [N, P, 3 * patch * patch] of all patches in their places."""
        number, visible = seen_NVD.shape[:2]
        hidden = self.hidden.expand(number, self.num_patches - visible, -1)
        shuffled = torch.cat([self.enter(seen_NVD), hidden], dim=1)
        placed = _take(shuffled, order_NP.argsort(dim=1)) + self.position
        return self.draw(self.norm(self.decoder(placed)))


def patches_of(pixels_NCHW: Tensor, patch_size: int) -> Tensor:
    """Pixels of every patch, [N, P, 3 * patch * patch], in the tower's order: row by row."""
    unfolded = nn.functional.unfold(pixels_NCHW, patch_size, stride=patch_size)
    return unfolded.transpose(1, 2)


def _take(values_NPD: Tensor, places_NV: Tensor) -> Tensor:
    return values_NPD.gather(1, places_NV.unsqueeze(-1).expand(-1, -1, values_NPD.shape[-1]))
