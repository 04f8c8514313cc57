"""Run folders: made once, opened again, never overwritten."""

from pathlib import Path

import pytest

from exgra_med.errors import RunError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import open_run, start_run


def test_a_new_run_holds_the_resolved_recipe_and_its_record(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["seed=5"]).recipe
    start_run(tmp_path / "run", recipe, resume=False)
    run = open_run(tmp_path / "run")
    assert run.recipe == recipe
    assert run.record()["seed"] == 5
    assert run.record()["versions"]["torch"]


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    recipe = load_recipe("demo").recipe
    start_run(tmp_path, recipe, resume=False)
    with pytest.raises(RunError, match="--resume"):
        start_run(tmp_path, recipe, resume=False)
    other = load_recipe("demo", ["stages.vqa.epochs=3"]).recipe
    with pytest.raises(RunError, match=r"stages\.vqa\.epochs is .* there and 3\.0 here"):
        start_run(tmp_path, other, resume=True)
    assert start_run(tmp_path, recipe, resume=True).recipe == recipe


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not a run folder"):
        start_run(tmp_path, load_recipe("demo").recipe, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_without_a_run_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        open_run(tmp_path)
