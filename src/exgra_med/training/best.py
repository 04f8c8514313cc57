"""The best checkpoint of a stage: scored by answering held-out questions, kept, and really loaded.

checkpoints/<stage>/best/   parameters.safetensors (what learns), score.json
"""

import json
from collections.abc import Callable
from pathlib import Path

from exgra_med.errors import RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.training.checkpoint import PARAMETERS, learning_parameters, load_parameters
from exgra_med.training.processes import of_main, process_state
from exgra_med.training.sharding import is_sharded
from exgra_med.training.shards import folder_of_all, save_tensors

Scorer = Callable[[Bundle], float]
"""Score of a model on held-out questions, higher is better; given by the layer above."""
Inside = Callable[[Callable[[], float]], float]
"""Calls a function where all weights of the model are whole, and returns what it returns."""


def _here(function: Callable[[], float]) -> float:
    return function()


class BestCheckpoint:
    """Keeps the best of what learns in a stage on disk.

    Args:
        folder: the stage's folder.
        scorer: scores the model; none where the last step is what counts.
    """

    def __init__(self, folder: Path, scorer: Scorer | None) -> None:
        self.path = folder / "best"
        self.scorer = scorer

    def consider(self, bundle: Bundle, step: int, inside: Inside = _here) -> float | None:
        """Score the model and keep it where it is better than what is kept, ties to the earlier.

        Args:
            bundle: the model. Where its weights are sharded, all processes have to come here.
            step: when.
            inside: calls a function where all weights are whole.

        Returns:
            The score, or none where nothing is scored.
        """
        scorer = self.scorer
        if scorer is None:
            return None
        was_training = bundle.model.training
        bundle.model.eval()
        score = inside(lambda: scorer(bundle))
        bundle.model.train(was_training)
        kept, sharded = self.kept(), is_sharded(bundle.model)
        better = kept is None or score > kept["score"] or kept["step"] > step
        if sharded:
            score, better = of_main((score, better))
        if better:
            with folder_of_all(self.path, sharded) as fresh:
                save_tensors(fresh, PARAMETERS, learning_parameters(bundle.model), sharded)
                if process_state().is_main_process:
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
        load_parameters(self.path, learning_parameters(bundle.model))


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
