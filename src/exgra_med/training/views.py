"""How the views of held-out records lie to each other: the bare pooled embeddings, no graph layers.

The matching accuracy that training reports goes through message passing and the barycenter, which
flatters it (docs/log.md). What is measured here is the same for every method, with or without
alignment: image and answer are matched as they are.

Shapes: M nodes of one batch, D width of the language model.
"""

from typing import Any

from torch import Tensor

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.diagnostics import cosine_histograms, view_diagnostics


def image_answer_accuracy(image: Tensor, answer: Tensor) -> float:
    """Share of nodes matched to their own partner, image to answer and back: graphs of 5 nearest
    neighbours on the bare embeddings [M, D], no message passing, noise or dropout."""
    ruler = MultiGraphAlignment(
        image.shape[1], objective="pairwise", views="image-answer", num_layers=0
    )
    return ruler.matching_accuracy(image, answer, None)


class ViewFigures:
    """Figures of the views of several batches: means over their nodes, sums of histograms.

    Candidates are the nodes of one batch, so figures compare only between equal batch sizes.
    """

    def __init__(self) -> None:
        self.num_nodes = self.num_graphs = 0
        self.sums: dict[str, float] = {}
        self.histograms: dict[str, dict[str, list[int]]] = {}

    def add(self, image: Tensor, answer: Tensor, extended: Tensor | None) -> None:
        """Count one batch."""
        nodes = image.shape[0]
        self.num_nodes, self.num_graphs = self.num_nodes + nodes, self.num_graphs + 1
        for name, value in view_diagnostics(image, answer, extended).items():
            self.sums[name] = self.sums.get(name, 0.0) + nodes * value
        for pair, counted in cosine_histograms(image, answer, extended).items():
            known = self.histograms.setdefault(pair, {})
            for kind, counts in counted.items():
                before = known.get(kind, [0] * len(counts))
                known[kind] = [a + b for a, b in zip(before, counts, strict=True)]

    def figures(self) -> dict[str, Any]:
        """`num_nodes`, `chance` (mean of 1 / M over nodes), the figures of `view_diagnostics`, and
        `histograms` of cosines: pair -> `own`, `other` -> 20 counts from -1 to 1."""
        return {
            "num_nodes": self.num_nodes,
            "chance": self.num_graphs / self.num_nodes,
            **{name: value / self.num_nodes for name, value in self.sums.items()},
            "histograms": self.histograms,
        }
