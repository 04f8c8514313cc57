"""Logits recorded when a checkpoint is made, computed again after every move or export.

`verification.safetensors` holds two inputs (one with an image, one without) and the last logits of
each; `verification.json` the hashes of weights and tokenizer.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from exgra_med.data.encode import encode_prompt
from exgra_med.data.record import Turn
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import Bundle, load_bundle, pixel_values
from exgra_med.model.convert.weights import read_weights
from exgra_med.model.folder import read_json, write_json

TENSORS, RECORD = "verification.safetensors", "verification.json"
HASHED = ("*.safetensors", "tokenizer.json")
NUM_POSITIONS = 8
"""Logits of the last positions are kept: enough to notice any change, small at any size."""
TOLERANCES = {"float32": 2e-5, "float16": 5e-2, "bfloat16": 2.5e-1}
"""Largest accepted difference; the half types' own rounding makes 1e-2 and 1e-1 (fold of dci)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str


def example_logits(bundle: Bundle) -> dict[str, Tensor]:
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
def compute(bundle: Bundle, stored: dict[str, Tensor]) -> dict[str, Tensor]:
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
    bundle: Bundle, folder: Path, stored: dict[str, Tensor] | None = None
) -> None:
    """Record inputs, logits and hashes of a folder whose other files are complete.

    Args:
        bundle: the model whose logits count.
        folder: the written checkpoint.
        stored: logits recorded earlier, which the new folder must reproduce.
    """
    hashes = file_hashes(folder)
    save_file(stored or example_logits(bundle), folder / TENSORS)
    dtype = str(bundle.model.dtype).removeprefix("torch.")
    write_json(folder / RECORD, {"dtype": dtype, "sha256": hashes})


def verify(folder: Path, device: str = "cpu") -> list[Finding]:
    """Check hashes and logits of a checkpoint folder.

    Raises:
        CheckpointError: the folder cannot be loaded, or nothing was recorded in it.
    """
    if not (folder / RECORD).is_file():
        raise CheckpointError(
            f"{folder} has no {RECORD}: nothing was recorded to compare with.",
            f"exgra-med checkpoint verify {folder} --record",
        )
    record = read_json(folder / RECORD)
    found = file_hashes(folder)
    findings = [
        Finding(f"hash of {name}", found.get(name) == digest, found.get(name, "missing")[:16])
        for name, digest in record["sha256"].items()
    ]
    dtype = getattr(torch, record["dtype"])
    bundle = load_bundle(folder, dtype, device)
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
    return {path.name: sha256(path) for path in paths if path.name != TENSORS}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
