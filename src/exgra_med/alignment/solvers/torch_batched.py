"""Annealing of many replicas at once in plain torch: needs no numba, runs on any device.

The costs of a problem become one matrix over pairs (node, label),

    C[(i, k), (j, l)] = Q[(i, j), (k, l)] + Q[(j, i), (l, k)],

so that the table M of state.py is U plus a sum of rows of C, and a change of label adds one row and
takes another away. In each step every replica of every problem draws one node and, at the
temperature of the step, one of its labels or none; the label's owner is ejected, or takes the
node's old label if that is cheaper.

C has n^4 entries, so problems are solved a few at a time and n is limited.
Shapes: p problems of one group, R replicas, N = n * n pairs, rows are (problem, replica).
"""

import torch

from exgra_med.alignment.solvers.protocol import UNMATCHED, Problems, Solution
from exgra_med.errors import MatchingError

LARGEST = 128
GROUP_ENTRIES = 2**28
"""Entries of C held at once (1 GiB)."""
REPLICAS = {"fast": 8, "thorough": 32}
SWEEPS = {"fast": 60, "thorough": 150}
HOT, COLD = 0.5, 0.02


def solve_batched(problems: Problems) -> Solution:
    """Anneal replicas of all problems side by side; no certificates.

    Raises:
        MatchingError: more than `LARGEST` nodes.
    """
    num_problems, num_nodes = problems.unary.shape[:2]
    if num_nodes > LARGEST:
        raise MatchingError(
            f"The torch solver stops at {LARGEST} nodes and was asked for {num_nodes}; "
            "use `anneal` with numba."
        )
    group = max(1, GROUP_ENTRIES // num_nodes**4)
    found = [
        _anneal(problems, slice(first, first + group)) for first in range(0, num_problems, group)
    ]
    assignment = torch.cat(found)
    return Solution(
        assignment=assignment,
        certified=torch.zeros(num_problems, dtype=torch.bool, device=assignment.device),
    )


def pair_costs(
    quadratic: torch.Tensor, edges: torch.Tensor, edges2: torch.Tensor, num_nodes: int
) -> torch.Tensor:
    """C [p, N, N] from Q [p, E, F] and both edge lists."""
    count, num_pairs = quadratic.shape[0], num_nodes * num_nodes
    costs = quadratic.new_zeros(count, num_pairs * num_pairs)
    tail, head = edges.long().clamp_min(0)[..., None].unbind(1)
    tail2, head2 = edges2.long().clamp_min(0)[..., None, :].unbind(1)
    at_tail, at_head = tail * num_nodes + tail2, head * num_nodes + head2
    present = (edges[:, 0, :, None] >= 0) & (edges2[:, 0, None, :] >= 0)
    values = torch.where(present, quadratic, 0.0).flatten(1)
    costs.scatter_add_(1, (at_tail * num_pairs + at_head).flatten(1), values)
    costs.scatter_add_(1, (at_head * num_pairs + at_tail).flatten(1), values)
    return costs.view(count, num_pairs, num_pairs)


def _anneal(problems: Problems, part: slice) -> torch.Tensor:
    unary, quadratic = problems.unary[part], problems.quadratic[part]
    device, num_nodes = unary.device, unary.shape[1]
    replicas = REPLICAS[problems.effort]
    costs = pair_costs(quadratic, problems.edges[part], problems.edges2[part], num_nodes)
    scale = quadratic.square().mean((1, 2)).sqrt() if quadratic[0].numel() else unary.abs().mean()
    scale = (scale + 1e-30).expand(unary.shape[0]).repeat_interleave(replicas)

    state = _Replicas(unary, costs, replicas)
    starts = [torch.arange(num_nodes, device=device).expand(unary.shape[0], -1)]
    if problems.start is not None:
        starts.append(problems.start[part].long())
    for node in range(num_nodes):
        for number, start in enumerate(starts):
            rows = torch.arange(number, state.labels.shape[0], replicas, device=device)
            state.relabel(rows, torch.full_like(rows, node), start[:, node])

    generator = torch.Generator(device).manual_seed(problems.seed)
    steps = SWEEPS[problems.effort] * num_nodes
    for step in range(steps):
        heat = HOT * (COLD / HOT) ** (step / steps) if step < 0.9 * steps else 0.0
        state.step(heat * scale, generator)
    best = state.best_cost.view(-1, replicas).argmin(1)
    chosen = state.best_labels.view(-1, replicas, num_nodes)
    return chosen[torch.arange(best.shape[0], device=device), best]


class _Replicas:
    """Matchings of all rows, their tables M and their costs."""

    def __init__(self, unary: torch.Tensor, costs: torch.Tensor, replicas: int) -> None:
        num_nodes = unary.shape[1]
        self.num_nodes = num_nodes
        self.pairs = num_nodes * num_nodes
        self.costs = costs.reshape(-1, self.pairs)
        self.problem = torch.arange(unary.shape[0], device=unary.device)
        self.problem = self.problem.repeat_interleave(replicas) * self.pairs
        self.rows = torch.arange(len(self.problem), device=unary.device)
        self.table = unary.repeat_interleave(replicas, 0).flatten(1).clone()
        # One more node and label take what is written for "nobody" and "unmatched".
        self.labels = torch.full((len(self.rows), num_nodes + 1), UNMATCHED, device=unary.device)
        self.owners = self.labels.clone()
        self.cost = self.table.new_zeros(len(self.rows))
        self.best_cost = self.cost.clone()
        self.best_labels = self.labels[:, :num_nodes].clone()

    def relabel(self, rows: torch.Tensor, nodes: torch.Tensor, labels: torch.Tensor) -> None:
        """Give one node of each row a free label, or -1; node -1 changes nothing."""
        old = torch.where(nodes >= 0, self.labels[rows, nodes], UNMATCHED)
        labels = torch.where(nodes >= 0, labels, UNMATCHED)
        for label, sign in ((old, -1.0), (labels, 1.0)):
            pair = nodes.clamp_min(0) * self.num_nodes + label.clamp_min(0)
            present = (label >= 0).to(self.table.dtype)
            if sign < 0:
                self.table[rows] -= present[:, None] * self.costs[self.problem[rows] + pair]
                self.cost[rows] -= present * self.table[rows, pair]
            else:
                self.cost[rows] += present * self.table[rows, pair]
                self.table[rows] += present[:, None] * self.costs[self.problem[rows] + pair]
        self.owners[rows, old] = UNMATCHED
        self.labels[rows, nodes] = labels
        self.owners[rows, labels] = nodes

    def step(self, heat: torch.Tensor, generator: torch.Generator) -> None:
        """Draw one node of each row and one label for it, at temperature `heat` [rows]."""
        n, rows = self.num_nodes, self.rows
        device = self.table.device
        node = torch.randint(n, rows.shape, generator=generator, device=device)
        old = self.labels[rows, node]
        own_pair = node * n + old.clamp_min(0)
        matched = old >= 0
        every = torch.arange(n, device=device)
        owner = self.owners[:, :n]
        taken = (owner >= 0) & (owner != node[:, None])
        other = owner.clamp_min(0)
        table = self.table.view(-1, n, n)
        here = table[rows, node]
        leave = torch.where(matched, here.gather(1, old.clamp_min(0)[:, None])[:, 0], 0.0)
        eject = table[rows[:, None], other, every]
        other_pair = other * n + every
        lost = self.costs[self.problem + own_pair].gather(1, other_pair)
        lost = torch.where(matched[:, None], lost, 0.0)
        new_pair = (node * n)[:, None] + every
        swap = table[rows[:, None], other, old.clamp_min(0)[:, None]]
        swap = (
            swap
            + self.costs[self.problem[:, None] + new_pair, other * n + old.clamp_min(0)[:, None]]
        )
        swap = torch.where(matched[:, None] & (swap < 0), swap, 0.0)
        rise = here - leave[:, None] + torch.where(taken, lost - eject + swap, 0.0)
        rise = torch.cat([rise, -leave[:, None]], 1)
        draw = torch.empty_like(rise).exponential_(generator=generator).clamp_min_(1e-30).log_()
        label = (rise + heat[:, None] * draw).argmin(1)
        label = torch.where(label == n, UNMATCHED, label)

        at = label.clamp_min(0)[:, None]
        gone = torch.where(
            (label >= 0) & taken.gather(1, at)[:, 0], owner.gather(1, at)[:, 0], UNMATCHED
        )
        swaps = (gone >= 0) & (swap.gather(1, at)[:, 0] < 0)
        self.relabel(rows, gone, torch.full_like(label, UNMATCHED))
        self.relabel(rows, node, label)
        self.relabel(rows, torch.where(swaps, gone, UNMATCHED), old)
        better = self.cost < self.best_cost - 1e-6
        self.best_cost = torch.where(better, self.cost, self.best_cost)
        self.best_labels = torch.where(better[:, None], self.labels[:, :n], self.best_labels)
