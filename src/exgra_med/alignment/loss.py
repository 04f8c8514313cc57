"""The alignment loss: three sets of pooled embeddings in, one number out.

    views: image, answer, extended [B, D]; barycenter = their mean
    for each ordered pair (first, second) of the objective, six for `barycenter`:
        edges  = k nearest neighbours among the nodes of `first`            graph.py
        h1, h2 = dropout(message passing(nodes, edges)), shared weights     graph.py
        U, Q   = costs of matching nodes and edges, with Gumbel noise       cost.py
        X      = argmin over partial matchings                              solvers/
    loss = mean over pairs of Hamming(X, I)                                 blackbox.py

Shapes: B samples = nodes of each graph, D features, P ordered pairs, E edges, S noise samples.
Source: ExGra-Med, NeurIPS 2025 (arXiv 2410.02615).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from exgra_med.alignment.blackbox import PendingMatching
from exgra_med.alignment.controls import control_loss, retrieval_accuracy
from exgra_med.alignment.cost import add_noise, gumbel, matching_costs
from exgra_med.alignment.diagnostics import NAMES
from exgra_med.alignment.graph import MessagePassing, build_edges, pad_edges
from exgra_med.alignment.matching import MatchingResult, solve_matching
from exgra_med.alignment.settings import AlignmentSettings, Scope
from exgra_med.alignment.solvers import SOLVERS
from exgra_med.errors import MatchingError

# Graphs over the samples of all ranks instead of those of one.
#
# Each rank embeds its own samples and gathers those of the others; every rank then builds the same
# graphs and, with equal seeds, solves the same problems to the same matchings. The gradient of the
# gather is the sum over ranks, of which each keeps its own rows, so that averaging over ranks (as
# DDP and FSDP do) gives the gradient of one process with the whole batch.


def gather_views(views: list[torch.Tensor], scope: Scope) -> list[torch.Tensor]:
    """Views [B, D] of this rank, or of all ranks one after the other: a list of [sum of B, D].

    B may differ between ranks; all views have the same B and dtype.
    """
    if scope == "local" or not _in_group():
        return views
    together = _Gather.apply(torch.cat(views, dim=1))
    return list(together.chunk(len(views), dim=1))


def shared_seed(seed: int, scope: Scope, device: torch.device) -> int:
    """The seed of the first rank, on all ranks, where graphs are global."""
    if scope == "local" or not _in_group():
        return seed
    value = torch.tensor([seed], dtype=torch.long, device=device)
    dist.broadcast(value, src=0)
    return int(value)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """All ranks' rows; backward sums over ranks and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        count = torch.tensor([rows.shape[0]], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        ctx.counts = [int(number) for number in counts]
        padded = rows.new_zeros(max(ctx.counts), rows.shape[1])
        padded[: rows.shape[0]] = rows
        found = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:n] for part, n in zip(found, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()]


# The barycenter graph has the mean of a sample's three views as its node; gradients flow through it
# to all three.
#
# Source: ExGra-Med, "Multi-graph alignment via the barycenter graph": matching each view with one
# common graph costs 3 pairs of graphs where matching all views with each other grows quadratically.
IMAGE, ANSWER, EXTENDED, BARYCENTER = range(4)

PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "barycenter": ((IMAGE, BARYCENTER), (ANSWER, BARYCENTER), (EXTENDED, BARYCENTER)),
    "pairwise": ((IMAGE, ANSWER), (IMAGE, EXTENDED), (ANSWER, EXTENDED)),
}
PAIRS["all"] = PAIRS["barycenter"] + PAIRS["pairwise"]

VIEWS: dict[str, tuple[int, ...]] = {
    "all": (IMAGE, ANSWER, EXTENDED),
    "image-answer": (IMAGE, ANSWER),
    "exchanged": (IMAGE, ANSWER, EXTENDED),
}
"""Which views take part; without the extended answers the barycenter is the mean of two."""


def barycenter(*views: torch.Tensor) -> torch.Tensor:
    """Mean of the views, [B, D]."""
    return sum(views[1:], views[0]) / len(views)


def directed_pairs(objective: str, views: str = "all") -> tuple[tuple[int, int], ...]:
    """Ordered pairs (first graph, second graph); the first one's edges serve both.

    A control matches no graphs and has no pairs; pairs with a view outside of `VIEWS[views]` are
    left out.
    """
    present = {*VIEWS[views], BARYCENTER}
    return tuple(
        pair
        for first, second in PAIRS.get(objective, ())
        if {first, second} <= present
        for pair in ((first, second), (second, first))
    )


