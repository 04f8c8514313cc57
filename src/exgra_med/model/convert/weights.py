"""The one place that reads weight files of other projects: tensors only, never code."""

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import indexed_files
from exgra_med.model.other_folders import as_something_else, lfs_pointer

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
"""A file or, with `.index.json`, the shards it names; the first that exists is read."""


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's weights.

    Raises:
        CheckpointError: there is none, or a shard is missing, lies outside the folder, or is a Git
            LFS pointer.
    """
    files = _weight_files(folder)
    if problem := lfs_pointer(files):
        raise problem
    return files


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return indexed_files(index)
        if (folder / name).is_file():
            return [folder / name]
    problem = CheckpointError(f"{folder} has no weights: neither {' nor '.join(WEIGHT_NAMES)}.")
    raise as_something_else(folder) or problem


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of some files, on the CPU.

    Raises:
        CheckpointError: a file is damaged, holds something else than tensors, or repeats a name.
    """
    weights: dict[str, Tensor] = {}
    for path in files:
        for name, tensor in _tensors(path):
            if name in weights:
                raise CheckpointError(f"{path} repeats the tensor {name}.")
            weights[name] = tensor
    return weights


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and is not read, because it could run code.",
            "Ask its author for safetensors.",
        ) from error
    # What a damaged file makes torch say is of every kind.
    except Exception as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path} is damaged or not a weight file: {said[0]}", "Copy or download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a table of named tensors.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name!r} is not a tensor.")
        # A pickle may say that few numbers are many, which then are counted one by one.
        if tensor.layout != torch.strided or tensor.nbytes > path.stat().st_size:
            raise CheckpointError(f"{path}: {name!r} is larger than its file.")
        yield name, tensor
