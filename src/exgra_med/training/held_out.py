"""What is measured on held-out records: losses, matching accuracy, and the best checkpoint.

There is no dropout. The matching accuracy is without noise; the alignment loss has the noise of one
fixed seed.

    checkpoints/<stage>/best/   parameters.safetensors (trainable parameters), score.json
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from operator import call
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.diagnostics import NAMES, cosine_histograms, view_diagnostics
from exgra_med.errors import CheckpointError, ExgraMedError
from exgra_med.model.batch import Batch, StageDataset, to_device
from exgra_med.model.bundle import Bundle
from exgra_med.reading import read_object
from exgra_med.recipe.run_folder import check_checkpoint
from exgra_med.training.checkpoint import (
    PARAMETERS,
    load_parameters,
    new_checkpoint,
    save_tensors,
    trainable_parameters,
)
from exgra_med.training.distributed import broadcast_from_main, is_sharded, process_state
from exgra_med.training.objective import Objective
from exgra_med.training.order import image_groups, plan_epoch

_ORDER_SEED = 0
_NOISE_SEED = 0
Scorer = Callable[[Bundle], float]
"""Score of a model on held-out questions, higher is better; given by the layer above."""


def pair_accuracies(
    image: Tensor, answer: Tensor, extended: Tensor | None = None
) -> dict[str, float]:
    """How often the bare embeddings of a node find their own partner, pair by pair of views.

    The matching accuracy that training reports goes through message passing and the barycenter,
    which flatters it (docs/log.md). This one is the same for every method, with or without
    alignment: graphs of 5 nearest neighbours on the bare embeddings, no noise, no dropout.
    The views are [M, D] for M nodes of one batch, D the width of the language model.

    Returns:
        For each pair such as `image_answer`: `/accuracy`, the share of nodes matched to their own
        partner, both directions; `/unrelated`, the same where each node has the second view of
        another record. What does not exceed that level has found nothing in the embeddings.
    """
    ruler = MultiGraphAlignment(
        image.shape[1], objective="pairwise", views="image-answer", num_layers=0
    )
    views = {"image": image, "answer": answer}
    if extended is not None:
        views["extended"] = extended
    found = {}
    for (one, first), (two, second) in combinations(views.items(), 2):
        for name, other in (("accuracy", second), ("unrelated", unrelated(first, second)[1])):
            found[f"{one}_{two}/{name}"] = ruler.matching_accuracy(first, other, None)
    return found


def unrelated(*views: Tensor) -> list[Tensor]:
    """The same views, but no row has the same record in two of them: the v-th is turned by v rows.

    With fewer rows than views some have to meet again.
    """
    return [view.roll(turn, 0) for turn, view in enumerate(views)]


@contextmanager
def _own_graphs(objective: Objective) -> Iterator[None]:
    """Graphs of this process alone: all processes have the same records here, so a global graph
    would have every node several times."""
    alignment = objective.alignment
    if alignment is None:
        yield
        return
    scope, alignment.scope = alignment.scope, "local"
    gathers, objective.gathers = objective.gathers, False
    try:
        yield
    finally:
        alignment.scope, objective.gathers = scope, gathers


def _unrelated_level(objective: Objective, losses: Mapping[str, Tensor]) -> float | None:
    """Matching accuracy of a batch in which no node has two views of one record: what message
    passing and barycenter give to views that have nothing to do with each other. None where the
    batch has no alignment loss."""
    alignment = objective.alignment
    if alignment is None or "alignment_loss" not in losses:
        return None
    names = [f"{name}_view" for name in NAMES if f"{name}_view" in losses]
    image, answer, extended = (*unrelated(*(losses[name] for name in names)), None)[:3]
    return alignment.matching_accuracy(image, answer, extended)


@dataclass(frozen=True)
class HeldOut:
    """A fixed set of held-out batches, the same at every measurement of every run."""

    dataset: StageDataset | None
    """Held-out records; none where the data has no such split."""
    batch_size: int
    """Records of a batch, and nodes of its graphs."""
    num_batches: int
    """Batches of one measurement."""
    measure_views: bool = False
    """Also measure how the views lie to each other."""

    @torch.no_grad()
    def measure(self, objective: Objective, device: torch.device) -> dict[str, Any]:
        """Measure.

        Returns:
            `language_loss` per supervised token, `num_records`, and with alignment
            `alignment_loss`, `matching_accuracy` (share of nodes matched to their own partner,
            averaged over the directed problems), `matching_unrelated` (the same where no node has
            two views of one record) and `chance` (that of a random matching); where records have
            images, for each pair of views the figures of `pair_accuracies` over `num_nodes`, such
            as `image_answer_accuracy` and `image_answer_unrelated`, and where asked for `views`:
            `num_nodes`, `chance` (mean of 1 / M over nodes), means over the nodes of the figures
            of `view_diagnostics`, and `histograms` of cosines: pair -> `own`, `other` -> 20 counts
            from -1 to 1. Candidates are the nodes of one batch, so figures of views compare only
            between equal batch sizes. Empty where there is no held-out data.
        """
        if self.dataset is None:
            return {}
        was_training = objective.training
        objective.eval()
        sums: dict[str, float] = defaultdict(float)
        num: Counter[str] = Counter()
        pairs: dict[str, float] = defaultdict(float)
        views: dict[str, float] = defaultdict(float)
        histograms: dict[str, dict[str, list[int]]] = {}
        for batch in self._batches(self.dataset):
            with _own_graphs(objective):
                losses = objective(to_device(batch, device), [_NOISE_SEED])
                # Here, since the graphs of the accuracy and of its floor are of one process.
                level = _unrelated_level(objective, losses)
            num["records"] += len(batch["ids"])
            for name in ("language_loss_sum", "num_supervised"):
                sums[name] += float(losses[name])
            if level is not None:
                nodes = int(losses["num_nodes"])
                num.update(nodes=nodes, graphs=1)
                sums["matching_unrelated"] += nodes * level
                for name in ("alignment_loss", "matching_accuracy"):
                    sums[name] += nodes * float(losses[name])
            if "image_view" in losses:
                image, answer = losses["image_view"], losses["answer_view"]
                own = image, answer, losses.get("extended_view")
                num.update(viewed=len(image), batches=1)
                for name, share in pair_accuracies(*own).items():
                    pairs[name] += len(image) * share
                    num[name] += len(image)
                if self.measure_views:
                    for name, value in view_diagnostics(*own).items():
                        views[name] += len(image) * value
                    for pair, counted in cosine_histograms(*own).items():
                        before = histograms.get(pair, {})
                        histograms[pair] = {
                            kind: np.add(before.get(kind, 0), counts).tolist()
                            for kind, counts in counted.items()
                        }
        objective.train(was_training)
        figures: dict[str, Any] = {
            "language_loss": sums["language_loss_sum"] / sums["num_supervised"],
            "num_records": num["records"],
        }
        if num["nodes"]:
            figures["alignment_loss"] = sums["alignment_loss"] / num["nodes"]
            figures["matching_accuracy"] = sums["matching_accuracy"] / num["nodes"]
            figures["matching_unrelated"] = sums["matching_unrelated"] / num["nodes"]
            figures["chance"] = num["graphs"] / num["nodes"]
        if num["viewed"]:
            for name, share in pairs.items():
                figures[name.replace("/", "_")] = share / num[name]
            figures["num_nodes"] = num["viewed"]
            chance = num["batches"] / num["viewed"]
            figures.setdefault("chance", chance)
            if self.measure_views:
                means = {name: value / num["viewed"] for name, value in views.items()}
                about = {"num_nodes": num["viewed"], "chance": chance}
                figures["views"] = about | means | {"histograms": histograms}
        return figures

    def _batches(self, dataset: StageDataset) -> Iterator[Batch]:
        for part in self._parts(dataset):
            yield dataset.collate([dataset[number] for number in part])

    def _parts(self, dataset: StageDataset) -> list[list[int]]:
        groups = image_groups(dataset.records)
        # Two nodes with the same image cannot be told apart, so no graph gets more than there are.
        part_size = min(self.batch_size, len(set(groups)))
        steps = plan_epoch(len(dataset), part_size, 1, _ORDER_SEED, 0, groups)
        return [part for (part,) in steps[: self.num_batches]]

    def read(self) -> list[tuple[StageDataset, list[int]]]:
        """The data set and the numbers of the records that are measured on; empty without one."""
        if self.dataset is None:
            return []
        return [(self.dataset, [n for part in self._parts(self.dataset) for n in part])]


class BestCheckpoint:
    """Keeps the trainable parameters with the best score on disk, beside a stage's checkpoints.

    There is no scorer where the stage ends with its last weights.
    """

    def __init__(self, folder: Path, scorer: Scorer | None) -> None:
        self.path = folder / "best"
        self.scorer = scorer
        self._is_ours = False
        """Whether this process wrote what is kept."""

    def consider(
        self,
        bundle: Bundle,
        step: int,
        run: Callable[[Callable[[], float]], float] = call,
    ) -> float | None:
        """Score the model and keep it if it is better than the one kept; a tie keeps the earlier.

        Weights that a killed run kept at a later step are replaced. Where the model is sharded, all
        processes have to come here; `run` calls a function with gathered weights, and returns what
        it returns. Returns the score, or none where nothing is scored.
        """
        scorer = self.scorer
        if scorer is None:
            return None
        was_training = bundle.model.training
        bundle.model.eval()
        score = run(lambda: scorer(bundle))
        bundle.model.train(was_training)
        kept, sharded = self.kept(), is_sharded(bundle.model)
        better = kept is None or score > kept["score"] or kept["step"] > step
        if sharded:
            score, better = broadcast_from_main((score, better))
        if better:
            with new_checkpoint(self.path, sharded) as fresh:
                save_tensors(fresh, {PARAMETERS: trainable_parameters(bundle.model)})
                if process_state().is_main_process:
                    text = json.dumps({"score": score, "step": step})
                    (fresh / "score.json").write_text(text, encoding="utf-8")
            self._is_ours = True
        return score

    def kept(self) -> dict[str, float] | None:
        """`score` and `step` of the weights that are kept.

        Raises:
            CheckpointError: they cannot be read.
            DamagedFileError: what was kept is not what was written.
        """
        if not os.path.lexists(self.path):
            return None
        hint = f"Copy it again, or delete {self.path} to choose from the later steps alone."
        if not self._is_ours:
            check_checkpoint(self.path, hint)
        file = self.path / "score.json"
        try:
            known = read_object(file)
            return {name: float(known[name]) for name in ("score", "step")}
        except (ExgraMedError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{file} cannot be read.", hint) from error

    def restore(self, bundle: Bundle) -> None:
        """Load the kept weights into the model."""
        if self.scorer is not None and self.kept() is not None:
            load_parameters(self.path, trainable_parameters(bundle.model))