@dataclass(frozen=True, kw_only=True)
class AlignmentOutput:
    """Loss of one step and what is cheap to know beside it.

    Attributes:
        loss: scalar float32, differentiable.
        matching_accuracy: share of nodes matched to themselves, under noise and dropout.
        share_unmatched: share of nodes left without a partner.
        share_certified: share of matchings proven optimal.
        solver_milliseconds: time in the solver for the forward problems; the first call of an
            installation compiles the solver, and counts it.
        num_nodes: B, the size of the graphs.
    """

    loss: torch.Tensor
    matching_accuracy: float
    share_unmatched: float
    share_certified: float
    solver_milliseconds: float
    num_nodes: int


@dataclass(frozen=True)
class PendingAlignment:
    """A loss whose matchings are under way; do other work, then call `result`."""

    matching: PendingMatching | None
    ready: AlignmentOutput | None = None

    def result(self) -> AlignmentOutput:
        """Wait for the matchings of the forward problems and return the loss."""
        if self.matching is None:
            assert self.ready is not None
            return self.ready
        found = self.matching.found.result()
        return AlignmentOutput(
            loss=self.matching.loss(),
            matching_accuracy=share_own(found),
            share_unmatched=float((found.assignment < 0).float().mean()),
            share_certified=float(found.certified.float().mean()),
            solver_milliseconds=found.milliseconds,
            num_nodes=found.assignment.shape[1],
        )


def share_own(found: MatchingResult) -> float:
    """Share of nodes matched to themselves."""
    own = torch.arange(found.assignment.shape[1], device=found.assignment.device)
    return float((found.assignment == own).float().mean())


Generator = np.random.Generator | torch.Generator | int | None


