"""What training refuses about the way it was launched."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exgra_med.errors import CheckpointError, DamagedFileError, RecipeError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.checkpoint import (
    StageProgress,
    check_resumable,
    read_progress,
    restore_progress,
    save_progress,
)
from exgra_med.training.distributed import refuse_other_engines


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_sharding_is_set_by_the_recipe_alone(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_engines()
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(RecipeError, match="accelerate launch") as refused:
        refuse_other_engines()
    assert "sharding: full" in refused.value.hint


def test_four_bits_are_not_sharded() -> None:
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
def test_sharding_is_refused_with_what_was_not_tested(settings: str, named: str) -> None:
    sentence = f"`sharding: full` was not tested with {named}; set `sharding` to none"
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        load_recipe("debug/tiny", [f"stages.aligned={{sharding: full, {settings}}}"])
    load_recipe("debug/tiny", [f"stages.aligned={{sharding: none, {settings}}}"])


def saved(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module after a step and its optimizer, whose checkpoint lies in a folder."""
    module = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_progress(folder, StageProgress(3, 4, 2), module, optimizer, keep=1)
    return module, optimizer


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    module, optimizer = saved(tmp_path)
    other = nn.Linear(2, 2)
    again = torch.optim.AdamW(other.parameters())
    assert restore_progress(tmp_path, other, again) == 3
    assert torch.equal(other.weight, module.weight)
    assert all(
        torch.equal(again.state[other.weight][key], value)
        for key, value in optimizer.state[module.weight].items()
    )
    assert read_progress(tmp_path) == StageProgress(3, 4, 2)


def test_only_processes_that_divide_the_micro_batches_go_on(tmp_path: Path) -> None:
    progress = StageProgress(step=3, micro_batches=4, num_processes=2)
    settings = {"trainable": ["connector"], "learning_rate": 1.0, "alignment": {}}
    stage = StageSettings.model_validate(settings)
    for processes in (1, 2, 4):
        check_resumable(tmp_path, progress, stage, processes)
    with pytest.raises(CheckpointError, match="a step, 4, is not a multiple of the 3") as caught:
        check_resumable(tmp_path, progress, stage, 3)
    assert "1, 2, 4" in caught.value.hint
    everywhere = StageSettings.model_validate(settings | {"alignment": {"scope": "global"}})
    check_resumable(tmp_path, progress, everywhere, 2)
    with pytest.raises(CheckpointError, match="its nodes would be others"):
        check_resumable(tmp_path, progress, everywhere, 1)


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    module, optimizer = saved(tmp_path)
    file = tmp_path / "step-000003" / "optimizer.safetensors"
    # As an earlier version left it, or copying: nothing but its content says what is wrong.
    file.with_name("digests.json").unlink()
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    with pytest.raises(CheckpointError, match="cannot be read"):
        restore_progress(tmp_path, module, optimizer)
    save_file(
        {"weight": torch.zeros(1)},
        file,
        {"DCP_SHARDING_INFO": '{"weight": {"saved_offsets": "no"}}'},
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        restore_progress(tmp_path, module, optimizer)
    file.unlink()
    with pytest.raises(CheckpointError, match="2 of 8 tensors are there"):
        restore_progress(tmp_path, module, optimizer)
    for text in ("", "[]", '{"step": 3, "num_processes": 1}'):
        file.with_name("progress.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"progress\.json cannot be read"):
            read_progress(tmp_path)


def test_a_changed_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    module, optimizer = saved(tmp_path)
    file = tmp_path / "step-000003" / "progress.json"
    file.write_text(file.read_text().replace('"step": 3', '"step": 4'))
    with pytest.raises(DamagedFileError) as caught:
        restore_progress(tmp_path, module, optimizer)
    assert f"{file} is not what was written there" in caught.value.message
    expected = f"delete {file.parent} to go on from the beginning of the stage."
    assert caught.value.hint.endswith(expected)


def test_another_module_is_refused_by_name_and_by_shape(tmp_path: Path) -> None:
    saved(tmp_path)
    for other, message in ((nn.Linear(2, 3), r"is \[2"), (nn.PReLU(), "does not fit")):
        optimizer = torch.optim.AdamW(other.parameters())
        with pytest.raises(CheckpointError, match=message):
            restore_progress(tmp_path, other, optimizer)
