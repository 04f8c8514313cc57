"""The model: stock LLaVA whose projector may read several vision layers (dense connector).

Shapes: N images, C = 3 channels, H x W pixels, P visual tokens, B rows, T text positions, D width
of the language model.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from exgra_med.errors import CheckpointError, DataError


@strict
class ExgraConfig(LlavaConfig):
    """Stock `LlavaConfig` with a connector.

    `connector` says which hidden states h_l of the vision tower reach the projector, joined along
    the channels (h_0 is the embedding output, `s` is `vision_feature_layer`):

    * `none`: h_s
    * `dci`: h_s, mean of h_0..h_{k-1}, mean of h_k..h_{2k-1}, with k = `connector_split`
    * `sci`: h_s, h_7, h_15

    `connector_first_layer` shifts the two means of `dci` (1 where the original numbers blocks
    instead of hidden states, as for BiomedCLIP).
    """

    model_type = "exgra_llava"

    vision_config: Any = None
    text_config: Any = None

    connector: Literal["none", "dci", "sci", "sti"] = "none"
    connector_split: int = 12
    connector_first_layer: int = 0

    def __post_init__(self, **kwargs):
        if self.connector == "sti":
            raise CheckpointError(
                "The connector `sti` is not supported: it makes 320 visual tokens for the 256 "
                "placeholders of the text, and its own check stops it in the original too.",
                "Use `none`, `dci` or `sci`.",
            )
        super().__post_init__(**kwargs)


SCI_LAYERS = (7, 15)


def connector_layers(config: ExgraConfig) -> list[list[int]]:
    """The groups of hidden states whose means are joined along the channels, in order, as
    non-negative indices. `vision_feature_layer` may be a list, as in a folded export.

    Raises:
        CheckpointError: the tower has too few layers.
    """
    num_states = config.vision_config.num_hidden_layers + 1
    chosen = config.vision_feature_layer
    groups = [[layer] for layer in (chosen if isinstance(chosen, list) else [chosen])]
    if config.connector == "sci":
        groups += [[layer] for layer in SCI_LAYERS]
    if config.connector == "dci":
        first, split = config.connector_first_layer, config.connector_split
        groups += [list(range(first + i * split, first + (i + 1) * split)) for i in (0, 1)]
    for layer in (layer for group in groups for layer in group):
        if not -num_states <= layer < num_states:
            raise CheckpointError(
                f"The connector reads hidden state {layer}, but the vision tower has {num_states}.",
                "Choose another connector, or lower `connector_split`.",
            )
    return [[layer % num_states for layer in group] for group in groups]


def connect(hidden_states: Sequence[Tensor], layers: list[list[int]], keep_first: bool) -> Tensor:
    """The dense connector: mean over each group of layers, groups joined along the channels.

    Args:
        hidden_states: per layer [N, T, D_vision]; T counts the class token, where there is one.
        layers: groups of indices into `hidden_states`.
        keep_first: keep the first token; otherwise it is the class token and dropped.

    Returns:
        [N, P, groups * D_vision]. Means are taken in float32.
    """
    begin = 0 if keep_first else 1
    parts = []
    for group in layers:
        if len(group) == 1:
            parts.append(hidden_states[group[0]][:, begin:])
        else:
            stack = torch.stack([hidden_states[layer][:, begin:] for layer in group])
            parts.append(stack.float().mean(0).to(stack.dtype))
    return torch.cat(parts, -1)


class ExgraModel(LlavaModel):
    """Vision tower, connector, projector and language model, without the language-model head."""

    config: ExgraConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: ExgraConfig) -> None:
        super().__init__(config)
        self.layers = connector_layers(config)
        width = config.vision_config.hidden_size * len(self.layers)
        if width != self.multi_modal_projector.linear_1.in_features:
            self.multi_modal_projector.linear_1 = nn.Linear(
                width, config.text_config.hidden_size, bias=config.multimodal_projector_bias
            )
            self.post_init()

    def vision_features(self, pixel_values_NCHW: Tensor) -> Tensor:
        """What the connector hands to the projector, [N, P, D_connector]; a frozen tower is not
        differentiated."""
        frozen = not any(weight.requires_grad for weight in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            states = self.vision_tower(
                pixel_values_NCHW, output_hidden_states=True, return_dict=True
            ).hidden_states
            keep_first = self.config.vision_feature_select_strategy == "full"
            return connect(states, self.layers, keep_first)

    def get_image_features(self, pixel_values: Tensor, **_) -> BaseModelOutputWithPooling:
        """Projected features in the form that stock LLaVA and its servers expect."""
        features_NPD = self.multi_modal_projector(self.vision_features(pixel_values))
        return BaseModelOutputWithPooling(pooler_output=list(features_NPD))  # type: ignore

    def train(self, mode: bool = True) -> "ExgraModel":
        """Training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.vision_tower.parameters()):
            self.vision_tower.eval()
        return self


class ExgraForConditionalGeneration(LlavaForConditionalGeneration):
    """The model of training and inference; `forward` and `generate` are those of stock LLaVA."""

    config: ExgraConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: ExgraConfig) -> None:
        # Stock's own constructor would first build, and throw away, a second language model.
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = ExgraModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False
        )
        self.post_init()

    def image_features(self, pixel_values_NCHW: Tensor) -> Tensor:
        """Projected visual tokens [N, P, D] of images [N, 3, H, W]."""
        return torch.stack(list(self.model.get_image_features(pixel_values_NCHW).pooler_output))

    def insert_images(self, input_ids_BT: Tensor, features_NPD: Tensor | None) -> Tensor:
        """Text embeddings [B, T, D] with visual tokens at the placeholders, in reading order.

        Args:
            input_ids_BT: token ids.
            features_NPD: from `image_features`; none where no row has an image.

        A row without placeholders uses no image, so text-only rows cannot shift the images.

        Raises:
            DataError: the number of placeholders is not N * P.
        """
        embeds_BTD = self.get_input_embeddings()(input_ids_BT)
        places_BT = input_ids_BT == self.config.image_token_id
        num_images, per_image = features_NPD.shape[:2] if features_NPD is not None else (0, 0)
        if int(places_BT.sum()) != num_images * per_image:
            raise DataError(
                f"The texts have {int(places_BT.sum())} image placeholders, but the "
                f"{num_images} images have {num_images * per_image} visual tokens."
            )
        if features_NPD is None:
            return embeds_BTD
        return embeds_BTD.masked_scatter(places_BT.unsqueeze(-1), features_NPD.to(embeds_BTD.dtype))


AutoConfig.register(ExgraConfig.model_type, ExgraConfig)
AutoModelForImageTextToText.register(ExgraConfig, ExgraForConditionalGeneration)
AutoProcessor.register(ExgraConfig, LlavaProcessor)
