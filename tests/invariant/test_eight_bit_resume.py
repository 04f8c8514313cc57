"""8-bit moments and bfloat16 weights through the whole loop: killed, resumed, scored, finished."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training_invariants import KillAt, Killed, assert_equal_weights, train
from test_training_sharding import launch
from test_training_sharding import train as train_here

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import open_prepared
from exgra_med.model.bundle import Bundle, load_bundle
from exgra_med.model.generate import generate
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.terminal import Silent
from exgra_med.training.log import read_log
from exgra_med.training.loop import StageTraining
from exgra_med.training.stages import train_run

pytest.importorskip("torchao", reason="needs the extra [optim]")
pytestmark = pytest.mark.slow
HALF = (
    "stages.connector=null",
    "stages.vqa=null",
    "stages.aligned={weights: bfloat16, precision: bfloat16, optimizer: adamw8bit}",
    "stages.aligned={max_steps: 4, save_every_steps: 1, evaluate_every_steps: null}",
    "stages.aligned={num_held_out_batches: 1}",
)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", *HALF)
    with pytest.raises(Killed):
        train(tmp_path / "killed", *HALF, reporter=KillAt("aligned", 2))
    killed = train(tmp_path / "killed", *HALF, resume=True)
    assert_equal_weights(whole, killed, "aligned")
    final = load_file(whole.final("aligned") / "model.safetensors")
    assert {each.dtype for each in final.values()} == {torch.bfloat16}
    graph = load_file(whole.final("aligned") / "alignment.safetensors")
    assert {each.dtype for each in graph.values()} == {torch.float32}


def test_it_learns_what_float32_learns(tmp_path: Path) -> None:
    """Losses of the first steps beside those of float32 weights and moments, same precision."""
    full = "stages.aligned={weights: float32, optimizer: adamw}"
    curves = []
    for name, more in (("half", ()), ("full", (full,))):
        longer = "stages.aligned={max_steps: 12, alignment: null}"
        run = train(tmp_path / name, *HALF, *more, longer)
        curves.append([e["loss"] for e in read_log(run.log) if e["kind"] == "train"])
    assert curves[1][-1] < curves[1][0] - 0.2
    # Measured: 8e-4.
    assert curves[0] == pytest.approx(curves[1], abs=0.01)


def test_the_best_model_is_scored_and_kept(tmp_path: Path) -> None:
    """The scorer generates outside of autocast, with weights in bfloat16 and the angles intact."""
    answers = []

    def scorer(bundle: Bundle) -> float:
        record = open_prepared("bundled:vqa-rad-sample").records("validation")[0]
        images = open_prepared("bundled:vqa-rad-sample").image_folder(10**8)
        prompt = encode_prompt(
            bundle.tokenizer, record.turns[:1], "exgra", bundle.num_image_tokens, 1
        )
        picture = images.open(record.images[0], record.id)
        answers.append(generate(bundle, [prompt], [[picture]], 4)[0].token_ids)
        types = {name: each.dtype for name, each in bundle.model.named_buffers()}
        assert any("inv_freq" in name for name in types)
        assert torch.bfloat16 not in types.values()
        return float(len(answers))

    recipe = load_recipe("debug/tiny", HALF).recipe
    stage = recipe.stages["aligned"].model_copy(update={"load_best_model_at_end": True})
    recipe = recipe.model_copy(update={"stages": {"aligned": stage}})
    run = start_run(tmp_path / "run", recipe, resume=False)
    train_run(run, Silent(), lambda *_: scorer)
    assert len(answers) == 2
    best = load_file(run.stage_folder("aligned") / "best" / "parameters.safetensors")
    final = load_bundle(run.final("aligned"), "auto").model.state_dict()
    assert all(torch.equal(best[name], final[name]) for name in best)


def train_on_one_of_two(rank: int, folder: Path) -> None:
    finish = StageTraining._finish

    def noted(self: StageTraining) -> Path:
        torch.save(self.objective.state_dict(), folder / f"{rank}.pt")
        return finish(self)

    StageTraining._finish = noted
    train_here(folder / "run", *(each.partition("stages.aligned=")[2][1:-1] for each in HALF[2:]))


def test_two_processes_round_their_copies_alike(tmp_path: Path) -> None:
    launch(train_on_one_of_two, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert {each.dtype for each in one.values()} == {torch.bfloat16, torch.float32}
    assert all(torch.equal(one[name], other[name]) for name in one)
