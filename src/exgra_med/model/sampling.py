"""Which token comes next: the likeliest, or one drawn from the likely ones.

Shapes: B rows, V words of the vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from exgra_med.llm.request import Sampling

Choose = Callable[[Tensor], Tensor]
"""Logits [B, V] -> token ids [B]."""


def greedy(logits_BV: Tensor) -> Tensor:
    """The likeliest token of each row."""
    return logits_BV.argmax(-1)


def chooser(sampling: Sampling, device: torch.device) -> Choose:
    """How the next token is chosen under some settings.

    Args:
        sampling: temperature 0 or None takes the likeliest token; `top_p` keeps the smallest set of
            tokens with at least that probability (nucleus sampling, Holtzman et al. 2020); equal
            seeds give equal draws on the same device.
        device: where the logits are.
    """
    if not sampling.temperature:
        return greedy
    temperature = sampling.temperature
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    generator = torch.Generator(device).manual_seed(sampling.seed or 0)

    def choose(logits_BV: Tensor) -> Tensor:
        probabilities = nucleus((logits_BV.float() / temperature).softmax(-1), top_p)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)

    return choose


def nucleus(probabilities_BV: Tensor, top_p: float) -> Tensor:
    """Probabilities without what lies outside the most probable `top_p`; not normalised again."""
    if top_p >= 1:
        return probabilities_BV
    ordered, places = probabilities_BV.sort(-1, descending=True)
    # The first token is always kept, also where it alone is more probable than `top_p`.
    before = ordered.cumsum(-1) - ordered
    return probabilities_BV.scatter(-1, places, torch.where(before < top_p, ordered, 0.0))
