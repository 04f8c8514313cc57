"""Configuration of the native model: stock LLaVA plus the dense connector."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import LlavaConfig

from exgra_med.errors import CheckpointError


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
    """The groups of hidden states whose means are joined along the channels, in order.

    Args:
        config: its `vision_feature_layer` may be a list, as in a folded export.

    Returns:
        Groups of non-negative indices into `hidden_states`.

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
