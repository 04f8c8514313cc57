"""What a run starts from: sizes, trained parts, or a checkpoint."""

from typing import Literal

from pydantic import model_validator

from exgra_med.recipe.section import Count, Section


class VisionArchitecture(Section):
    """A CLIP vision tower built from its sizes."""

    hidden_size: Count = 1024
    """Width of a token, and of what the projector reads."""
    intermediate_size: Count = 4096
    """Width inside the feed-forward part of a layer."""
    num_layers: Count = 24
    """Transformer layers; DCI reads from several of them."""
    num_heads: Count = 16
    """Attention heads of a layer; they divide its width."""
    image_size: Count = 224
    """Pixels along each side of the square image that the tower sees."""
    patch_size: Count = 14
    """Pixels along each side of one patch."""
    feature_layer: int = -2
    """Which hidden state feeds the projector; -2 is the paper's."""


class LanguageArchitecture(Section):
    """A LLaMA language model built from its sizes."""

    hidden_size: Count = 4096
    """Width of a token, and of a node of the graphs."""
    intermediate_size: Count = 11008
    """Width inside the feed-forward part of a layer."""
    num_layers: Count = 32
    """Transformer layers."""
    num_heads: Count = 32
    """Attention heads of a layer; they divide its width."""
    max_positions: Count = 2048
    """Longest sequence in tokens."""


class TokenizerArchitecture(Section):
    """A LLaMA-style byte-fallback BPE tokenizer trained on the run's own text."""

    vocabulary_size: Count = 32000
    """Pieces before the padding token and the three image tokens are added."""


class Architecture(Section):
    """A model built from sizes, with random weights under the run's seed."""

    vision: VisionArchitecture = VisionArchitecture()
    """The image tower."""
    language: LanguageArchitecture = LanguageArchitecture()
    """The language model."""
    tokenizer: TokenizerArchitecture = TokenizerArchitecture()
    """What text is cut into."""
    connector: Literal["none", "dci", "sci"] = "none"
    """Which vision layers reach the projector: one, or dense mixtures of them."""


class Parts(Section):
    """A model joined from a trained language model and a trained vision tower."""

    language: str
    """Folder or hub name of a LLaMA, Mistral or Qwen2 language model."""
    vision: str
    """Folder or hub name of a CLIP model, or of its vision tower alone."""
    connector: Literal["none", "dci", "sci"] = "none"
    """Which vision layers reach the projector, whose weights are random under the run's seed."""


class ModelSettings(Section):
    """Where the model of the first stage comes from: a checkpoint, sizes, or trained parts."""

    start: str | None = None
    """A run folder (its last checkpoint), a checkpoint folder of this project, or a hub name."""
    architecture: Architecture | None = None
    """Sizes of a model to build with random weights."""
    parts: Parts | None = None
    """Trained parts to join."""
    expect_connector: Literal["none", "dci", "sci"] | None = None
    """Connector that `start` must have; a model with another is refused. Any where absent."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSettings":
        if self.expect_connector is not None and self.start is None:
            raise ValueError("`expect_connector` is about `start`, which is not given")
        if [self.start, self.architecture, self.parts].count(None) != 2:
            raise ValueError("give exactly one of `start`, `architecture` and `parts`")
        return self
