"""What a checkpoint folder is, without loading its weights."""

import math
from collections import Counter
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import torch

from exgra_med.alignment.image_nodes import image_token_id
from exgra_med.errors import CheckpointError, ExgraMedError
from exgra_med.model.any_model import HALF_TOLERANCE, TOLERANCE, Facts
from exgra_med.model.bundle import (
    CONFIG,
    Shapes,
    is_native,
    is_original_layout,
    load_processor,
    read_json_object,
    shown_architectures,
    stored_shapes,
)
from exgra_med.model.chat_text import ChatText
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.probe import known_facts, refusal
from exgra_med.model.sizes import folder_config, meta_model, part_of
from exgra_med.model.verification import RECORD
from exgra_med.recipe.schema import TextSettings

SIDE_FILES = {"alignment.safetensors": "graph layers of stage 2", RECORD: "recorded logits"}


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """Describe a checkpoint of any kind by its configuration, its processor and the headers of its
    weight files. `problem` says why it cannot be used here, where that is known.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    config = read_json_object(folder / CONFIG)
    shapes, imported = tensor_shapes(folder), folder / "import.json"
    types = Counter()
    for shape, kind in shapes.values():
        types[kind] += prod(shape)
    if is_original_layout(config):
        about = _original(config)
    elif is_native(folder):
        about = _native(config) | _model(folder)
    else:
        about = {"layout": "plain transformers"} | _model(folder)
    projector = next((name for name in shapes if name.endswith(_FIRST)), None)
    return about | {
        "projector": list(shapes[projector][0]) if projector else None,
        "parameters": dict(types),
        "num_tensors": len(shapes),
        "also": [what for name, what in SIDE_FILES.items() if (folder / name).is_file()],
        "imported": read_json_object(imported) if imported.is_file() else None,
    }


def _original(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "layout": "original (needs `checkpoint import`)",
        "connector": "not said; see projector",
        "vision_layers": config.get("mm_vision_select_layer"),
        "language": {key: config.get(key) for key in _LANGUAGE if key in config},
        "vision": config.get("mm_vision_tower"),
    }


def _native(config: dict[str, Any]) -> dict[str, Any]:
    is_stock = config.get("model_type") != "exgra_llava"
    return {
        "layout": "stock LLaVA" if is_stock else "native",
        "connector": config.get("connector", "none"),
        "vision_layers": config.get("vision_feature_layer"),
    }


def _model(folder: Path) -> dict[str, Any]:
    """What configuration and processor say of a model of this project or of transformers."""
    said = read_json_object(folder / CONFIG)
    about: dict[str, Any] = {
        "model_type": said.get("model_type"),
        "class": shown_architectures(said),
    }
    try:
        config = folder_config(folder)
    except CheckpointError as error:
        return about | {"problem": str(error)}
    model, text = meta_model(config), config.get_text_config()
    head = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    names = ("vision", "connector", "language")
    about |= {
        "language": _sizes(text, _LANGUAGE),
        "vision": _sizes(getattr(config, "vision_config", None), _VISION),
        "parts": {name: sum(each.numel() for each in part_of(model, name)) for name in names},
        "context_length": getattr(text, "max_position_embeddings", None),
        "head": "tied to the embeddings" if head else "a matrix of its own",
    }
    return about | _asking(folder, config) | _measured(folder, config.model_type)


def _sizes(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _asking(folder: Path, config: Any) -> dict[str, Any]:
    """Chat template and image token, of the processor; or why it cannot be used here."""
    about: dict[str, Any] = {}
    try:
        processor = load_processor(folder)
        token = image_token_id(config)
        about["image_token"] = processor.tokenizer.convert_ids_to_tokens(token)
        about["chat_template"] = "none"
        if is_native(folder):
            about["chat_template"] = TextSettings().template
        elif ChatText(processor):
            about["chat_template"] = "its own"
    except ExgraMedError as error:
        about["problem"] = str(error)
    return about


def _measured(folder: Path, kind: str) -> dict[str, Any]:
    """What was measured of a model of another family, and whether it is refused for that."""
    if is_native(folder):
        return {}
    found: dict[str, Any] = {"measured": {}}
    for name, facts in known_facts(folder).items():
        found["measured"][name] = _finite(asdict(facts))
        problem = refusal(kind, facts, TOLERANCE.get(getattr(torch, name), HALF_TOLERANCE))
        if problem is not None:
            found["problem"] = str(problem)
    return found


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The same without infinity, which JSON has not."""
    return {
        name: None if isinstance(each, float) and not math.isfinite(each) else each
        for name, each in values.items()
    }


NOT_MEASURED = "not yet; it is measured when the model is loaded, or with --probe"


def measured_in_words(measured: dict[str, dict[str, Any]]) -> str:
    """What was measured, as one line for each type of weights."""
    if not measured:
        return NOT_MEASURED
    return "; ".join(_words(name, Facts(**facts)) for name, facts in measured.items())


def _words(dtype: str, facts: Facts) -> str:
    packed = {"texts": facts.text_packing, "images": facts.image_packing}
    ways = [f"{name} are {'packed' if way else 'padded'}" for name, way in packed.items()]
    ways += ["questions share their image"] * facts.shares_images
    figures = {
        "leak": facts.leak,
        "batch against alone": facts.batch_difference,
        "head": facts.head_difference,
        "texts packed against apart": facts.text_difference,
        "with images": facts.image_difference,
        "sharing": facts.sharing_difference,
    }
    said = ", ".join(f"{n} {'-' if v is None else f'{v:.0e}'}" for n, v in figures.items())
    return f"{dtype}: {', '.join(ways)} ({said})"


_FIRST = ("mm_projector.0.weight", "mm_projector.weight", "multi_modal_projector.linear_1.weight")
_LANGUAGE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_VISION = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "depth")


def tensor_shapes(folder: Path) -> Shapes:
    """Shape and type of every tensor, by name.

    Raises:
        CheckpointError: there are no weights, or a file is damaged.
    """
    shapes: Shapes = {}
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            for name, tensor in read_weights([path]).items():
                shapes[name] = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
            continue
        shapes |= stored_shapes([path])
    return shapes
