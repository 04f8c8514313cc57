"""Run folders: made once, opened again, never overwritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exgra_med import digests
from exgra_med.errors import DamagedFileError, RunError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import (
    check_checkpoint,
    is_toy,
    last_checkpoint_of,
    open_run,
    own_template,
    start_run,
    unchecked,
)


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


def test_a_start_that_was_killed_at_any_write_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, path = load_recipe("demo").recipe, tmp_path / "run"
    replace, left = Path.replace, 0

    class KilledError(BaseException):
        """Unlike SIGKILL, leaves the unfinished file to be removed; the test puts it back."""

    def killed(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        return replace(self, target)

    for num_written in range(2):
        left = num_written
        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KilledError):
            start_run(path, recipe, resume=False)
        monkeypatch.undo()
        assert len([each for each in path.iterdir() if each.suffix]) == num_written
        (path / ".recipe.yaml.partial-0").write_text("name: de")
        with pytest.raises(RunError, match="not a run folder"):
            open_run(path)
    assert start_run(path, recipe, resume=False).recipe == recipe
    assert open_run(path).recipe == recipe


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    recipe = load_recipe("demo").recipe
    run = start_run(tmp_path, recipe, resume=False)
    program = (
        "import sys; from pathlib import Path; from exgra_med.recipe.load import load_recipe\n"
        "from exgra_med.recipe.run_folder import open_run, start_run\n"
        "open_run(sys.argv[1])\n"
        "start_run(Path(sys.argv[1]), load_recipe('demo').recipe, True)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with run.writing():
        done = subprocess.run(command, capture_output=True, text=True)
        run.add_to_record("data", {})
    assert f"{tmp_path} is being written by process {os.getpid()} on " in done.stderr
    assert subprocess.run(command, check=True).returncode == 0


def test_a_recipe_or_record_that_was_changed_is_named(tmp_path: Path) -> None:
    for name, old, new in (
        ("recipe.yaml", "seed: 5", "seed: 6"),
        ("record.json", '"seed": 5', '"seed": 6'),
    ):
        path = tmp_path / name.partition(".")[0]
        start_run(path, load_recipe("demo", ["seed=5"]).recipe, resume=False)
        file = path / name
        file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
        with pytest.raises(DamagedFileError, match=f"{name} is not what was written there"):
            open_run(path)


def test_a_run_of_an_earlier_version_is_read_and_said_to_be_unchecked(tmp_path: Path) -> None:
    run = start_run(tmp_path, load_recipe("demo").recipe, resume=False)
    assert not unchecked(tmp_path)
    text = (tmp_path / "recipe.yaml").read_text("utf-8")
    (tmp_path / "recipe.yaml").write_text(text.partition("\n")[2], "utf-8")
    (tmp_path / "record.json").write_text('{"created": "then"}')
    assert open_run(tmp_path).recipe == run.recipe
    for _ in range(2):
        assert "cannot be checked" in unchecked(tmp_path)
        run.add_to_record("data", {})
    assert digests.has_digest(tmp_path / "record.json") and unchecked(tmp_path)


@pytest.mark.parametrize("name", ["recipe.yaml", "record.json"])
def test_a_run_that_lost_what_makes_it_one_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    run = start_run(tmp_path, load_recipe("demo").recipe, resume=False)
    run.final("vqa").mkdir(parents=True)
    assert last_checkpoint_of(tmp_path) == run.final("vqa")
    (tmp_path / name).unlink()
    with pytest.raises(DamagedFileError, match=f"{name} is gone"):
        last_checkpoint_of(tmp_path)
    assert last_checkpoint_of(run.final("vqa")) == run.final("vqa")


def test_a_damaged_last_checkpoint_says_how_to_go_on(tmp_path: Path) -> None:
    run = start_run(tmp_path, load_recipe("demo").recipe, resume=False)
    final = run.final("vqa")
    final.mkdir(parents=True)
    (final / "model.safetensors").write_bytes(b"0")
    assert not check_checkpoint(final)
    digests.write_digests(final)
    assert check_checkpoint(final)
    (final / "model.safetensors").write_bytes(b"1")
    with pytest.raises(DamagedFileError) as caught:
        check_checkpoint(final)
    assert "model.safetensors is not what was written there" in caught.value.message
    assert caught.value.hint.endswith("`exgra-med train ... --resume` makes it anew.")


@pytest.mark.parametrize("part", ["[1]", "x", "3", "null", "{start: [1]}", "{start: 3}"])
def test_a_recipe_of_other_types_beside_weights_says_nothing(tmp_path: Path, part: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"model: {part}\ntext: {part}\n", "utf-8")
    assert not is_toy(tmp_path)
    assert own_template(tmp_path) == "exgra"
