"""What training refuses about the way it was launched, and what it says when a process is lost."""

import inspect
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exgra_med.cli.train import train
from exgra_med.errors import (
    CheckpointError,
    DamagedFileError,
    RecipeError,
    RunError,
    TrainingError,
)
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import StageSettings
from exgra_med.training import distributed
from exgra_med.training.checkpoint import (
    StageProgress,
    check_resumable,
    read_progress,
    restore_progress,
    save_progress,
)
from exgra_med.training.distributed import (
    TIMEOUT_MINUTES,
    check_same_everywhere,
    check_shared_folder,
    on_main,
    process_state,
    refuse_other_engines,
    stop_with_the_others,
)


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_sharding_is_set_by_the_recipe_alone(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_engines()
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(RecipeError, match="accelerate launch") as refused:
        refuse_other_engines()
    assert "sharding: full" in refused.value.hint


def test_processes_that_accelerate_did_not_start_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without GPUs `accelerate launch --num_machines 2` starts one process on each machine."""
    monkeypatch.setattr(distributed, "on_cpu", lambda: True)
    for name in ("RANK", "LOCAL_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    refuse_other_engines()
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    with pytest.raises(RecipeError, match="each would train alone") as refused:
        refuse_other_engines()
    assert "torchrun" in refused.value.hint
    monkeypatch.setenv("RANK", "0")
    refuse_other_engines()


def test_gloo_uses_the_interface_that_leads_to_the_main_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "own")
    distributed._name_network_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "own"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    distributed._name_network_interface()
    interface = os.environ["GLOO_SOCKET_IFNAME"]
    known = distributed.psutil.net_if_addrs()[interface]
    assert "127.0.0.1" in {each.address for each in known}


def as_one_of_two(monkeypatch: pytest.MonkeyPatch, is_main: bool) -> None:
    state = SimpleNamespace(num_processes=2, is_main_process=is_main)
    monkeypatch.setattr(distributed, "process_state", lambda: state)


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (f"{GLOO}pair.cc:552] Connection closed by peer [10.0.0.2]:4231", "on 10.0.0.2 has ended"),
        (f"{GLOO}pair.cc:5] Connection reset by peer [::ffff:10.0.0.2]:4", "on 10.0.0.2 has ended"),
        (f"{GLOO}pair.cc:1] Read error [10.0.0.2]:42: Connection timed out", "silent for too long"),
        (f"{GLOO}unbound_buffer.cc:8] Timed out waiting 60000ms for recv", "silent for too long"),
    ],
)
def test_a_lost_process_is_one_sentence(
    raised: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_one_of_two(monkeypatch, is_main=True)
    sentence = "Another process of this launch"
    with pytest.raises(TrainingError, match=sentence) as lost, stop_with_the_others():
        raise RuntimeError(raised)
    assert said in lost.value.message and "--resume" in lost.value.hint
    with pytest.raises(RuntimeError, match="shape"), stop_with_the_others():
        raise RuntimeError("a shape does not fit")


def test_what_the_main_process_refuses_ends_the_others_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise RunError("It is taken.", "Take another.")

    told = []
    as_one_of_two(monkeypatch, is_main=True)
    monkeypatch.setattr(distributed, "broadcast_from_main", lambda each: told.append(each))
    with pytest.raises(RunError, match="It is taken"):
        on_main(refuse)
    assert told == [("It is taken.", "Take another.", 2)]
    as_one_of_two(monkeypatch, is_main=False)
    monkeypatch.setattr(distributed, "broadcast_from_main", lambda _: told[0])
    with pytest.raises(TrainingError, match="The main process stopped: It is taken") as stopped:
        on_main(refuse)
    assert (stopped.value.exit_code, stopped.value.hint) == (2, "Take another.")


def test_a_folder_that_another_machine_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(distributed, "broadcast_from_main", lambda each: told.append(each) or each)
    monkeypatch.setattr(distributed, "gather_object", lambda own: [*own, *others])
    as_one_of_two(monkeypatch, is_main=True)
    others = []
    check_shared_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    others = ["host-b"]
    with pytest.raises(RunError, match="on host-b is another folder"):
        check_shared_folder(tmp_path)
    as_one_of_two(monkeypatch, is_main=False)
    others = []
    monkeypatch.setattr(distributed, "broadcast_from_main", lambda _: "mark")
    monkeypatch.setattr(distributed.socket, "gethostname", lambda: "host-c")
    with pytest.raises(RunError, match="on host-c is another folder"):
        check_shared_folder(tmp_path)
    (tmp_path / "mark").touch()
    check_shared_folder(tmp_path)
    check_same_everywhere("The data", "mark")
    with pytest.raises(RunError, match="The data on host-c is not that of the main process"):
        check_same_everywhere("The data", "other")


def test_the_command_waits_as_long_as_the_library() -> None:
    assert inspect.signature(train).parameters["timeout_minutes"].default == TIMEOUT_MINUTES
    assert inspect.signature(process_state).parameters["timeout_minutes"].default == TIMEOUT_MINUTES


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
