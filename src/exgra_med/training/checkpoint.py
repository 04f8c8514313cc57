"""Resumable checkpoints of a stage: what learns, the optimizer's state, the step. Safetensors only.

    checkpoints/<stage>/step-000040/{parameters,optimizer}.safetensors, progress.json
    checkpoints/<stage>/final/       the whole model, its processor, alignment.safetensors

Data order, noise and learning rate are functions of the step, so nothing else has to be kept but
the random state of torch.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exgra_med import files
from exgra_med.errors import CheckpointError
from exgra_med.training.eight_bit import plain_state, rebuilt_state

_STEP = "step-{:06d}"


def save_progress(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write `folder/step-N` whole or not at all, then drop the oldest beyond `keep`.

    Raises:
        DiskFullError: nothing was changed.
    """
    learning = learning_parameters(module)
    with files.new_folder(folder / _STEP.format(step)) as target:
        save_file(
            {name: each.detach() for name, each in learning.items()},
            target / "parameters.safetensors",
        )
        state = _optimizer_tensors(learning, optimizer) | {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["random.cuda"] = torch.cuda.get_rng_state()
        save_file(state, target / "optimizer.safetensors")
        (target / "progress.json").write_text(json.dumps({"step": step}), encoding="utf-8")
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
    learning = learning_parameters(module)
    saved = load_file(source / "parameters.safetensors")
    _compare_names(source, set(learning), set(saved))
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter.copy_(saved[name])
    state = load_file(source / "optimizer.safetensors")
    torch.set_rng_state(state.pop("random.cpu"))
    if "random.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.pop("random.cuda"))
    by_weight: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        if name:
            by_weight.setdefault(name, {})[kind] = value
    for name, plain in by_weight.items():
        optimizer.state[learning[name]] = rebuilt_state(plain, learning[name])
    return json.loads((source / "progress.json").read_text(encoding="utf-8"))["step"]


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
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"{file}: {name} is {list(value.shape)}, not {list(own[name].shape)}.",
                "The width of the language model differs.",
            )
    alignment.load_state_dict(saved)


def _optimizer_tensors(
    learning: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    return {
        f"{kind}/{name}": value
        for name, parameter in learning.items()
        for kind, value in plain_state(optimizer.state[parameter]).items()
    }


def _compare_names(source: Path, expected: set[str], found: set[str]) -> None:
    if expected == found:
        return
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    raise CheckpointError(
        f"{source} does not fit this stage: missing {missing}, unexpected {unexpected}.",
        "Start the stage afresh, or give the recipe the checkpoint was made with.",
    )
