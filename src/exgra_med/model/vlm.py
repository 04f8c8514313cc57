"""The native model: stock LLaVA whose projector may read several vision layers.

Shapes: N images, C = 3 channels, H x W pixels, P visual tokens, B rows, T text positions, D width
of the language model.
"""

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from exgra_med.errors import DataError
from exgra_med.model.config import ExgraConfig, connector_layers
from exgra_med.model.connector import connect


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
        """Training mode for what learns; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.vision_tower.parameters()):
            self.vision_tower.eval()
        return self


class ExgraForConditionalGeneration(LlavaForConditionalGeneration):
    """The model that is trained and asked; its `forward` and `generate` are stock LLaVA's."""

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

        A row without placeholders takes nothing, so text-only rows cannot shift the images.

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
