"""The processes of one launch (`accelerate launch`, `torchrun`), and full sharding (FSDP2).

Without sharding each process has a copy of the model (DDP). With it, weights, gradients and
optimizer state are sharded along the first dimension, in two kinds of groups: one for each layer of
the language model, gathered for the layer and freed after it; and one for the rest (embeddings,
last norm, head, projector, graph layers), gathered from the beginning of the forward pass to the
end of the backward pass. The frozen vision tower stays whole everywhere: it is small, and
transformers no longer records hidden states of a tower that is wrapped.

torch's own `fully_shard` instead of accelerate's plugin: that has one precision for everything, so
graph layers and embeddings would be computed in bfloat16.

Only the forward of the root module gathers the second group, so everything that calls parts of the
model goes through `Objective.forward` or `run_unsharded`.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psutil
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from exgra_med import files
from exgra_med.errors import ExgraMedError, RecipeError, RunError, TrainingError
from exgra_med.training.objective import Objective

Value = TypeVar("Value")
Result = TypeVar("Result")
TIMEOUT_MINUTES = 30
"""How long processes wait for one another. The main process works alone for minutes: it checks
files, writes weights, generates answers to held-out questions. NCCL's own 10 would end that."""
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": (
        "DeepSpeed",
        "It keeps weights, gradients and moments where checkpoints and clipping do not find them.",
    ),
    "ACCELERATE_USE_FSDP": (
        "FSDP",
        "Sharding is a setting of the recipe, so that a run can be repeated.",
    ),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "It brings its own models."),
}


def on_cpu() -> bool:
    """Whether there is no accelerator; accelerate needs to know, to use gloo then."""
    return not torch.accelerator.is_available()


def process_state(timeout_minutes: int = TIMEOUT_MINUTES) -> PartialState:
    """This process among the others of its launch; the first call joins them.

    Args:
        timeout_minutes: how long a process waits for another, from the first call on.

    Raises:
        TrainingError: they cannot reach one another.
    """
    if PartialState._shared_state:
        return PartialState()
    if on_cpu() and os.environ.get("WORLD_SIZE", "1") != "1":
        _name_network_interface()
    try:
        return PartialState(cpu=on_cpu(), timeout=timedelta(minutes=timeout_minutes))
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise TrainingError(
            f"The processes of this launch cannot reach one another ({_first_line(error)}).",
            "Does the address of the main process hold on every machine, and does a firewall let "
            "all ports pass between them? GLOO_SOCKET_IFNAME (on GPUs: NCCL_SOCKET_IFNAME) names "
            "the network interface.",
        ) from error