class MultiGraphAlignment(nn.Module):
    """Align three views of a batch by matching their graphs.

    Args:
        dim: D, features of an embedding.
        settings: defaults where absent.
        changes: settings by name, over `settings`: `MultiGraphAlignment(32, neighbours=3)`.

    Raises:
        MatchingError: no setting has such a name, a value has no meaning, or the solver cannot be
            loaded.

    Example:
        >>> align = MultiGraphAlignment(32)
        >>> views = [torch.randn(8, 32, requires_grad=True) for _ in range(3)]
        >>> align(*views, generator=0).loss.backward()

    A batch of one sample, or of none, has nobody to be confused with: its loss is 0 and its
    accuracy 1.

    Everything random in a step (noise, dropout, search) comes from `generator`: a numpy generator
    whose state belongs in the checkpoint (`generator.bit_generator.state`), a torch generator, a
    number, or None for a seed from torch's global generator. Weights are moved by `.to(device)`.
    """

    def __init__(self, dim: int, settings: AlignmentSettings | None = None, **changes: Any) -> None:
        super().__init__()
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise MatchingError(f"dim={dim!r} is not a whole number of 1 or more.")
        self.settings = own = AlignmentSettings.checked(settings, changes)
        self.dim = dim
        self.scope: Scope = own.scope
        """As in the settings; evaluation sets it to `local` for a while."""
        self.pairs = directed_pairs(own.objective, own.views)
        self.num_views = len(VIEWS[own.views])
        # Found once: looking for plug-ins takes longer than a matching.
        self._solver = SOLVERS.find(own.solver)
        self.message_passing = MessagePassing(dim, own.num_layers if self.pairs else 0)

    def forward(
        self,
        image: torch.Tensor,
        answer: torch.Tensor,
        extended: torch.Tensor | None,
        *,
        generator: Generator = None,
    ) -> AlignmentOutput:
        """Loss of one batch: `image`, `answer`, `extended` are [B, D] of any float dtype.

        Row b of each is the same sample; `generator` as for the class. `extended` may be none
        where the views are `image-answer`.

        Raises:
            MatchingError: shapes do not fit, NaN or infinity, or no source of randomness.
        """
        return self.begin(image, answer, extended, generator=generator).result()

    def begin(
        self,
        image: torch.Tensor,
        answer: torch.Tensor,
        extended: torch.Tensor | None,
        *,
        generator: Generator = None,
    ) -> PendingAlignment:
        """Compute the costs and hand them to the worker; `forward` without the waiting."""
        # Graphs and costs stay in float32 under mixed precision (graph.py and cost.py say why).
        with torch.autocast(image.device.type, enabled=False):
            views = gather_views(self._views(image, answer, extended), self.scope)
            if views[0].shape[0] < 2 or not self.pairs:
                check_finite(views)
                return PendingAlignment(None, self._without_matching(views))
            unary, quadratic, edges, seed = self.costs(views, generator=generator)
            given = [view.detach() for view in views]

            def solve(u: torch.Tensor, q: torch.Tensor, start: torch.Tensor | None) -> Any:
                # Here and not before: the worker may wait for the device, the forward pass not.
                check_finite(given)
                return self._solve(u, q, edges, seed, start)

            matching = PendingMatching(
                unary,
                quadratic,
                edges,
                solve,
                perturbation=self.settings.perturbation,
                samples=self.settings.noise_samples,
                compatible=self.settings.estimator == "compatible",
            )
            return PendingAlignment(matching)

    def costs(
        self, views: list[torch.Tensor], *, generator: Generator = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Noisy costs of all problems of a step, and the seed of their solver.

        Args:
            views: two or three [B, D] float32, B at least 2.
            generator: source of dropout (in training), noise and the seed.

        Returns:
            unary [S * P, B, B], quadratic [S * P, E, E], edges [S * P, 2, E], seed.
        """
        stream, seed = _step_generator(generator, views[0].device, self.scope)
        first, second, edges = self.problem_nodes(views)
        dropout = self.settings.dropout
        if self.training and dropout:
            # Not torch's dropout, which draws from the global generator: a step has to be the same
            # however often the others drew before it.
            keep = torch.rand((2, *first.shape), device=first.device, generator=stream)
            kept = (keep >= dropout).float() / (1 - dropout)
            first, second = first * kept[0], second * kept[1]
        unary, quadratic = matching_costs(first, second, edges)
        unary, quadratic = self._add_noise(unary, quadratic, stream)
        return unary, quadratic, edges.repeat(self.settings.noise_samples, 1, 1), seed

    @torch.no_grad()
    def matching_accuracy(
        self,
        image: torch.Tensor,
        answer: torch.Tensor,
        extended: torch.Tensor | None,
        *,
        message_passing: bool = True,
    ) -> float:
        """Share of nodes matched to themselves, mean over pairs, without noise or dropout.

        `image`, `answer` and `extended` are [B, D], as in `forward`.
        Without `message_passing` the bare embeddings are matched. Graph layers can learn to match
        what embeddings do not show, and they do not stay with the model. With the objective
        `barycenter` even unrelated views match up to 1.0, since the barycenter contains each of
        them: to watch training use a module with `objective="pairwise", num_layers=0`.
        """
        with torch.autocast(image.device.type, enabled=False):
            views = gather_views(self._views(image, answer, extended), self.scope)
            check_finite(views)
            if views[0].shape[0] < 2:
                return 1.0
            if not self.pairs:
                return retrieval_accuracy(*views)
            first, second, edges = self.problem_nodes(views, message_passing)
            unary, quadratic = matching_costs(first, second, edges)
            return share_own(self._solve(unary, quadratic, edges))

    def problem_nodes(
        self, views: list[torch.Tensor], message_passing: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Nodes of all P pairs after message passing.

        A set of nodes passes messages once over each edge list that it meets, although several
        pairs may use the result (for `barycenter` 10 passes instead of 12).

        Args:
            views: two or three [B, D] float32.
            message_passing: False leaves the nodes as they are.

        Returns:
            nodes of the first and of the second graphs, [P, B, D] each, and edges [P, 2, E].
        """
        sets = dict(enumerate(views)) | {BARYCENTER: barycenter(*views)}
        edges = {
            first: build_edges(sets[first], self.settings.graph, self.settings.neighbours)
            for first, _ in self.pairs
        }
        passes = sorted({(node, pair[0]) for pair in self.pairs for node in pair})
        num_nodes = views[0].shape[0]
        shifted = [edges[first] + num * num_nodes for num, (_, first) in enumerate(passes)]
        # Side by side as one large graph without edges between its parts: one call of each layer.
        nodes = torch.cat([sets[node] for node, _ in passes])
        if message_passing:
            nodes = self.message_passing(nodes, torch.cat(shifted, dim=1))
        passed = nodes.view(len(passes), num_nodes, -1)
        number = {key: num for num, key in enumerate(passes)}
        return (
            passed[[number[first, first] for first, _ in self.pairs]],
            passed[[number[second, first] for first, second in self.pairs]],
            pad_edges([edges[first] for first, _ in self.pairs]),
        )

    def _solve(
        self,
        unary: torch.Tensor,
        quadratic: torch.Tensor,
        edges: torch.Tensor,
        seed: int = 0,
        start: torch.Tensor | None = None,
    ) -> MatchingResult:
        how = {"start": start, "effort": self.settings.effort}
        return solve_matching(unary, quadratic, edges, self._solver, seed, **how)

    def _views(self, *views: torch.Tensor | None) -> list[torch.Tensor]:
        check_views(views[: self.num_views], self.dim)
        given = [view.float() for view in views[: self.num_views] if view is not None]
        if self.settings.views == "exchanged":
            # Right texts with the wrong pictures: a node has those of the node behind it.
            given[EXTENDED] = given[EXTENDED].roll(-1, 0)
        return given

    def _add_noise(
        self, unary: torch.Tensor, quadratic: torch.Tensor, stream: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """S noisy copies of the costs, [S * P, ...]; node noise is shared by the P pairs."""
        # One draw for the nodes of all pairs is the original's: the noise belongs to the pair of
        # samples, whichever graphs they are seen in. Edges differ from pair to pair.
        copies, scale = self.settings.noise_samples, self.settings.noise_scale
        nodes = gumbel((copies, 1, *unary.shape[1:]), scale, stream, unary.device)
        edges = gumbel((copies, *quadratic.shape), scale, stream, unary.device)
        unary, quadratic = add_noise(unary, quadratic, nodes, edges)
        return unary.flatten(0, 1), quadratic.flatten(0, 1)

    def _without_matching(self, views: list[torch.Tensor]) -> AlignmentOutput:
        """The loss of a control. One sample has nobody to be confused with: loss 0, all parameters
        in the graph. Nor has none, as in a batch without images."""
        num_nodes, accuracy = len(views[0]), 1.0
        if self.pairs or num_nodes == 0:
            # In the graph: processes that train together wait for a gradient of every weight.
            nothing = torch.empty((2, 0), dtype=torch.long, device=views[0].device)
            loss = 0.0 * self.message_passing(barycenter(*views), nothing).sum()
        else:
            loss = control_loss(self.settings.objective, *views)
            with torch.no_grad():
                accuracy = retrieval_accuracy(*views)
        return AlignmentOutput(
            loss=loss,
            matching_accuracy=accuracy,
            share_unmatched=0.0,
            share_certified=0.0,
            solver_milliseconds=0.0,
            num_nodes=num_nodes,
        )


def check_views(views: Sequence[Any], dim: int) -> None:
    """Refuse views that are not [B, dim] each; B may be 0.

    Raises:
        MatchingError: one is missing, no tensor, or of another shape.
    """
    shapes = []
    for name, view in zip(NAMES, views, strict=False):
        if not isinstance(view, torch.Tensor):
            given = "none" if view is None else type(view).__name__
            raise MatchingError(f"The view {name!r} is {given}, not a tensor [B, D].")
        shapes.append(f"{name} {list(view.shape)}")
    if any(view.ndim != 2 for view in views) or len({view.shape for view in views}) != 1:
        raise MatchingError(f"The views have shapes {', '.join(shapes)}, not [B, D] each.")
    if views[0].shape[1] != dim:
        raise MatchingError(
            f"The views have {views[0].shape[1]} features each; this module was made for {dim}."
        )


def check_finite(views: Sequence[torch.Tensor]) -> None:
    """Refuse NaN and infinity, which would else show as a graph that makes no sense.

    Raises:
        MatchingError: with the view and the rows.
    """
    # Infinity and NaN stay in a sum; only where there are any is each row looked at.
    if bool(torch.isfinite(torch.stack([view.sum() for view in views])).all()):
        return
    for name, view in zip(NAMES, views, strict=False):
        rows = (~torch.isfinite(view).all(1)).nonzero()[:, 0].tolist()
        if rows:
            more = ", ..." if len(rows) > 8 else ""
            listed = ", ".join(map(str, rows[:8])) + more
            raise MatchingError(
                f"The view {name!r} holds NaN or infinity in rows {listed}: look at what made it, "
                "in mixed precision first."
            )


def _step_generator(
    generator: Generator, device: torch.device, scope: Scope
) -> tuple[torch.Generator, int]:
    """A torch generator on the device and the solver's seed, both from one source."""
    if generator is None or isinstance(generator, torch.Generator):
        place = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**62, (1,), generator=generator, device=place))
    else:
        try:
            seed = int(np.random.default_rng(generator).integers(2**62))
        except (TypeError, ValueError) as error:
            raise MatchingError(
                f"{generator!r} is no source of randomness: give a numpy or torch generator, a "
                "whole number from 0, or none."
            ) from error
    # Processes with the same global graphs have to draw the same noise.
    seed = shared_seed(seed, scope, device)
    return torch.Generator(device).manual_seed(seed), seed % 2**31
