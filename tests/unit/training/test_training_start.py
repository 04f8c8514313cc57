"""Where the first stage of a run starts."""

from pathlib import Path

import pytest

from exgra_med.errors import RunError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.training.stages import starting_checkpoint


def next_run(tmp_path: Path, start: str) -> Run:
    recipe = load_recipe("debug/tiny", [f"model={{architecture: null, start: {start}}}"]).recipe
    return Run(tmp_path / "next", recipe)


def test_a_run_starts_from_the_last_checkpoint_of_another(tmp_path: Path) -> None:
    first = start_run(tmp_path / "first", load_recipe("debug/tiny").recipe, resume=False)
    with pytest.raises(RunError, match="not finished its stage 'vqa'"):
        starting_checkpoint(next_run(tmp_path, str(first.path)))
    first.final("vqa").mkdir(parents=True)
    assert starting_checkpoint(next_run(tmp_path, str(first.path))) == first.final("vqa")


def test_a_checkpoint_is_not_taken_for_a_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "recipe.yaml").write_text("name: x\n")
    assert starting_checkpoint(next_run(tmp_path, str(checkpoint))) == checkpoint
    assert str(starting_checkpoint(next_run(tmp_path, "owner/name"))) == "owner/name"