def _name_network_interface() -> None:
    """Let gloo use the network interface that leads to the main process.

    By itself it takes the address of the machine's own name, which on many is 127.0.1.1, and no
    other machine gets there.
    """
    place = os.environ.get("MASTER_ADDR"), int(os.environ.get("MASTER_PORT", "29500"))
    try:
        family, kind, _, _, address = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return  # joining the others says what is wrong
    for interface, addresses in psutil.net_if_addrs().items():
        if any(each.address == own for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


@contextmanager
def stop_with_the_others() -> Iterator[None]:
    """Turn a lost connection to another process into one sentence.

    Raises:
        TrainingError: a process of the launch has ended, or has been silent for too long.
    """
    try:
        yield
    except RuntimeError as error:
        if process_state().num_processes == 1 or not _is_of_connection(error):
            raise
        text = str(error)
        if "imed out" in text:
            raise TrainingError(
                "Another process of this launch has been silent for too long, so that training "
                "stopped here too.",
                "See whether every machine runs and is reached, then start all of them again with "
                "--resume: they go on from the last checkpoint. --timeout-minutes waits longer.",
            ) from error
        peer = re.search(r"\[(?:::ffff:)?([\da-fA-F.:]+)\]:\d+", text)
        where = f" on {peer[1]}" if peer else ""
        raise TrainingError(
            f"Another process of this launch{where} has ended, so that training stopped here too.",
            "Its own output says why. Start all of them again with --resume: they go on from the "
            "last checkpoint.",
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether NCCL, the store or gloo, whose errors have no class, lost a process."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@stop_with_the_others()
def on_main(function: Callable[[], Result]) -> Result | None:
    """Call a function on the main process alone; the others get None when it is done.

    Raises:
        ExgraMedError: it failed. All processes stop then, with its sentence, instead of waiting.
        TrainingError: another process has ended.
    """
    value, failure = None, None
    if process_state().is_main_process:
        try:
            value = function()
        except ExgraMedError as error:
            failure = error
    about = None if failure is None else (failure.message, failure.hint, failure.exit_code)
    told = broadcast_from_main(about)
    if failure is not None:
        raise failure
    if told is not None:
        stopped = TrainingError(f"The main process stopped: {told[0]}", told[1])
        stopped.exit_code = told[2]
        raise stopped
    return value


def check_shared_folder(folder: Path) -> None:
    """See that all processes have the same folder, not one each by the same name.

    Raises:
        RunError: some machine does not share it; all processes raise it.
    """
    if process_state().num_processes == 1:
        return
    is_main, name = process_state().is_main_process, uuid4().hex
    if is_main:
        with files.scratch_folder(folder / "shared") as mark:
            (mark / name).touch()
            broadcast_from_main(f"{mark.name}/{name}")
            missing = _hosts_where(False)
    else:
        missing = _hosts_where(not (folder / broadcast_from_main("")).is_file())
    if missing:
        raise RunError(
            f"{folder} on {missing} is another folder than that of the main process.",
            "All machines of a launch need one file system that they share; put the run folder "
            "there with --out.",
        )


def check_same_everywhere(what: str, value: Value) -> None:
    """See that all processes have what the main process has.

    Raises:
        RunError: some machine has something else; all processes raise it.
    """
    if process_state().num_processes == 1:
        return
    expected = broadcast_from_main(value)
    if others := _hosts_where(value != expected):
        raise RunError(
            f"{what} on {others} is not that of the main process.",
            "All machines of a launch need the same software and the same data.",
        )


def _hosts_where(found: bool) -> str:
    """Names of the machines on which something was found, for a sentence; the same everywhere."""
    return ", ".join(dict.fromkeys(gather_object([socket.gethostname()] * found)))


def refuse_other_engines() -> None:
    """Sharding is set by `stages.*.sharding`, not by the configuration of `accelerate launch`.

    Raises:
        RecipeError: `accelerate launch` is configured for DeepSpeed, FSDP or Megatron-LM, or has
            started one process where several were asked for.
    """
    # It names the main process wherever several are wanted, but without GPUs it starts one, which
    # would train alone.
    by_accelerate = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    if by_accelerate and on_cpu() and not {"RANK", "LOCAL_RANK", "PMI_RANK"} & os.environ.keys():
        raise RecipeError(
            "`accelerate launch` was asked for several processes, but without GPUs it starts only "
            "one on each machine, and each would train alone.",
            "Start them with `torchrun --nproc_per_node N -m exgra_med train ...`.",
        )
    for variable, (engine, reason) in _REFUSED.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise RecipeError(
                f"`accelerate launch` is configured for {engine}, which training does not use. "
                f"{reason}",
                "Launch without it, and set `stages.STAGE.sharding: full` to shard all weights.",
            )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context, or decorator, in which products are computed in the precision of a stage."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def broadcast_from_main(value: Value) -> Value:
    """The value that the main process has, on all of them."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def shard(objective: Objective, device: torch.device, precision: str, rows: Sequence[int]) -> None:
    """Shard an objective in place, over all processes.

    Under bfloat16 a layer is gathered in bfloat16 and computes as under autocast, but the weights
    of its norms are rounded too; gradients are reduced in float32, and shards are kept in float32.

    The objective is on the CPU, its trainable parameters already chosen. `rows` are the only rows
    of the input embeddings that are trained; empty where all or none are.
    """
    model: Any = objective.model
    tower = objective.bundle.tower.to(device)
    # What learns inside a tower, such as the merger of Qwen-VL, is sharded with the rest.
    whole = {weight for weight in tower.parameters() if not weight.requires_grad}
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (dist.get_world_size(),))}
    # Inputs are not cast: what runs between layers stays in float32, as under autocast.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bfloat16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for layer in model.get_decoder().layers:
        fully_shard(layer, mp_policy=policy, **options)
    fully_shard(objective, ignored_params=whole, **options)
    objective.sharded = True
    register_fsdp_forward_method(objective, "run")
    if rows:
        _train_rows_of_shard(model.get_input_embeddings().weight, rows)


def is_sharded(module: nn.Module) -> bool:
    """Whether any parameter of a module is sharded."""
    return any(isinstance(each, DTensor) for each in module.parameters())


def local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, which shares its memory; the tensor if it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def resharded_after(objective: nn.Module) -> Iterator[None]:
    """Free, at the end, what a forward pass without a backward pass has gathered."""
    yield
    if is_sharded(objective):
        objective.reshard()  # type: ignore


@torch.no_grad()
def run_unsharded(
    objective: Objective, device: torch.device, precision: str, function: Callable[[], Result]
) -> Result:
    """Call a function that uses parts of the sharded model, at the same time on all processes.

    Logits are those of the first process: with others, a token could differ by a rounding, and
    processes that generate different numbers of tokens would wait for one another for ever.
    """
    head = objective.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, inputs, output: _of_first(output))
    try:
        with resharded_after(objective), autocast(device, precision):
            return objective.run(function)
    finally:
        handle.remove()


@torch.no_grad()
def gather_on_main(module: nn.Module) -> None:
    """Make a module whole again on the main process; on others it must not be used any more.

    One tensor after another is gathered on the device, then moved to the main process's memory.
    """
    is_main = dist.get_rank() == 0
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if not isinstance(parameter, DTensor):
                continue
            if parameter not in whole:
                # Tied weights stay tied.
                full = parameter.full_tensor()
                kept = full.cpu() if is_main else full.new_empty(0)
                whole[parameter] = nn.Parameter(kept, requires_grad=parameter.requires_grad)
            setattr(child, name, whole[parameter])


def _train_rows_of_shard(weight: nn.Parameter, rows: Sequence[int]) -> None:
    """`trainable.train_rows` for a sharded matrix, which lost the hooks that it had when whole."""
    num_rows, mesh = weight.shape[0], weight.device_mesh  # type: ignore
    # `fully_shard` cuts even pieces; the last ones may be shorter or empty.
    size = -(-num_rows // mesh.size())
    first = min(mesh.get_local_rank() * size, num_rows)
    here = range(first, min(first + size, num_rows))
    others = torch.ones(len(here), 1, dtype=torch.bool)
    others[[row - here.start for row in rows if row in here]] = False

    def mask(parameter: Tensor) -> None:
        gradient: Any = parameter.grad
        local = local_shard(gradient)
        local.masked_fill_(others.to(local.device), 0.0)

    weight.register_post_accumulate_grad_hook(mask)


def _of_first(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    dist.broadcast(tensor, src=0)
    return tensor
