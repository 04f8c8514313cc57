"""Losses without graphs, to compare the alignment with.

Each takes two views [B, D] in which row b of both is the same sample; `control_loss` takes the mean
over the pairs of views.
"""

from itertools import combinations

import torch
from torch.nn import functional as F

TEMPERATURE = 0.07
SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0
TRANSPORT_TEMPERATURE, TRANSPORT_ROUNDS = 0.05, 20


def infonce(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy of cosines over 0.07 (van den Oord et al. 2018; CLIP 2021)."""
    logits = cosines(first, second) / TEMPERATURE
    own = torch.arange(logits.shape[0], device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def siglip(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sigmoid loss of every pair, -log sigmoid(z (10 cos - 10)), sum over B (Zhai et al. 2023)."""
    logits = SIGLIP_SCALE * cosines(first, second) + SIGLIP_BIAS
    signs = 2 * torch.eye(logits.shape[0], device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / logits.shape[0]


def optimal_transport(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """-log of the plan's diagonal; plan = Sinkhorn of exp(cos / 0.05), uniform marginals."""
    plan = cosines(first, second) / TRANSPORT_TEMPERATURE
    for _ in range(TRANSPORT_ROUNDS):
        plan = plan - plan.logsumexp(1, keepdim=True)
        plan = plan - plan.logsumexp(0, keepdim=True)
    return -plan.diagonal().mean()


CONTROLS = {"infonce": infonce, "siglip": siglip, "optimal-transport": optimal_transport}


def control_loss(name: str, *views: torch.Tensor) -> torch.Tensor:
    """Mean of a control over image-answer and, with three views, image-extended and
    answer-extended."""
    losses = [CONTROLS[name](first, second) for first, second in combinations(views, 2)]
    return sum(losses[1:], losses[0]) / len(losses)


def retrieval_accuracy(*views: torch.Tensor) -> float:
    """Share of samples whose most similar partner is their own, mean over both directions of
    every pair of views."""
    own = torch.arange(views[0].shape[0], device=views[0].device)
    shares = [
        (similarity.argmax(1) == own).float().mean()
        for first, second in combinations(views, 2)
        for similarity in (cosines(first, second), cosines(second, first))
    ]
    return float(torch.stack(shares).mean())


def cosines(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Cosine of every pair of rows, [B, B]."""
    return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
