"""The configuration, parts and size of a recipe's model, without loading weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    PreTrainedConfig,
)

from exgra_med.errors import CheckpointError, RunError
from exgra_med.files import expand_home, is_folder
from exgra_med.model.assemble import (
    NATIVE_CONNECTORS,
    NUM_ADDED,
    language_config,
    native_config,
)
from exgra_med.model.build import architecture_config
from exgra_med.model.bundle import (
    CONFIG,
    any_config,
    bounded,
    described,
    find_model_plugins,
    is_native,
    local_folder,
    read_config,
    read_json_object,
)
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
from exgra_med.model.small_model import NAME, SMALL, cached_model
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
    "smollm2-135m-instruct": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
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
    "dinov2-small": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
    },
}
IMAGE_SIDES = {"dinov2-small": 224}
"""Pixels of a prepared image, where the tower was trained on others."""


def model_config(settings: ModelSettings) -> Any:
    """The configuration of the model that a recipe starts from: of this project's own class, or of
    one of transformers.

    Raises:
        CheckpointError, RunError: the start of the recipe does not exist, or is no model that reads
            images and text.
    """
    place = origin(settings)
    if isinstance(place, Path):
        return folder_config(place)
    if place.architecture is not None:
        pieces = place.architecture.tokenizer.vocabulary_size
        return architecture_config(place.architecture, pieces + NUM_ADDED)
    assert place.parts is not None, "a recipe has exactly one origin"
    native = place.parts.connector in NATIVE_CONNECTORS
    return _joined_native(place.parts) if native else _joined(place.parts)


def origin(settings: ModelSettings) -> Path | ModelSettings:
    """What the model of a recipe is made from: a folder, or the sizes or parts it is built from.

    Of a hub name everything but the weights is downloaded. A run that does not exist yet, or has
    not finished, is planned from its recipe, which may be a shipped one.

    Raises:
        CheckpointError, RunError: the start of the recipe does not exist.
    """
    if settings.start is None:
        return settings
    start = settings.start
    folder = expand_home(start)
    if start == NAME and not is_folder(folder):
        return ModelSettings(parts=SMALL)
    if is_run_folder(folder):
        run = open_run(folder)
        if not run.recipe.stages or run.final(list(run.recipe.stages)[-1]).is_dir():
            return run.last_checkpoint
        return origin(run.recipe.model)
    if is_folder(folder):
        return folder
    maker = start.removeprefix("runs/")
    if maker in shipped_recipes():
        return origin(load_recipe(maker).recipe.model)
    if start.startswith(("runs/", ".", "/", "~")):
        raise RunError(
            f"There is no run or checkpoint {start}, and no shipped recipe that makes it.",
            "Train the run it starts from first, or correct `model.start`.",
        )
    return local_folder(start, weights=False)


def folder_config(folder: Path) -> Any:
    """The configuration of a checkpoint folder of any kind; weights need not be in it.

    Raises:
        CheckpointError: there is none, it is in the original's layout, or no model that reads
            images and text.
    """
    if is_native(folder):
        return read_config(folder)
    find_model_plugins()
    kind = read_json_object(folder / CONFIG).get("model_type")
    config = any_config(folder)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, which is none that reads images and text.",
            "Name a vision-language model; a language model or a tower goes into `model.parts`.",
        )
    return config


def is_native_origin(place: Path | ModelSettings) -> bool:
    """Whether an `origin` is, or becomes, this project's own model.

    Raises:
        CheckpointError: the folder has no configuration, or is in the original's layout.
    """
    if isinstance(place, Path):
        return is_native(place)
    return place.parts is None or place.parts.connector in NATIVE_CONNECTORS


def meta_model(config: PreTrainedConfig) -> Any:
    """The model on the meta device: its tensors have shapes, but no values."""
    problem = f"of a {config.model_type} describes no model that can be built"
    with described(Path(CONFIG), problem), bounded({}, CONFIG), torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


# A merger or projector may stand inside the tower (Qwen-VL, GLM-V): the one rule that knows names.
BETWEEN = ("merger", "projector", "connector")


def part_of(model: Any, name: str) -> list[nn.Parameter]:
    """The parameters of `vision`, `connector` or `language` of any model; each is in one of them.

    The connector is what is in neither tower nor language model, and what in the tower is called a
    merger, projector or connector. A head that is tied to the embeddings counts once.
    """
    tower = list(model.get_encoder(modality="image").named_parameters())
    language = list(model.get_decoder().parameters())
    language += list(model.get_output_embeddings().parameters())
    known = {id(each) for each in language} | {id(each) for _, each in tower}
    own = [each for n, each in tower if any(word in n for word in BETWEEN)]
    own += [each for each in model.parameters() if id(each) not in known]
    joined = {id(each) for each in own}
    parts = {
        "vision": [each for _, each in tower if id(each) not in joined],
        "connector": own,
        "language": language,
    }
    return list({id(each): each for each in parts[name]}.values())


def num_parameters(module: nn.Module) -> int:
    """Number of parameters of a module; shared tensors count once."""
    return sum(each.numel() for each in module.parameters())


def _joined(parts: Parts) -> PreTrainedConfig:
    text = decoder_config(_config(parts.language, LANGUAGES), parts.language)
    vision: Any = tower_config(_config(parts.vision, TOWERS), parts.vision)
    side = IMAGE_SIDES.get(parts.vision, vision.image_size)
    if parts.vision not in TOWERS:
        folder = _folder(parts.vision)
        settings = preprocessing(folder) if folder else download_config(parts.vision, PREPROCESSING)
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
    folder = None if source in known and not Path(source).is_dir() else _folder(source)
    if folder is not None:
        return read_json_object(folder / CONFIG)
    return dict(known[source]) if source in known else download_config(source)


def _folder(source: str) -> Path | None:
    """The folder of a part that is here, or that has a name of its own; none of a hub name."""
    return Path(source) if Path(source).is_dir() else cached_model(source)
