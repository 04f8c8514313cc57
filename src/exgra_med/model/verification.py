"""Logits recorded when a checkpoint is made, computed again after every move or export.

`verification.safetensors` holds the inputs of two questions (one with an image, one without) and
the last logits of each; `verification.json` the hashes of weights and tokenizer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn, file_sha256
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import Bundle, described, load_bundle, read_json_object, write_json
from exgra_med.model.convert.weights import read_weights
from exgra_med.model.native import NativeBundle, pixel_values
from exgra_med.recipe.run_folder import check_checkpoint

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


ITSELF, SOURCE = "itself", "source"
"""Whose logits were recorded: of the checkpoint in the folder by its own code, or of the native one
that it was exported from."""
_SHOWS = {
    ITSELF: (
        "The logits were recorded from this very checkpoint, by this software: equal ones show "
        "that its files and this machine compute what they did then. They do not show that an "
        "import was right. Exporting it and verifying the export does more: stock transformers "
        "then compute the same logits from it."
    ),
    SOURCE: (
        "The logits were recorded from the checkpoint that this one was exported from, by this "
        "project's own model: equal ones show that stock transformers compute the same from it."
    ),
}


def what_verification_shows(folder: Path) -> str:
    """What equal logits of a folder show, and what they do not; empty where none were recorded."""
    if not (folder / RECORD).is_file():
        return ""
    of = read_json_object(folder / RECORD).get("logits_of")
    told = _SHOWS.get(of) if isinstance(of, str) else None
    return told or "Whose logits these are was not kept: an earlier version recorded them."


QUESTION = [Turn(role="user", text="What does the image show?")]
PICTURE_SIDE = 224
"""Of the picture that a model of another family is asked about."""


def example_logits(bundle: Bundle) -> dict[str, Tensor]:
    """Two fixed inputs and the logits of their last positions."""
    if not isinstance(bundle, NativeBundle):
        stored = {}
        for name, images in (("image", [_picture(PICTURE_SIDE)]), ("text", [])):
            prompt = bundle.prompt(QUESTION, len(images))
            inputs, _ = bundle.generation_inputs([prompt], [images])
            stored |= {f"{name}.{key}": value.cpu().clone() for key, value in inputs.items()}
        return stored | compute(bundle, stored)
    stored = {"pixel_values": pixel_values(bundle, [_picture(_side(bundle))])}
    for name, count in (("image", 1), ("text", 0)):
        ids = encode_prompt(bundle.tokenizer, QUESTION, "exgra", bundle.num_image_tokens, count)
        stored[f"{name}.input_ids"] = torch.tensor([ids])
    return stored | compute(bundle, stored)


def _side(bundle: NativeBundle) -> int:
    return bundle.model.config.vision_config.image_size


def _picture(side: int) -> Image.Image:
    ramp = np.linspace(0, 255, side * side * 3).reshape(side, side, 3).astype("uint8")
    return Image.fromarray(ramp)


@torch.inference_mode()
def compute(bundle: Bundle, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logits of stored inputs, float32."""
    logits, model = {}, bundle.model
    for name in ("image", "text"):
        inputs = {
            key.removeprefix(f"{name}."): value.to(model.device)
            for key, value in stored.items()
            if key.startswith(f"{name}.") and not key.endswith(".logits")
        }
        if isinstance(bundle, NativeBundle) and name == "image":
            inputs["pixel_values"] = stored["pixel_values"].to(model.device, model.dtype)
        output = model(**inputs, logits_to_keep=NUM_POSITIONS, use_cache=False)
        logits[f"{name}.logits"] = output.logits[:, -NUM_POSITIONS:].float().cpu()
    return logits


def write_verification(
    bundle: Bundle, folder: Path, stored: dict[str, Tensor] | None = None, of: str = ITSELF
) -> None:
    """Record inputs, logits and hashes of a folder whose other files are complete.

    `stored` are logits recorded earlier, which the new folder must reproduce; `of` is whose logits
    they are, `ITSELF` or `SOURCE`.
    """
    hashes = file_hashes(folder)
    save_file(stored or example_logits(bundle), folder / TENSORS)
    dtype = str(bundle.model.dtype).removeprefix("torch.")
    write_json(folder / RECORD, {"dtype": dtype, "sha256": hashes, "logits_of": of})


def verify_checkpoint(folder: Path, device: str = "cpu") -> list[Finding]:
    """Check hashes and logits of a checkpoint folder; of a run's, whose logits were not recorded,
    the hashes alone.

    Raises:
        DamagedFileError: the folder has the SHA-256 of its files, and one is not what was written.
        CheckpointError: the folder cannot be loaded, or nothing was recorded in it.
    """
    is_known = check_checkpoint(folder)
    if is_known and not (folder / RECORD).is_file():
        return [Finding("SHA-256 of every file", True, "as it was written")]
    if not (folder / RECORD).is_file():
        raise CheckpointError(
            f"{folder} has no {RECORD}: nothing was recorded to compare with.",
            f"exgra-med checkpoint verify {folder} --record",
        )
    record = read_json_object(folder / RECORD)
    if not isinstance(record.get("sha256"), dict) or record.get("dtype") not in TOLERANCES:
        raise CheckpointError(f"{folder / RECORD} is no record of logits.", "Record it again.")
    found = file_hashes(folder)
    findings = [
        Finding(f"hash of {name}", found.get(name) == digest, found.get(name, "missing")[:16])
        for name, digest in record["sha256"].items()
    ]
    dtype = getattr(torch, record["dtype"])
    bundle = load_bundle(folder, dtype, device)
    stored = read_weights([folder / TENSORS])
    tolerance = TOLERANCES[record["dtype"]]
    with described(folder, f"cannot be compared with its {TENSORS}"):
        differences = {
            name: float((logits - stored[name]).abs().max())
            for name, logits in compute(bundle, stored).items()
        }
    for name, difference in differences.items():
        detail = f"largest difference {difference:.1e}, accepted {tolerance:.0e}"
        findings.append(Finding(f"logits of {name.split('.')[0]}", difference <= tolerance, detail))
    return findings


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of weights and tokenizer, by file name."""
    paths = sorted(path for pattern in HASHED for path in folder.glob(pattern))
    return {path.name: file_sha256(path) for path in paths if path.name != TENSORS}
