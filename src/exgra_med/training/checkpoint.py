"""Resumable checkpoints of a stage: trainable parameters, the optimizer's state, the step.

    checkpoints/<stage>/step-000040/  parameters.safetensors, optimizer.safetensors, progress.json
    checkpoints/<stage>/best/         parameters.safetensors, score.json (`training.held_out`)
    checkpoints/<stage>/final/        the whole model, its processor, alignment.safetensors

Data order, noise, dropout and learning rate are functions of the step, so nothing else is stored.
Each of these folders has the SHA-256 of its files (`digests.json`), which is checked before they
are read.

Where weights are sharded, `torch.distributed.checkpoint` writes one file for each process,
`shard-00001-model-00001-of-00001.safetensors`, whose header says which slices of the whole tensors
it holds. Reading takes the slices that a process needs from whatever files hold them, so another
number of processes can go on, with or without shards. Its own format is not used: the index of that
is a pickle, and reading a pickle may run code that somebody put into the folder.
"""

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from exgra_med import digests, files, reading
from exgra_med.errors import CheckpointError, DataError
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.model.lora import detach_adapter
from exgra_med.recipe.run_folder import Run, check_checkpoint, recipe_yaml
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.distributed import broadcast_from_main, is_sharded, process_state
from exgra_med.training.optimizer import plain_state, rebuilt_state

_STEP = "step-{:06d}"
PARAMETERS = "parameters"
_OPTIMIZER = "optimizer"
_PROGRESS = "progress.json"
_COUNT = "num_tensors"
_COPY = "Copy the whole folder, with the files of every process."


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is, and what its steps are made of."""

    step: int
    """Finished optimizer steps."""
    micro_batches: int
    """Micro-batches of a step, over all processes."""
    num_processes: int
    """Processes that trained."""
    num_events: int = 0
    """Events in the run's log; 0 where no one counted."""


_NAMES = [field.name for field in fields(StageProgress)]


