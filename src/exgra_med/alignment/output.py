"""What a step of the alignment gives: the loss, and what is cheap to know beside it."""

from dataclasses import dataclass, field

import torch

from exgra_med.alignment.blackbox import PendingMatching
from exgra_med.alignment.matching import MatchingResult


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
    ready: AlignmentOutput | None = field(default=None)

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


def plain_output(loss: torch.Tensor, accuracy: float, num_nodes: int) -> AlignmentOutput:
    """The output of a step that solved nothing."""
    return AlignmentOutput(
        loss=loss,
        matching_accuracy=accuracy,
        share_unmatched=0.0,
        share_certified=0.0,
        solver_milliseconds=0.0,
        num_nodes=num_nodes,
    )


def share_own(found: MatchingResult) -> float:
    """Share of nodes matched to themselves."""
    own = torch.arange(found.assignment.shape[1], device=found.assignment.device)
    return float((found.assignment == own).float().mean())
