"""Named tensors in a folder, one safetensors file for each process that keeps a share of them.

NAME.safetensors                                 whole tensors
NAME-00001-of-00008.safetensors, ...             each process's rows of them
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from exgra_med import files
from exgra_med.errors import CheckpointError
from exgra_med.training.processes import of_main
from exgra_med.training.sharding import own_part


@contextmanager
def folder_of_all(path: Path, sharded: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when every process has written its share.

    Without shards it is for the main process alone, and the others must not call it.

    Raises:
        DiskFullError, WriteError: an older folder of that name is untouched.
    """
    if not sharded:
        with files.new_folder(path) as target:
            yield target
        return
    if dist.get_rank() == 0:
        with files.new_folder(path) as target:
            of_main(target.name)
            yield target
            dist.barrier()
    else:
        name = of_main("")
        with files.disk_errors(path):
            yield path.parent / name
        dist.barrier()
    dist.barrier()


def save_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor], sharded: bool) -> None:
    """Write what this process keeps of named tensors into a folder."""
    own = {key: own_part(each.detach()).contiguous() for key, each in tensors.items()}
    save_file(own, _file(folder, name, sharded))


def load_tensors(folder: Path, name: str, sharded: bool) -> dict[str, Tensor]:
    """Read what this process wrote.

    Raises:
        CheckpointError: it is not there.
    """
    file = _file(folder, name, sharded)
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {file.name}.", "Copy the whole folder, and start as many processes."
        )
    return load_file(file)


def _file(folder: Path, name: str, sharded: bool) -> Path:
    part = f"-{dist.get_rank() + 1:05d}-of-{dist.get_world_size():05d}" if sharded else ""
    return folder / f"{name}{part}.safetensors"
