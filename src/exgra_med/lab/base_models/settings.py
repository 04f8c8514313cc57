"""What base models are made of: an image tower and a language model, trained from nothing.

They play the part of CLIP and LLaMA where those are too large: a study's `make.parts`, or a YAML
file for `exgra-med study make-parts`. The defaults are for the phantom world and two CPU cores.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from exgra_med.errors import RecipeError
from exgra_med.reading import read_yaml
from exgra_med.recipe.schema import (
    LanguageArchitecture,
    StageSettings,
    TextSettings,
    TokenizerArchitecture,
    VisionArchitecture,
)
from exgra_med.section import Count, Fraction, Positive, Section, Seed, explain


class PastedShapesSettings(Section):
    """How the tower learns: it finds random shapes pasted into pictures; see
    `lab/base_models/vision.py`."""

    max_shapes: Count = 3
    """Shapes of a picture; each is there in seven of ten draws."""
    min_radius: Positive = 0.03
    """Shares of the picture's side."""
    max_radius: Positive = 0.13
    min_contrast: Positive = 0.5
    """Added or taken away, in the units of normalised pixels."""
    max_contrast: Positive = 1.5
    num_steps: Count = 2500
    """Optimizer steps; the images come round again, with other shapes, as often as that needs."""
    batch_size: Count = 32
    """Images of a step."""
    learning_rate: Positive = 2e-3
    """After warm-up it falls to zero along half a cosine."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    log_every_steps: Count = 10
    save_every_steps: Count = 200
    """Steps between resumable checkpoints."""


class VisionPart(Section):
    """A CLIP vision tower that has seen images and no text."""

    architecture: VisionArchitecture = VisionArchitecture(
        hidden_size=96,
        intermediate_size=256,
        num_layers=4,
        num_heads=4,
        image_size=64,
        patch_size=8,
    )
    split: str = "vision"
    """Split whose images are learnt from; their texts are not read."""
    max_pixels: Count = 50_000_000
    """Larger images are refused before they are decoded."""
    training: PastedShapesSettings = PastedShapesSettings()


class LanguagePart(Section):
    """A LLaMA language model that has read texts and seen no image."""

    architecture: LanguageArchitecture = LanguageArchitecture(
        hidden_size=128, intermediate_size=344, num_layers=3, num_heads=4, max_positions=512
    )
    tokenizer: TokenizerArchitecture = TokenizerArchitecture(vocabulary_size=800)
    split: str = "language"
    """Split with records that have no image."""
    text: TextSettings = TextSettings(max_length=512)
    training: StageSettings = StageSettings(
        trainable=["language"],
        train_on_prompts=True,
        epochs=10.0,
        max_steps=2000,
        batch_size=32,
        tokens_per_row=512,
        learning_rate=3e-3,
        log_every_steps=10,
        save_every_steps=200,
        distinct_images=False,
    )
    """An ordinary stage; its `data` is the split."""


class PartsSettings(Section):
    """Both parts."""

    seed: Seed = 0
    """Seed of weights, data order and pasted shapes."""
    vision: VisionPart = VisionPart()
    language: LanguagePart = LanguagePart()


def check_parts(values: Any, where: str) -> PartsSettings:
    """Check plain data against the schema; what it does not say is as in `PartsSettings()`.

    Raises:
        RecipeError: the first fault, with its path and a near name where there is one.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: the settings of parts are a mapping of names to values.")
    try:
        return PartsSettings.model_validate(_over(PartsSettings().model_dump(), values))
    except ValidationError as error:
        message, hint = explain(error, PartsSettings)
        raise RecipeError(f"{where}: {message}.", hint) from error


def load_parts(path: Path) -> PartsSettings:
    """Read a YAML file.

    Raises:
        RecipeError: there is no such file, or a fault in it.
    """
    if not path.is_file():
        raise RecipeError(f"There is no file {path}.")
    values = read_yaml(path)
    return check_parts({} if values is None else values, str(path))


def _over(known: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(known)
    for name, value in values.items():
        before = known.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _over(before, value) if both else value
    return merged
