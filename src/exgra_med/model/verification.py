"""Logits recorded when a checkpoint is made, computed again after every move or export.

`verification.safetensors` holds two inputs (one with an image, one without) and the last logits of
each; `verification.json` the hashes of weights and tokenizer.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn, file_sha256
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import (
    CONFIG,
    is_original_layout,
    read_json_object,
    write_json,
)
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.native import NativeBundle, load_native, pixel_values

TENSORS, RECORD = "verification.safetensors", "verification.json"
HASHED = ("*.safetensors", "tokenizer.json")
NUM_POSITIONS = 8
"""Logits of the last positions are kept: enough to notice any change, small at any size."""
TOLERANCES = {"float32": 2e-5, "float16": 5e-2, "bfloat16": 2.5e-1}
"""Largest accepted difference; rounding of the half types makes 1e-2 and 1e-1 (folded dci)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    passed: bool
    detail: str


def example_logits(bundle: NativeBundle) -> dict[str, Tensor]:
    """Two fixed inputs and the logits of their last positions."""
    size = bundle.model.config.vision_config.image_size
    ramp = np.linspace(0, 255, size * size * 3).reshape(size, size, 3).astype("uint8")
    pixels = pixel_values(bundle, [Image.fromarray(ramp)])
    question = [Turn(role="user", text="What does the image show?")]
    stored = {"pixel_values": pixels}
    for name, count in (("image", 1), ("text", 0)):
        ids = encode_prompt(bundle.tokenizer, question, "exgra", bundle.num_image_tokens, count)
        stored[f"{name}.input_ids"] = torch.tensor([ids])
    return stored | compute(bundle, stored)


@torch.inference_mode()
def compute(bundle: NativeBundle, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logits of stored inputs, float32."""
    logits = {}
    for name in ("image", "text"):
        pixels = stored["pixel_values"].to(bundle.model.device, bundle.model.dtype)
        output = bundle.model(
            input_ids=stored[f"{name}.input_ids"].to(bundle.model.device),
            pixel_values=pixels if name == "image" else None,
            logits_to_keep=NUM_POSITIONS,
            use_cache=False,
        )
        logits[f"{name}.logits"] = output.logits.float().cpu()
    return logits


def write_verification(
    bundle: NativeBundle, folder: Path, stored: dict[str, Tensor] | None = None
) -> None:
    """Record inputs, logits and hashes of a folder whose other files are complete.

    `stored` are logits recorded earlier, which the new folder must reproduce.
    """
    hashes = file_hashes(folder)
    save_file(stored or example_logits(bundle), folder / TENSORS)
    dtype = str(bundle.model.dtype).removeprefix("torch.")
    write_json(folder / RECORD, {"dtype": dtype, "sha256": hashes})


def verify_checkpoint(folder: Path, device: str = "cpu") -> list[Finding]:
    """Check hashes and logits of a checkpoint folder.

    Raises:
        CheckpointError: the folder cannot be loaded, or nothing was recorded in it.
    """
    if not (folder / RECORD).is_file():
        raise CheckpointError(
            f"{folder} has no {RECORD}: nothing was recorded to compare with.",
            f"exgra-med checkpoint verify {folder} --record",
        )
    record = read_json_object(folder / RECORD)
    found = file_hashes(folder)
    findings = [
        Finding(f"hash of {name}", found.get(name) == digest, found.get(name, "missing")[:16])
        for name, digest in record["sha256"].items()
    ]
    dtype = getattr(torch, record["dtype"])
    bundle = load_native(folder, dtype, device)
    stored = read_weights([folder / TENSORS])
    tolerance = TOLERANCES[record["dtype"]]
    for name, logits in compute(bundle, stored).items():
        difference = float((logits - stored[name]).abs().max())
        detail = f"largest difference {difference:.1e}, accepted {tolerance:.0e}"
        findings.append(Finding(f"logits of {name.split('.')[0]}", difference <= tolerance, detail))
    return findings


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of weights and tokenizer, by file name."""
    paths = sorted(path for pattern in HASHED for path in folder.glob(pattern))
    return {path.name: file_sha256(path) for path in paths if path.name != TENSORS}


SIDE_FILES = {"alignment.safetensors": "graph layers of stage 2", RECORD: "recorded logits"}


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """Describe a checkpoint by its configuration and the headers of its weight files.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    config = read_json_object(folder / CONFIG)
    shapes, imported = tensor_shapes(folder), folder / "import.json"
    old = is_original_layout(config)
    text = config if old else config.get("text_config") or {}
    vision = {} if old else config.get("vision_config") or {}
    types = Counter()
    for shape, kind in shapes.values():
        types[kind] += prod(shape)
    layout = "native" if config.get("model_type") == "exgra_llava" else "stock LLaVA"
    projector = next((name for name in shapes if name.endswith(_FIRST)), None)
    return {
        "layout": "original (needs `checkpoint import`)" if old else layout,
        "connector": config.get("connector", "none") if not old else "not said; see projector",
        "vision_layers": config.get("mm_vision_select_layer" if old else "vision_feature_layer"),
        "projector": list(shapes[projector][0]) if projector else None,
        "language": {key: text.get(key) for key in _LANGUAGE if key in text},
        "vision": {key: vision.get(key) for key in _VISION if key in vision}
        or config.get("mm_vision_tower"),
        "parameters": dict(types),
        "num_tensors": len(shapes),
        "also": [what for name, what in SIDE_FILES.items() if (folder / name).is_file()],
        "imported": read_json_object(imported) if imported.is_file() else None,
    }


_FIRST = ("mm_projector.0.weight", "mm_projector.weight", "multi_modal_projector.linear_1.weight")
_LANGUAGE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_VISION = ("image_size", "patch_size", "hidden_size", "num_hidden_layers")


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
