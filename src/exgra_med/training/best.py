"""The best checkpoint of a stage: scored by answering held-out questions, kept, and really loaded.

checkpoints/<stage>/best/   parameters.safetensors (what learns), score.json
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from exgra_med import files
from exgra_med.errors import RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.training.checkpoint import learning_parameters

WEIGHTS = "parameters.safetensors"

Scorer = Callable[[Bundle], float]
"""Score of a model on held-out questions, higher is better; given by the layer above."""


class BestCheckpoint:
    """Keeps the best of what learns in a stage on disk.

    Args:
        folder: the stage's folder.
        scorer: scores the model; none where the last step is what counts.
    """

    def __init__(self, folder: Path, scorer: Scorer | None) -> None:
        self.path = folder / "best"
        self.scorer = scorer

    def consider(self, bundle: Bundle, step: int) -> float | None:
        """Score the model and keep it where it is better than what is kept, ties to the earlier.

        Returns:
            The score, or none where nothing is scored.
        """
        if self.scorer is None:
            return None
        was_training = bundle.model.training
        bundle.model.eval()
        score = self.scorer(bundle)
        bundle.model.train(was_training)
        kept = self.kept()
        if kept is None or score > kept["score"] or kept["step"] > step:
            learning = learning_parameters(bundle.model)
            with files.new_folder(self.path) as fresh:
                save_file(
                    {name: each.detach().contiguous() for name, each in learning.items()},
                    fresh / WEIGHTS,
                )
                text = json.dumps({"score": score, "step": step})
                (fresh / "score.json").write_text(text, encoding="utf-8")
        return score

    def kept(self) -> dict[str, float] | None:
        """`score` and `step` of the model that is kept."""
        file = self.path / "score.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def restore(self, bundle: Bundle) -> None:
        """Load the kept weights into the model."""
        if self.scorer is None or self.kept() is None:
            return
        best = load_file(self.path / WEIGHTS)
        with torch.no_grad():
            for name, parameter in learning_parameters(bundle.model).items():
                parameter.copy_(best[name])


def needs_scorer(stage: str, choose: str, scorer: Scorer | None) -> Scorer | None:
    """The scorer of a stage that chooses its best checkpoint.

    Raises:
        RecipeError: the stage wants one, and nobody gave it.
    """
    if choose == "last":
        return None
    if scorer is None:
        raise RecipeError(
            f"stages.{stage}.choose is {choose!r}, but nothing scores the model here.",
            "Train with `exgra-med train`, or pass a scorer to `train_run`.",
        )
    return scorer
