"""Adapters through the whole loop: a killed run ends as an undisturbed one, with merged weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training_invariants import KillAt, Killed, assert_equal_weights, train

from exgra_med.model.bundle import Bundle, load_bundle
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.terminal import Silent
from exgra_med.training.stages import train_run

pytest.importorskip("peft")
ONLY_ALIGNED = (
    "stages.connector=null",
    "stages.vqa=null",
    "stages.aligned.lora={rank: 2, alpha: 4}",
    "stages.aligned={num_held_out_batches: 1, evaluate_every_steps: null}",
    "stages.aligned={max_steps: 3, save_every_steps: 1}",
)


@pytest.mark.slow
def test_a_killed_run_with_adapters_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", *ONLY_ALIGNED)
    with pytest.raises(Killed):
        train(tmp_path / "killed", *ONLY_ALIGNED, reporter=KillAt("aligned", 2))
    killed = train(tmp_path / "killed", *ONLY_ALIGNED, resume=True)
    assert_equal_weights(whole, killed, "aligned")
    files = [run.final("aligned") / "adapter/adapter_model.safetensors" for run in (whole, killed)]
    one, other = map(load_file, files)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    start = load_bundle(whole.final("start")).model.state_dict()
    final = load_bundle(whole.final("aligned")).model.state_dict()
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    factors = [
        one[f"base_model.model.{name.replace('weight', f'lora_{part}.weight')}"] for part in "BA"
    ]
    product = 4 / 2 * factors[0] @ factors[1]
    assert product.abs().max() > 1e-6
    assert (final[name] - start[name] - product).abs().max() <= 1e-6
    assert torch.equal(final["lm_head.weight"], start["lm_head.weight"])


@pytest.mark.slow
def test_the_best_weights_are_found_again_with_adapters(tmp_path: Path) -> None:
    scores = iter([0.0, 2.0, 1.0, 1.0])
    seen = []

    def scorer(bundle: Bundle) -> float:
        name = "model.multi_modal_projector.linear_2.weight"
        seen.append(bundle.model.state_dict()[name].clone())
        return next(scores)

    recipe = load_recipe("debug/tiny", ONLY_ALIGNED).recipe
    stage = recipe.stages["aligned"].model_copy(
        update={"load_best_model_at_end": True, "evaluate_every_steps": 1}
    )
    recipe = recipe.model_copy(update={"stages": {"aligned": stage}})
    run = start_run(tmp_path / "run", recipe, resume=False)
    train_run(run, Silent(), lambda *_: scorer)
    final = load_bundle(run.final("aligned")).model.state_dict()
    assert torch.equal(final["model.multi_modal_projector.linear_2.weight"], seen[1])
    assert not torch.equal(seen[1], seen[2])
