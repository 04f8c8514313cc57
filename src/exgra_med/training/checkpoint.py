"""Resumable checkpoints of a stage: what learns, the optimizer's state, the step. Safetensors only.

    checkpoints/<stage>/step-000040/{parameters,optimizer}.safetensors, progress.json
    checkpoints/<stage>/final/       the whole model, its processor, alignment.safetensors

Where weights are sharded, every process writes and reads its own rows (`training.shards`).

Data order, noise and learning rate are functions of the step, so nothing else has to be kept but
the random state of torch.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from exgra_med import files
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.model.lora import detach_adapter
from exgra_med.recipe.run_folder import Run, recipe_yaml
from exgra_med.training.distributed import is_sharded, of_main, own_part, process_state
from exgra_med.training.optimizer import plain_state, rebuilt_state

# Named tensors in a folder, one safetensors file for each process that keeps a share of them.
#
# NAME.safetensors                                 whole tensors
# NAME-00001-of-00008.safetensors, ...             each process's rows of them


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


_STEP = "step-{:06d}"
PARAMETERS = "parameters"
_OPTIMIZER = "optimizer"


def save_progress(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write `folder/step-N` whole or not at all, then drop the oldest beyond `keep`.

    Raises:
        DiskFullError: nothing was changed.
    """
    learning, sharded = learning_parameters(module), is_sharded(module)
    with folder_of_all(folder / _STEP.format(step), sharded) as target:
        save_tensors(target, PARAMETERS, learning, sharded)
        state = _optimizer_tensors(learning, optimizer) | {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["random.cuda"] = torch.cuda.get_rng_state()
        save_tensors(target, _OPTIMIZER, state, sharded)
        if process_state().is_main_process:
            progress = {"step": step, "num_processes": process_state().num_processes}
            (target / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    if process_state().is_main_process:
        for old in saved_steps(folder)[:-keep]:
            shutil.rmtree(old)


def restore_progress(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest `step-N` under `folder`.

    Returns:
        The number of finished steps; 0 where there is no checkpoint.

    Raises:
        CheckpointError: the checkpoint does not fit what learns in this stage.
    """
    steps = saved_steps(folder)
    if not steps:
        return 0
    source = steps[-1]
    progress = json.loads((source / "progress.json").read_text(encoding="utf-8"))
    here = process_state().num_processes
    if progress["num_processes"] != here:
        raise CheckpointError(
            f"{source} is of {progress['num_processes']} processes, and here "
            f"{'is' if here == 1 else 'are'} {here}: a step would have other records.",
            "Start as many processes as before.",
        )
    learning = learning_parameters(module)
    load_parameters(source, learning)
    state = load_tensors(source, _OPTIMIZER, is_sharded(module))
    torch.set_rng_state(state.pop("random.cpu"))
    if "random.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.pop("random.cuda"))
    by_weight: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        if name:
            by_weight.setdefault(name, {})[kind] = value
    for name, plain in by_weight.items():
        own = learning[name]
        rebuilt = rebuilt_state(plain, own)
        optimizer.state[own] = {kind: _spread(value, own) for kind, value in rebuilt.items()}
    return progress["step"]


@torch.no_grad()
def load_parameters(source: Path, learning: dict[str, nn.Parameter]) -> None:
    """Fill parameters from `source`, or what this process keeps of them.

    Raises:
        CheckpointError: names or shapes differ.
    """
    sharded = any(isinstance(each, DTensor) for each in learning.values())
    saved = load_tensors(source, PARAMETERS, sharded)
    _compare_names(source, set(learning), set(saved))
    for name, parameter in learning.items():
        own = own_part(parameter)
        _compare_shapes(source, name, saved[name], own)
        own.copy_(saved[name])


def saved_steps(folder: Path) -> list[Path]:
    """Whole resumable checkpoints under `folder`, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def learning_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter of everything that receives a gradient."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def save_alignment(alignment: nn.Module, folder: Path) -> None:
    """Write the weights of message passing beside a checkpoint, so that stage 2 can go on."""
    state = {name: each.contiguous() for name, each in alignment.state_dict().items()}
    save_file(state, folder / "alignment.safetensors")


def load_alignment(alignment: nn.Module, file: Path) -> None:
    """Go on with the message-passing weights of an earlier aligned stage.

    Raises:
        CheckpointError: they do not fit the settings of this stage.
    """
    saved, own = load_file(file), alignment.state_dict()
    _compare_names(file, set(own), set(saved))
    for name, value in saved.items():
        _compare_shapes(file, name, value, own[name])
    alignment.load_state_dict(saved)


def _optimizer_tensors(
    learning: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    return {
        f"{kind}/{name}": value
        for name, parameter in learning.items()
        for kind, value in plain_state(optimizer.state[parameter]).items()
    }


@torch.no_grad()
def _spread(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A tensor of the optimizer, spread as its parameter is; a counter stays on the CPU."""
    if not value.ndim or not isinstance(parameter, DTensor):
        return value
    state = torch.empty_like(parameter, requires_grad=False)
    own_part(state).copy_(value)
    return state


def _compare_shapes(source: Path, name: str, saved: Tensor, own: Tensor) -> None:
    if saved.shape != own.shape:
        raise CheckpointError(
            f"{source}: {name} is {list(saved.shape)}, not {list(own.shape)}.",
            "The width of the language model differs.",
        )


def _compare_names(source: Path, expected: set[str], found: set[str]) -> None:
    if expected == found:
        return
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    raise CheckpointError(
        f"{source} does not fit this stage: missing {missing}, unexpected {unexpected}.",
        "Start the stage afresh, or give the recipe the checkpoint was made with.",
    )


def write_final(run: Run, stage: str, bundle: Bundle, alignment: nn.Module | None) -> None:
    """Write model, processor, recipe, graph layers and adapter; whole or not at all.

    Args:
        run: the run.
        stage: name of the stage.
        bundle: the trained model, whose weights are whole; its adapters are merged here.
        alignment: graph layers that a later stage goes on with.

    Raises:
        DiskFullError: nothing was changed.
    """
    lora = run.recipe.stages[stage].lora
    adapter = None if lora is None else detach_adapter(bundle, lora)

    def beside(folder: Path) -> None:
        if adapter is not None:
            adapter.save(folder / "adapter")
        (folder / "recipe.yaml").write_text(recipe_yaml(run.recipe), encoding="utf-8")
        if alignment is not None:
            save_alignment(alignment, folder)

    save_bundle(bundle, run.final(stage), beside)
