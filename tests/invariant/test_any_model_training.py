"""Any model through the whole loop: killed and resumed, on several processes, with shards."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training_invariants import KillAt, Killed
from test_training_processes import environment

from any_models import NAMES, families
from exgra_med.model.bundle import load_bundle, save_bundle
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.recipe.schema import check_recipe
from exgra_med.terminal import Silent
from exgra_med.training.log import read_log
from exgra_med.training.stages import train_run
from families import make

HERE = Path(__file__)
SLOW = [name for name in NAMES if name != "qwen2_5_vl"]
STAGE: dict[str, Any] = {
    "trainable": ["connector", "language"],
    # One record an image: two nodes of one image are a tie, which rounding decides.
    "data": {"questions_per_record": 20, "fraction": 0.3},
    "max_steps": 3,
    "batch_size": 4,
    "tokens_per_row": 700,
    "learning_rate": 1e-3,
    "alignment": {"weight": 1.0},
    "save_every_steps": 1,
    "num_held_out_batches": 1,
}


def recipe_of(name: str, folder: Path, **changes: Any) -> Any:
    """One aligned stage from a tiny model of the family, saved in `folder`."""
    start = folder / "model"
    if not start.is_dir():
        model, processor = make(name)
        model.save_pretrained(start)
        processor.save_pretrained(start)
    values = {
        "name": "any",
        "model": {"start": str(start)},
        "data": {"folder": "bundled:vqa-rad-sample"},
        "text": {"max_length": 2048},
        "stages": {"aligned": STAGE | changes},
    }
    return check_recipe(values, "test")


def train(name: str, folder: Path, out: str, reporter: Any = None, **changes: Any) -> Run:
    """Train, or go on with, a run."""
    run = start_run(folder / out, recipe_of(name, folder, **changes), (folder / out).is_dir())
    train_run(run, reporter or Silent())
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.final("aligned") / "model.safetensors")


def losses(folder: Path) -> list[float]:
    return [e["loss"] for e in read_log(folder / "log.jsonl") if e["kind"] == "train"]


@families(slow=SLOW)
def test_a_killed_run_resumes_bit_for_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = train(name, tmp_path, "whole")
    with pytest.raises(Killed):
        train(name, tmp_path, "killed", KillAt("aligned", 2))
    killed = train(name, tmp_path, "killed")
    one, other, start = (
        weights(whole),
        weights(killed),
        load_file(tmp_path / "model/model.safetensors"),
    )
    assert one.keys() == start.keys()
    assert all(torch.equal(one[each], other[each]) for each in one)
    changed = [each for each in one if not torch.equal(one[each], start[each])]
    assert changed and len(changed) < len(one), "the tower stays as it is"
    held_out = [e for e in read_log(whole.log) if e["kind"] == "held_out"]
    assert {"language_loss", "alignment_loss", "image_answer_accuracy"} <= held_out[0].keys()


@pytest.mark.slow
@families()
def test_two_processes_follow_the_trajectory_of_one(name: str, tmp_path: Path) -> None:
    plain = {"alignment": None, "distinct_images": False, "save_every_steps": None}
    train(name, tmp_path, "one", **plain)
    launch(name, tmp_path, "two", batch_size=2, **plain)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    # Graphs over all processes, without noise and dropout, are those of one.
    quiet = {"weight": 1.0, "noise_scale": 0.0, "dropout": 0.0, "scope": "global"}
    aligned = plain | {"alignment": quiet}
    train(name, tmp_path, "graphs", **aligned)
    launch(name, tmp_path, "graphs two", batch_size=2, **aligned)
    assert losses(tmp_path / "graphs two") == pytest.approx(losses(tmp_path / "graphs"), rel=1e-4)


@pytest.mark.slow
@families(["gemma3", "idefics3", "qwen2_5_vl"])
def test_shards_on_two_processes_follow_it_too(name: str, tmp_path: Path) -> None:
    quiet = {"weight": 1.0, "noise_scale": 0.0, "dropout": 0.0, "scope": "global"}
    same = {"alignment": quiet, "distinct_images": False, "save_every_steps": None}
    one = train(name, tmp_path, "one", **same)
    launch(name, tmp_path, "two", batch_size=2, sharding="full", **same)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    found = load_file(tmp_path / "two/checkpoints/aligned/final/model.safetensors")
    for each, weight in weights(one).items():
        assert float((found[each] - weight).abs().max()) < 1e-4, each
    bundle = load_bundle(tmp_path / "two/checkpoints/aligned/final")
    save_bundle(bundle, tmp_path / "again")


def launch(name: str, folder: Path, out: str, **changes: Any) -> None:
    """The same training on two processes."""
    port = str(29100 + os.getpid() % 300)
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    call += ["--master_addr", "127.0.0.1", "--master_port", port, str(HERE)]
    call += [name, str(folder), out, repr(changes)]
    path = os.pathsep.join([environment()["PYTHONPATH"], *sys.path])
    own = environment() | {"PYTHONPATH": path}
    done = subprocess.run(call, capture_output=True, text=True, env=own, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    """One process of `launch`."""
    import ast

    from exgra_med.training.stages import begin_run

    name, folder, out, changes = sys.argv[1:]
    recipe = recipe_of(name, Path(folder), **ast.literal_eval(changes))
    train_run(begin_run(Path(folder) / out, recipe, resume=False), Silent())


if __name__ == "__main__":
    main()
