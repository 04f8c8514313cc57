"""AdamW, with moments in the type of the weights or in 8 bits, and the learning-rate scheduler."""

import math
from collections.abc import Iterable, Mapping
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import get_scheduler

from exgra_med.errors import MissingExtraError
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageSettings

# `adamw8bit` is torchao's (Dettmers et al., arXiv 2110.02861): moments of tensors of at least 4096
# weights, in whole blocks of 256, are codes of a byte with a scale for each block; smaller tensors
# keep moments in the type of the weight. The update itself is in float32. bfloat16 weights are
# rounded stochastically, so that they are right on average.
BLOCK = 256
SMALLEST = 4096
BYTES = 2 * (1 + 4 / BLOCK)
"""Bytes of both moments of a weight: codes, and a float32 scale for each block."""
_PARTS = ("codes", "scale", "qmap")


def is_eight_bit(num_weights: int) -> bool:
    """Whether the moments of a tensor of that size are kept in 8 bits."""
    return num_weights >= SMALLEST and num_weights % BLOCK == 0


def check_eight_bit_possible() -> None:
    """Check that torchao is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if util.find_spec("torchao") is None:
        raise MissingExtraError("`optimizer: adamw8bit`", "optim")


def build_eight_bit(parameters: list[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """torchao's AdamW8bit; its step is compiled on an accelerator and not on a CPU.

    Raises:
        MissingExtraError: torchao is not installed.
    """
    check_eight_bit_possible()
    from torchao.optim import AdamW8bit  # type: ignore

    class EightBitAdamW(AdamW8bit):
        def step(self, closure: Any = None) -> Any:
            groups = self.param_groups
            on_cpu = all(each.device.type == "cpu" for own in groups for each in own["params"])
            with torch.compiler.set_stance("force_eager" if on_cpu else "default"):
                return super().step(closure)

    return EightBitAdamW(
        parameters, lr=lr, weight_decay=weight_decay, block_size=BLOCK, bf16_stochastic_round=True
    )


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of one weight as plain tensors: 8-bit moments become `NAME.codes`, ..."""
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        if hasattr(value, "codes"):
            plain |= {f"{name}.{part}": getattr(value, part) for part in _PARTS}
        else:
            plain[name] = value
    return plain


def rebuilt_state(plain: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """The inverse of `plain_state`, on the device of the weight."""
    state: dict[str, Tensor] = {}
    for name, value in plain.items():
        moment, _, part = name.partition(".")
        if not part:
            state[name] = value if name == "step" else value.to(parameter.device)
        elif part == "codes":
            from torchao.optim.subclass_8bit import OptimState8bit  # type: ignore

            codes, scale, qmap = (plain[f"{moment}.{each}"].to(parameter.device) for each in _PARTS)
            signed = bool(qmap.min() < 0)
            state[moment] = OptimState8bit(codes, scale, qmap, signed, dtype=parameter.dtype)
    return state


def parameter_groups(
    bundle: Bundle, parameters: Iterable[nn.Parameter], stage: StageSettings
) -> list[dict[str, Any]]:
    """Trainable parameters by their highest learning rate, as torch's optimizers take them.

    The first group has the stage's own rate, so that its rate is the one to log; it is empty where
    every part has a rate of its own. Adapters are of the language model, graph layers of no part.
    """
    own = {
        id(weight): rate
        for name, rate in stage.learning_rates.items()
        for weight in bundle.part(name)
    }
    groups: dict[float, list[nn.Parameter]] = {stage.learning_rate: []}
    for each in parameters:
        groups.setdefault(own.get(id(each), stage.learning_rate), []).append(each)
    return [{"params": members, "lr": rate} for rate, members in groups.items()]


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], stage: StageSettings
) -> torch.optim.Optimizer:
    """AdamW with torch's default betas, as the original's trainer uses.

    Parameters have the stage's learning rate, groups of them the rate that they say.

    Raises:
        MissingExtraError: `adamw8bit` without torchao.
    """
    learning: Any = list(parameters)
    about: dict[str, Any] = {"lr": stage.learning_rate, "weight_decay": stage.weight_decay}
    if stage.optimizer == "adamw8bit":
        return build_eight_bit(learning, **about)
    weights = [
        each for own in learning for each in (own["params"] if isinstance(own, dict) else [own])
    ]
    # On a CPU, torch's own choice goes over a weight once for each of a dozen operations: 0.63 s
    # for 133 million weights, and 0.11 s fused.
    fused = all(each.device.type == "cpu" and not isinstance(each, DTensor) for each in weights)
    return torch.optim.AdamW(learning, **about, fused=fused or None)


def build_scheduler(
    optimizer: torch.optim.Optimizer, stage: StageSettings, total_steps: int, done: int
) -> LambdaLR:
    """The learning-rate scheduler of a stage, at the place that `done` finished steps have reached.

    The learning rate is a function of the step alone, so a checkpoint stores nothing of it.
    """
    # Rounded up, as transformers' Trainer does.
    warmup_steps = math.ceil(stage.warmup_ratio * total_steps)
    scheduler = get_scheduler(stage.lr_scheduler, optimizer, warmup_steps, total_steps)
    # `get_scheduler` begins at step 0 only; torch's own class begins anywhere.
    return LambdaLR(optimizer, scheduler.lr_lambdas, last_epoch=done - 1)
