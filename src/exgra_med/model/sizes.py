"""The configuration and size of a recipe's model, without loading weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, PreTrainedConfig

from exgra_med.errors import RunError
from exgra_med.model.assemble import (
    NATIVE_CONNECTORS,
    NUM_ADDED,
    language_config,
    native_config,
)
from exgra_med.model.build import architecture_config
from exgra_med.model.bundle import CONFIG, read_config, read_json_object
from exgra_med.model.hub import download_config
from exgra_med.model.join import (
    PREPROCESSING,
    decoder_config,
    image_side,
    join_config,
    make_image_processor,
    preprocessing,
    tower_config,
)
from exgra_med.model.native import ExgraConfig
from exgra_med.recipe.load import load_recipe, shipped_recipes
from exgra_med.recipe.run_folder import is_run_folder, open_run
from exgra_med.recipe.schema import ModelSettings, Parts

# Models that the shipped recipes name, so that a run can be planned offline.
LANGUAGES: dict[str, dict[str, Any]] = {
    "huggyllama/llama-7b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "TinyLlama/TinyLlama_v1.1": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
}
TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
}


def model_config(settings: ModelSettings) -> Any:
    """The configuration of the model that a recipe starts from, of this project's class or of one
    of transformers.

    A run that does not exist yet is planned from the shipped recipe that makes it.

    Raises:
        CheckpointError, RunError: the start of the recipe does not exist.
    """
    if settings.architecture is not None:
        pieces = settings.architecture.tokenizer.vocabulary_size
        return architecture_config(settings.architecture, pieces + NUM_ADDED)
    if settings.parts is not None:
        native = settings.parts.connector in NATIVE_CONNECTORS
        return _joined_native(settings.parts) if native else _joined(settings.parts)
    start = str(settings.start)
    if is_run_folder(start):
        run = open_run(Path(start))
        if not run.recipe.stages or run.final(list(run.recipe.stages)[-1]).is_dir():
            return read_config(run.last_checkpoint)
        return model_config(run.recipe.model)
    if Path(start).is_dir():
        return read_config(Path(start))
    maker = start.removeprefix("runs/")
    if maker in shipped_recipes():
        return model_config(load_recipe(maker).recipe.model)
    if start.startswith(("runs/", ".", "/", "~")):
        raise RunError(
            f"There is no run or checkpoint {start}, and no shipped recipe that makes it.",
            "Train the run it starts from first, or correct `model.start`.",
        )
    return ExgraConfig.from_dict(download_config(start) | {"model_type": ExgraConfig.model_type})


def meta_model(config: PreTrainedConfig) -> Any:
    """The model on the meta device: its tensors have shapes, but no values."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def num_parameters(module: nn.Module) -> int:
    """Number of parameters of a module; shared tensors count once."""
    return sum(each.numel() for each in module.parameters())


def _joined(parts: Parts) -> PreTrainedConfig:
    text = decoder_config(_config(parts.language, LANGUAGES), parts.language)
    vision: Any = tower_config(_config(parts.vision, TOWERS), parts.vision)
    side = vision.image_size
    if parts.vision not in TOWERS:
        is_here = Path(parts.vision).is_dir()
        settings = (
            preprocessing(Path(parts.vision))
            if is_here
            else download_config(parts.vision, PREPROCESSING)
        )
        image_processor = make_image_processor(settings, vision, parts.vision)
        side = image_side(image_processor, vision, parts.vision)
    return join_config(text, vision, parts.connector, side)


def _joined_native(parts: Parts) -> ExgraConfig:
    text = language_config(_config(parts.language, LANGUAGES), parts.language)
    text.vocab_size += NUM_ADDED
    values = _config(parts.vision, TOWERS)
    vision: Any = CLIPVisionConfig.from_dict(values.get("vision_config") or values)
    num_patches = (vision.image_size // vision.patch_size) ** 2
    tower = SimpleNamespace(config=vision, num_patches=num_patches, first_layer=0)
    return native_config(text, tower, parts.connector)


def _config(source: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if Path(source).is_dir():
        return read_json_object(Path(source) / CONFIG)
    return dict(known[source]) if source in known else download_config(source)
