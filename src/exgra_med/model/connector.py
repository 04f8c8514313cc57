"""The dense connector: hidden states of the vision tower -> channels of the projector."""

from collections.abc import Sequence

import torch
from torch import Tensor


def connect(hidden_states: Sequence[Tensor], layers: list[list[int]], keep_first: bool) -> Tensor:
    """Mean over each group of layers, groups joined along the channels.

    Args:
        hidden_states: per layer [N, T, D_vision]; T counts the class token, where there is one.
        layers: groups of indices into `hidden_states`.
        keep_first: keep the first token; otherwise it is the class token and dropped.

    Returns:
        [N, P, groups * D_vision]. Means are taken in float32.
    """
    begin = 0 if keep_first else 1
    parts = []
    for group in layers:
        if len(group) == 1:
            parts.append(hidden_states[group[0]][:, begin:])
        else:
            stack = torch.stack([hidden_states[layer][:, begin:] for layer in group])
            parts.append(stack.float().mean(0).to(stack.dtype))
    return torch.cat(parts, -1)
