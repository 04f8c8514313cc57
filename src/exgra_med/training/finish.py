"""The finished checkpoint of a stage, as everything that comes after it reads it."""

from pathlib import Path

from torch import nn

from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.model.lora import detach_adapter
from exgra_med.recipe.run import Run, recipe_yaml
from exgra_med.training.checkpoint import save_alignment


def write_final(run: Run, stage: str, bundle: Bundle, alignment: nn.Module | None) -> None:
    """Write model, processor, recipe, graph layers and adapter; whole or not at all.

    Args:
        run: the run.
        stage: name of the stage.
        bundle: the trained model, whose weights are whole; its adapters are merged here.
        alignment: graph layers that a later stage goes on with.

    Raises:
        DiskFullError: nothing was changed.
    """
    lora = run.recipe.stages[stage].lora
    adapter = None if lora is None else detach_adapter(bundle, lora)

    def beside(folder: Path) -> None:
        if adapter is not None:
            adapter.save(folder / "adapter")
        (folder / "recipe.yaml").write_text(recipe_yaml(run.recipe), encoding="utf-8")
        if alignment is not None:
            save_alignment(alignment, folder)

    save_bundle(bundle, run.final(stage), beside)
