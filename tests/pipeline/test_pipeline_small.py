"""The small road with tiny parts: stage 1, stage 2 with graphs, fine-tuning, the difference kept,
the model made from it, the demo and an evaluation of it. Real parts take hours; these seconds."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from exgra_med.cli import demo
from exgra_med.cli.main import app
from exgra_med.model import small_model, small_parts
from exgra_med.model.bundle import local_folder
from exgra_med.recipe.schema import Parts
from tiny_wheels import tiny_parts

TOOL = Path(__file__).resolve().parents[2] / "tools" / "small_model.py"
SAMPLE = "data.folder=bundled:slake-sample"
FEW = "data.fraction=0.05"


def run(*arguments: Any, ends: tuple[int, ...] = (0,)) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code in ends, f"{arguments}\n{done.output}\n{done.exception!r}"
    return done.stdout


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("small_model_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    pytest.importorskip("pip")
    found = tiny_parts(tmp_path / "wheels")
    for name in [each for each in os.environ if each.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    small = small_model.SMALL.model_copy(
        update={"language": found[0].name, "vision": found[1].name}
    )
    for module in (small_model, small_parts):
        monkeypatch.setattr(module, "SMALL_PARTS", found)
    monkeypatch.setattr(small_model, "SMALL", small)
    monkeypatch.setattr(small_model, "PACKAGED", tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    return small


def test_the_small_road_from_parts_to_the_demo(parts: Parts, tmp_path: Path) -> None:
    own = [f"model.parts.{name}={getattr(parts, name)}" for name in ("language", "vision")]
    short = ["connector", "instruct", "vqa"]
    steps = {name: f"stages.{name}.max_steps=2" for name in short}

    def train(recipe: str, stage: str, *changes: str) -> None:
        changed = [SAMPLE, FEW, steps[stage], f"stages.{stage}.num_held_out_batches=1", *changes]
        run("train", recipe, *(word for each in changed for word in ("--set", each)))

    train("small/connector", "connector", *own)
    train("small/aligned", "instruct")
    train("small/vqa", "vqa")
    log = (tmp_path / "runs/small/aligned/log.jsonl").read_text(encoding="utf-8")
    assert any("alignment_loss" in json.loads(line) for line in log.splitlines())

    # What the two stages of adapters changed is all in the difference.
    module = tool()
    module.SMALL, module.PACKAGED = parts, small_model.PACKAGED
    module.keep(Path("runs/small/vqa"), tmp_path / "cache/exgra-med/parts", tmp_path / "packaged")
    made = load_file(local_folder("small") / "model.safetensors")
    trained = load_file("runs/small/vqa/checkpoints/vqa/final/model.safetensors")
    assert made.keys() == trained.keys()
    for name, weight in trained.items():
        assert (made[name] - weight).norm() <= 1e-2 * weight.norm(), name

    assert demo._recipe(tmp_path / "demo", False, demo.Console()) == demo.SMALL
    few = ["data.fraction=0.1", "stages.aligned.max_steps=1", "stages.vqa.max_steps=1"]
    few += ["evaluation.max_new_tokens=2", "evaluation.num_bootstrap_samples=100"]
    few += ["stages.aligned.num_held_out_batches=1", "stages.vqa.num_held_out_batches=1"]
    run("train", "small/demo", "--out", "demo", *(w for each in few for w in ("--set", each)))
    answered = run(
        "evaluate", "vqa", "small", "--data", "bundled:slake-sample", "--split", "validation",
        "--out", "answers", "--json",
        ends=(0, 1),  # not one answer of a tiny random model need be usable
    )  # fmt: skip
    assert json.loads(answered)["details"]["answer_counts"]["questions"] == 150
