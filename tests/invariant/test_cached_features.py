"""Training from kept features of a frozen tower: the same weights, without picture or tower."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_any_model_training import launch, losses, train, weights
from test_training_invariants import KillAt, Killed
from torch import Tensor

from any_models import NAMES, families
from exgra_med.data.images import ImageFolder
from exgra_med.errors import RecipeError
from exgra_med.model.any_model import AnyBundle
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.terminal import Silent
from exgra_med.training import loop, stages
from exgra_med.training.held_out import HeldOut
from exgra_med.training.log import read_log
from exgra_med.training.loop import TrainingStopped
from exgra_med.training.stages import train_run

ROUNDED = {"pixtral": 1e-6}
"""Its towers see all pictures of a batch as one row; measured 3e-7."""
IN_TOWER = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v")
"""Families whose connector is a part of the tower."""
KEPT = {"cache_features": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def facts(run: Run) -> dict[str, Any]:
    (found,) = [event for event in read_log(run.log) if event["kind"] == "features"]
    return found


def native(folder: Path, *assignments: str, reporter: Any = None, resume: bool = False) -> Run:
    """One short stage of a toy model, with held-out measures."""
    short = "{alignment: null, max_steps: 3, save_every_steps: 1, num_held_out_batches: 1}"
    only = ("stages.connector=null", "stages.vqa=null", f"stages.aligned={short}", *assignments)
    run = start_run(folder, load_recipe("debug/tiny", only).recipe, resume)
    train_run(run, reporter or Silent())
    return run


def story(run: Run) -> list[dict[str, Any]]:
    """The log but for what a clock says, and the line of the features."""
    events = [event for event in read_log(run.log) if event["kind"] != "features"]
    return [{k: v for k, v in event.items() if k != "tokens_per_second"} for event in events]


def weights_of(run: Run) -> dict[str, Tensor]:
    return load_file(run.final("aligned") / "model.safetensors")


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture
def only_before_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fails where a picture is opened or a tower runs once the steps have begun."""
    begun: list[str] = []
    opened, step = ImageFolder.open, loop.StageTraining._step

    def open_before(self: ImageFolder, name: str, where: str = "") -> Any:
        assert not begun, f"{name} was decoded in a step"
        return opened(self, name, where)

    def first_step(self: loop.StageTraining, *args: Any) -> Any:
        if not begun:
            begun.append(self.name)
            layer = next(m for m in self.bundle.tower.modules() if isinstance(m, torch.nn.Conv2d))
            layer.forward = lambda *_: pytest.fail("the tower ran in a step")
        return step(self, *args)

    monkeypatch.setattr(ImageFolder, "open", open_before)
    monkeypatch.setattr(loop.StageTraining, "_step", first_step)
    yield begun


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_a_native_run_is_equal_bit_for_bit(
    precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    setting = f"stages.aligned.precision={precision}"
    plain = native(tmp_path / "plain", setting)
    begun = request.getfixturevalue("only_before_steps")
    kept = native(tmp_path / "kept", setting, "stages.aligned.cache_features=true")
    assert begun == ["aligned"]
    assert not differing(weights_of(plain), weights_of(kept))
    assert story(plain) == story(kept)
    assert facts(kept)["difference"] == 0.0
    assert facts(kept)["num_computed"] == facts(kept)["num_images"] > 10


@pytest.mark.slow
def test_a_killed_run_with_rates_of_parts_goes_on_with_what_is_kept(tmp_path: Path) -> None:
    settings = (
        "stages.aligned.cache_features=true",
        "stages.aligned.learning_rates={connector: 3e-3}",
    )
    whole = native(tmp_path / "whole", *settings)
    with pytest.raises(Killed):
        native(tmp_path / "killed", *settings, reporter=KillAt("aligned", 2))
    resumed = native(tmp_path / "killed", *settings, resume=True)
    assert not differing(weights_of(whole), weights_of(resumed))
    computed = [e["num_computed"] for e in read_log(resumed.log) if e["kind"] == "features"]
    assert computed == [0, 0]


class StopAt(Silent):
    """Asks this process to stop where `done` of a piece of work, or a note of it, is told."""

    def __init__(self, number: signal.Signals, title: str, done: int, note: str = "") -> None:
        self.number, self.when, self.title = number, (title, done, note), ""
        self.told: list[int] = []

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        self.title = title

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        self.told.append(done)
        if (self.title, done, note) == self.when:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_features_is_obeyed_at_once(
    number: signal.Signals, tmp_path: Path
) -> None:
    setting = "stages.aligned.cache_features=true"
    stop = StopAt(number, "features of pictures", 12)
    with pytest.raises(TrainingStopped, match="'aligned' before step 1 of 3; no step") as stopped:
        native(tmp_path / "run", setting, reporter=stop)
    assert stopped.value.exit_code == 128 + number and stop.told[-1] == 12
    kept = len(list((tmp_path / "cache").rglob("*.safetensors")))
    resumed = native(tmp_path / "run", setting, resume=True)
    assert kept >= 12
    assert facts(resumed)["num_computed"] == facts(resumed)["num_images"] - kept > 0
    whole = native(tmp_path / "whole", setting)
    assert story(whole) == story(resumed)
    assert not differing(weights_of(whole), weights_of(resumed))


def test_a_stop_before_the_first_held_out_measure_is_obeyed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopAt(signal.SIGTERM, "aligned", 0, "measuring held-out records")
    monkeypatch.setattr(HeldOut, "measure", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(TrainingStopped, match="before step 1 of 3"):
        native(tmp_path / "run", reporter=stop)


@pytest.mark.slow
@families(slow=[each for each in NAMES if each != "gemma3"])
def test_any_model_is_equal_bit_for_bit(name: str, tmp_path: Path) -> None:
    parts = ["language"] if name in IN_TOWER else ["connector", "language"]
    short = {"trainable": parts, "max_steps": 2, "alignment": None}
    plain = train(name, tmp_path, "plain", **short)
    kept = train(name, tmp_path, "kept", **short, **KEPT)
    # What the first run has kept is all that another process has.
    again = train(name, tmp_path, "again", **short, **KEPT)
    assert facts(again)["num_computed"] == 0 < facts(kept)["num_computed"]
    assert not differing(weights(kept), weights(again))
    limit = ROUNDED.get(name, 0.0)
    assert facts(kept)["difference"] <= limit
    if not limit:
        assert not differing(weights(plain), weights(kept))
        assert story(plain) == story(kept)


@pytest.mark.slow
@families(["gemma3", "internvl"])
def test_any_model_reads_kept_features_in_worker_processes(name: str, tmp_path: Path) -> None:
    plain = train(name, tmp_path, "plain", precision="bfloat16")
    kept = train(name, tmp_path, "kept", precision="bfloat16", num_workers=2, **KEPT)
    assert not differing(weights(plain), weights(kept))


@pytest.mark.slow
def test_two_processes_fill_one_folder_and_follow_the_trajectory_of_one(tmp_path: Path) -> None:
    plain = {"alignment": None, "distinct_images": False, "save_every_steps": None}
    one = train("gemma3", tmp_path, "one", **plain)
    launch("gemma3", tmp_path, "two", batch_size=2, **plain, **KEPT)
    assert losses(tmp_path / "two") == pytest.approx(losses(one.path), rel=1e-5)


@pytest.mark.slow
def test_the_tower_of_another_family_does_not_run_in_a_step(
    tmp_path: Path, only_before_steps: list[str]
) -> None:
    train("gemma3", tmp_path, "kept", max_steps=1, alignment=None, **KEPT)
    assert only_before_steps == ["aligned"]


def test_a_tower_that_mixes_the_pictures_of_a_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = stages.load_bundle

    def mixing(start: Path) -> AnyBundle:
        bundle: Any = loaded(start)
        kind = type(bundle.tower)
        forward = kind.forward

        def mixed(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(0)
            return output

        monkeypatch.setattr(kind, "forward", mixed)
        return bundle

    monkeypatch.setattr(stages, "load_bundle", mixing)
    with pytest.raises(RecipeError, match="other features in a batch than alone"):
        train("gemma3", tmp_path, "run", **KEPT)


def test_a_connector_inside_the_tower_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(RecipeError, match="a part of this model's tower is trained"):
        train("qwen2_5_vl", tmp_path, "run", **KEPT)
