"""AdamW, in full or with moments of 8 bits, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from exgra_med.recipe.schema import StageSettings
from exgra_med.training.eight_bit import build_eight_bit


def build_optimizer(
    parameters: Iterable[nn.Parameter], stage: StageSettings
) -> torch.optim.Optimizer:
    """AdamW with torch's default betas, as the original's trainer uses.

    Raises:
        MissingExtraError: 8 bits are asked for without torchao.
    """
    build = build_eight_bit if stage.optimizer == "adamw8bit" else torch.optim.AdamW
    return build(list(parameters), lr=stage.learning_rate, weight_decay=stage.weight_decay)


def learning_rate(stage: StageSettings, step: int, total_steps: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then half a cosine or a plateau."""
    warmup_steps = math.ceil(stage.warmup_fraction * total_steps)
    if step < warmup_steps:
        return stage.learning_rate * step / warmup_steps
    if stage.schedule == "constant":
        return stage.learning_rate
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return stage.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set it in every parameter group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value
