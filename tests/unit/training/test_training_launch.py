"""What training refuses about the way it was launched."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from exgra_med.errors import CheckpointError, RecipeError
from exgra_med.recipe.load import load_recipe
from exgra_med.training.checkpoint import restore_progress, save_progress
from exgra_med.training.distributed import refuse_other_engines


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_weights_are_spread_by_the_recipe_alone(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_other_engines()
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(RecipeError, match="accelerate launch") as refused:
        refuse_other_engines()
    assert "sharding: full" in refused.value.hint


def test_four_bits_are_not_cut() -> None:
    with pytest.raises(RecipeError, match="4 bits"):
        load_recipe("debug/tiny", ["stages.aligned={sharding: full, lora: {quantize: nf4}}"])


HALF = "weights: bfloat16, precision: bfloat16, optimizer: adamw8bit"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("compile: true", "`compile: true`"),
        ("optimizer: adamw8bit", "`optimizer: adamw8bit`"),
        (HALF, "`weights: bfloat16` and `optimizer: adamw8bit`"),
    ],
)
def test_shares_are_refused_with_what_was_not_tested(settings: str, named: str) -> None:
    sentence = f"`sharding: full` was not tested with {named}; set `sharding` to none"
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        load_recipe("debug/tiny", [f"stages.aligned={{sharding: full, {settings}}}"])
    load_recipe("debug/tiny", [f"stages.aligned={{sharding: none, {settings}}}"])


def test_a_checkpoint_goes_on_with_as_many_processes(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_progress(tmp_path, 3, module, optimizer, keep=1)
    other = nn.Linear(2, 2)
    again = torch.optim.AdamW(other.parameters())
    assert restore_progress(tmp_path, other, again) == 3
    assert torch.equal(other.weight, module.weight)
    assert all(
        torch.equal(again.state[other.weight][key], value)
        for key, value in optimizer.state[module.weight].items()
    )
    file = tmp_path / "step-000003" / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_processes": 8}))
    with pytest.raises(CheckpointError, match="of 8 processes, and here is 1"):
        restore_progress(tmp_path, other, again)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    save_progress(tmp_path, 3, module, optimizer, keep=1)
    (tmp_path / "step-000003" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no optimizer\.safetensors"):
        restore_progress(tmp_path, module, optimizer)
