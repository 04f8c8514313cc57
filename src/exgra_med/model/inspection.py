"""What a checkpoint folder is, from its configuration and the headers of its weight files."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from exgra_med.errors import CheckpointError
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.folder import CONFIG, is_original_layout, read_json
from exgra_med.model.verification import RECORD

SIDE_FILES = {"alignment.safetensors": "graph layers of stage 2", RECORD: "recorded logits"}


def inspect(folder: Path) -> dict[str, Any]:
    """Describe a checkpoint without building its model.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    config = read_json(folder / CONFIG)
    shapes = tensor_shapes(folder)
    old = is_original_layout(config)
    text = config if old else config.get("text_config") or {}
    vision = {} if old else config.get("vision_config") or {}
    types = Counter()
    for shape, kind in shapes.values():
        types[kind] += prod(shape)
    layout = "original (needs `checkpoint import`)" if old else _layout(config)
    projector = next((name for name in shapes if name.endswith(_FIRST)), None)
    return {
        "layout": layout,
        "connector": config.get("connector", "none") if not old else "not said; see projector",
        "vision_layers": config.get("mm_vision_select_layer" if old else "vision_feature_layer"),
        "projector": list(shapes[projector][0]) if projector else None,
        "language": {key: text.get(key) for key in _LANGUAGE if key in text},
        "vision": {key: vision.get(key) for key in _VISION if key in vision}
        or config.get("mm_vision_tower"),
        "parameters": dict(types),
        "num_tensors": len(shapes),
        "also": [what for name, what in SIDE_FILES.items() if (folder / name).is_file()],
        "imported": read_json(folder / "import.json")
        if (folder / "import.json").is_file()
        else None,
    }


_FIRST = ("mm_projector.0.weight", "mm_projector.weight", "multi_modal_projector.linear_1.weight")
_LANGUAGE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_VISION = ("image_size", "patch_size", "hidden_size", "num_hidden_layers")


def _layout(config: dict[str, Any]) -> str:
    return "native" if config.get("model_type") == "exgra_llava" else "stock LLaVA"


def tensor_shapes(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every tensor, by name.

    Raises:
        CheckpointError: there are no weights, or a file is damaged.
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            for name, tensor in read_weights([path]).items():
                shapes[name] = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
            continue
        try:
            with safe_open(path, "pt") as stream:
                for name in stream.keys():  # noqa: SIM118 - not a dict
                    piece = stream.get_slice(name)
                    shapes[name] = tuple(piece.get_shape()), piece.get_dtype()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged: {error}.", "Copy it again.") from error
    return shapes
