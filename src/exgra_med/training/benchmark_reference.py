"""One stage-2 step the original's way, written after its behaviour, to measure ours against.

Three padded calls of the language model, logits of every position, means over padding, loops in
Python over the edges of the graphs, one matching problem after another. It uses our matching
solver: the original's cannot be installed here, and is slower.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from exgra_med.alignment import solve_matching
from exgra_med.alignment.barycenter import barycenter
from exgra_med.alignment.blackbox import hamming
from exgra_med.alignment.cost import matching_costs
from exgra_med.alignment.graph import knn_edges
from exgra_med.training.batch import Batch
from exgra_med.training.objective import Objective
from exgra_med.training.rows import IGNORED

PERTURBATION = 80


def reference_loss(objective: Objective, batch: Batch) -> Tensor:
    """The original's way of one step, on a batch of three padded calls."""
    model = objective.model
    features, (hidden, *texts) = objective.encode(batch)
    assert features is not None, "every record of the benchmark has an image"
    logits = model.get_output_embeddings()(hidden).float()
    targets = batch["calls"][0]["targets"]
    language = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    views = [features.float().mean(1), *(each.float().mean(1) for each in texts)]
    middle = barycenter(*views)
    total = language.new_zeros(())
    for view in views:
        for first, second in ((view, middle), (middle, view)):
            total = total + reference_direction(objective, first, second) / 6
    return language + total


def reference_direction(objective: Objective, first: Tensor, second: Tensor) -> Tensor:
    """One of the six problems: graphs, costs, matching and its black-box gradient."""
    align = objective.alignment
    assert align is not None, "the reference aligns"
    edges = knn_edges(first.detach())
    for nodes in (first, second):  # edge attributes that the original computes and never reads
        torch.stack([nodes[int(a)] - nodes[int(b)] for a, b in edges.T])
    one, other = (align.message_passing(nodes, edges) for nodes in (first, second))
    unary, quadratic = matching_costs(one[None], other[None], edges[None])
    found = solve_matching(unary.detach(), quadratic.detach(), edges[None])
    count = len(first)
    slope = (1 - 2 * torch.eye(count, device=first.device)) / (6 * count)
    moved = solve_matching(unary.detach() + PERTURBATION * slope, quadratic.detach(), edges[None])

    def one_hot(assignment: Tensor) -> Tensor:
        return F.one_hot(assignment[0].clamp(min=0), count) * (assignment[0] >= 0)[:, None]

    step = (one_hot(moved.assignment) - one_hot(found.assignment)) / PERTURBATION
    surrogate = (unary[0] * step.to(unary)).sum()
    return hamming(found.assignment).mean().to(unary) + surrogate - surrogate.detach()