def save_progress(
    folder: Path,
    progress: StageProgress,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> None:
    """Write `folder/step-N` atomically, then drop the oldest beyond `keep`.

    Where the module is sharded, all processes have to come here, otherwise one.

    Raises:
        DiskFullError: nothing was changed.
    """
    parameters = trainable_parameters(module)
    with new_checkpoint(folder / _STEP.format(progress.step), is_sharded(module)) as target:
        state = {
            f"{kind}/{name}": value
            for name, parameter in parameters.items()
            for kind, value in plain_state(optimizer.state[parameter]).items()
        }
        save_tensors(target, {PARAMETERS: parameters, _OPTIMIZER: state})
        if process_state().is_main_process:
            text = json.dumps(asdict(progress) | {_COUNT: len(parameters) + len(state)})
            (target / _PROGRESS).write_text(text, encoding="utf-8")
    if process_state().is_main_process:
        for old in _saved_steps(folder)[:-keep]:
            shutil.rmtree(old)


def read_progress(folder: Path) -> StageProgress | None:
    """The progress of the newest `step-N` under `folder`; none where there is no checkpoint.

    Raises:
        CheckpointError, DamagedFileError: it cannot be read, or is not what was written.
    """
    steps = _saved_steps(folder)
    if not steps:
        return None
    _check_step(steps)
    counts = _read_counts(steps[-1])
    try:
        return StageProgress(**{name: counts[name] for name in _NAMES if name in counts})
    except TypeError as error:
        raise _unreadable(steps[-1] / _PROGRESS, error) from error


def _check_step(steps: Sequence[Path]) -> None:
    """Check the newest of the resumable checkpoints.

    Raises:
        DamagedFileError: it is not what was written; says what it can be done without.
    """
    before = steps[-2].name if len(steps) > 1 else "the beginning of the stage"
    check_checkpoint(steps[-1], f"Copy it again, or delete {steps[-1]} to go on from {before}.")


def check_resumable(
    folder: Path, saved: StageProgress, stage: StageSettings, num_processes: int
) -> None:
    """Refuse a number of processes that cannot go on with the same steps.

    Raises:
        CheckpointError: the processes cannot divide the micro-batches of a step, or global graphs
            would have other nodes.
    """
    before = saved.num_processes
    if saved.micro_batches % num_processes:
        fitting = [n for n in range(1, saved.micro_batches + 1) if saved.micro_batches % n == 0]
        raise CheckpointError(
            f"{folder}: the number of micro-batches of a step, {saved.micro_batches}, is not a "
            f"multiple of the {num_processes} processes here.",
            f"Start one of these numbers of processes: {', '.join(map(str, fitting))}.",
        )
    if stage.aligned and stage.aligned.scope == "global" and num_processes != before:
        raise CheckpointError(
            f"{folder}: the checkpoint is of {before} processes, and `scope: global` makes one "
            f"graph over all of them: on {num_processes} its nodes would be others.",
            f"Start {before} processes.",
        )


def restore_progress(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest `step-N` under `folder`.

    Returns:
        The number of finished steps; 0 where there is no checkpoint.

    Raises:
        CheckpointError: the checkpoint is not complete, or does not fit what is trained here.
    """
    progress = read_progress(folder)
    if progress is None:
        return 0
    source = _saved_steps(folder)[-1]
    parameters = trainable_parameters(module)
    saved = _read_metadata(source)
    # Not every parameter has a state: one that never had a gradient has none.
    expected = _read_counts(source).get(_COUNT, 0)
    if len(saved) != expected:
        raise CheckpointError(
            f"{source}: a file is missing; {len(saved)} of {expected} tensors are there.", _COPY
        )
    state = {
        key: _empty_like_saved(each, parameters[key.partition("/")[2]])
        for key, each in saved.items()
        if key.partition("/")[2] in parameters
    }
    _read_into(source, saved, parameters | state)
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        by_parameter.setdefault(name, {})[kind] = value
    for name, plain in by_parameter.items():
        optimizer.state[parameters[name]] = rebuilt_state(plain, parameters[name])
    return progress.step


def load_parameters(source: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Fill parameters, or this process's shards of them, from a folder that holds them alone.

    Raises:
        CheckpointError: the folder is not complete, or names or shapes differ.
        DamagedFileError: a file is not what was written.
    """
    check_checkpoint(source)
    _read_into(source, _read_metadata(source), parameters)


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter of everything that receives a gradient."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


@contextmanager
def new_checkpoint(path: Path, sharded: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when every process has written its part.

    Without shards it is for the main process alone, and the others must not call it.

    Raises:
        DiskFullError, WriteError: an older folder of that name is untouched.
    """
    if not sharded:
        with files.new_folder(path) as target:
            yield target
            digests.write_digests(target)
        return
    if dist.get_rank() == 0:
        with files.new_folder(path) as target:
            broadcast_from_main(target.name)
            yield target
            dist.barrier()
            digests.write_digests(target)
    else:
        name = broadcast_from_main("")
        with files.disk_errors(path):
            yield path.parent / name
        dist.barrier()
    dist.barrier()


def save_tensors(folder: Path, named: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write tensors into an empty folder: of each name a file, or a file of each process.

    `named` is file name, without its ending -> name of a tensor -> tensor.

    Raises:
        OSError: a process could not write; all processes raise then.
    """
    tensors = {key: each.detach() for group in named.values() for key, each in group.items()}
    if not any(isinstance(each, DTensor) for each in tensors.values()):
        for name, group in named.items():
            whole = {key: each.detach().contiguous() for key, each in group.items()}
            save_file(whole, folder / f"{name}.safetensors")
        return
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer)
    except dcp.CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first from error


@torch.no_grad()
def _read_into(
    source: Path, saved: Mapping[str, TensorStorageMetadata], tensors: Mapping[str, Tensor]
) -> None:
    """Fill tensors in place; each process reads its own slices, whoever wrote them."""
    _compare_names(source, set(tensors), set(saved))
    for name, tensor in tensors.items():
        _compare_shapes(source, name, saved[name].size, tensor.shape)
    targets = {name: each.detach() for name, each in tensors.items()}
    reader = dcp.HuggingFaceStorageReader(str(source))
    try:
        with warnings.catch_warnings():
            # That it reads as one process is what is wanted: nobody has to wait for the others.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load(targets, storage_reader=reader, no_dist=True)
    except dcp.CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise _unreadable(source, first) from error


def _read_metadata(source: Path) -> dict[str, TensorStorageMetadata]:
    """Name to shape, type and slices of every tensor in the safetensors files of a folder.

    Raises:
        CheckpointError: a file cannot be read, or slices are missing; torch would leave what these
            should fill as it is.
    """
    try:
        found = dcp.HuggingFaceStorageReader(str(source)).read_metadata().state_dict_metadata
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _unreadable(source, error) from error
    saved = {name: each for name, each in found.items() if isinstance(each, TensorStorageMetadata)}
    for name, each in saved.items():
        if sum(math.prod(chunk.sizes) for chunk in each.chunks) != math.prod(each.size):
            raise CheckpointError(
                f"{source}: a file is missing, which holds a slice of {name}.", _COPY
            )
    return saved


def _read_counts(source: Path) -> dict[str, int]:
    """Numbers of a checkpoint's `progress.json`."""
    try:
        known = reading.read_object(source / _PROGRESS)
        return {name: int(value) for name, value in known.items()}
    except (DataError, ValueError, TypeError) as error:
        raise _unreadable(source / _PROGRESS, error) from error


def _unreadable(source: Path, reason: BaseException) -> CheckpointError:
    return CheckpointError(
        f"{source} cannot be read ({' '.join(str(reason).split())}).",
        "Copy the folder again, or delete it to go on without it.",
    )


def _empty_like_saved(saved: TensorStorageMetadata, parameter: nn.Parameter) -> Tensor:
    """Room for a tensor of the optimizer: sharded as its parameter is, else whole on the CPU."""
    if isinstance(parameter, DTensor) and saved.size == parameter.shape:
        return torch.empty_like(parameter, requires_grad=False)
    return torch.empty(saved.size, dtype=saved.properties.dtype)


def _saved_steps(folder: Path) -> list[Path]:
    """Complete resumable checkpoints under `folder`, oldest first."""
    return sorted(each for each in folder.glob("step-*") if each.is_dir())


def write_final(run: Run, stage: str, bundle: Bundle, alignment: nn.Module | None) -> None:
    """Write model, processor, recipe, graph layers and adapter, atomically.

    The weights of the model are whole; its adapters are merged here. A later stage goes on with the
    graph layers.

    Raises:
        DiskFullError: nothing was changed.
    """
    lora = run.recipe.stages[stage].lora
    save_adapter = None if lora is None else detach_adapter(bundle, lora)

    def beside(folder: Path) -> None:
        if save_adapter is not None:
            save_adapter(folder / "adapter")
        (folder / "recipe.yaml").write_text(recipe_yaml(run.recipe), encoding="utf-8")
        if alignment is not None:
            save_alignment(alignment, folder)
        digests.write_digests(folder)

    save_bundle(bundle, run.final(stage), beside)


def save_alignment(alignment: nn.Module, folder: Path) -> None:
    """Write the weights of message passing beside a checkpoint, so that stage 2 can go on."""
    state = {name: each.contiguous() for name, each in alignment.state_dict().items()}
    save_file(state, folder / "alignment.safetensors")


def load_alignment(alignment: nn.Module, file: Path) -> None:
    """Go on with the message-passing weights of an earlier aligned stage.

    Raises:
        CheckpointError: they do not fit the settings of this stage.
    """
    try:
        saved, own = load_file(file), alignment.state_dict()
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error
    _compare_names(file, set(own), set(saved))
    for name, value in saved.items():
        _compare_shapes(file, name, value.shape, own[name].shape)
    alignment.load_state_dict(saved)


def _compare_shapes(source: Path, name: str, saved: torch.Size, own: torch.Size) -> None:
    if saved != own:
        raise CheckpointError(
            f"{source}: {name} is {list(saved)}, not {list(own)}.",
            "Go on with the model and the recipe that the checkpoint was made with.",
        )


def _compare_names(source: Path, expected: set[str], found: set[str]) -> None:
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not fit this stage: missing {missing}, unexpected {unexpected}.",
            "Delete the checkpoint to start the stage again, or give the recipe it was made with.",
        )
