"""Folders that people take for a checkpoint say what they are."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.model.inspection import describe_checkpoint

LLAVA = {"model_type": "llava_llama", "architectures": ["LlavaLlamaForCausalLM"]}
PEFT = {"base_model_name_or_path": "liuhaotian/llava-v1.5-7b", "peft_type": "LORA", "r": 8}
STOCK = {"model_type": "llava", "text_config": {}, "vision_config": {}}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def folder(path: Path, *names: str, config: dict | None = None, peft: dict | None = None) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"x" * 2000)
    for name, value in (("config.json", config), ("adapter_config.json", peft)):
        if value is not None:
            (path / name).write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("config", [LLAVA, None, STOCK])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("adapter_model.safetensors",), "is a LoRA adapter.*Merge it into its base first"),
        (("adapter_model.bin", "optimizer.pt"), "is a LoRA adapter.*Merge it into its base first"),
        (("adapter_model.safetensors", "non_lora_trainables.bin"), "merge_lora_weights.py"),
        (("model-q4.gguf",), "GGUF weights, which llama.cpp"),
        (("optimizer.pt", "scheduler.pt", "trainer_state.json"), "state of a training"),
        (("optimizer.bin", "rng_state_0.pth"), "state of a training|another program"),
        (("zero_to_fp32.py", "latest"), "DeepSpeed"),
        (("__0_0.distcp", ".metadata"), r"sharded \(FSDP\)"),
        (("model-00001-of-00002.safetensors",), "their index is missing"),
        (("mm_projector.bin",), "connector of stage 1 alone.*--onto"),
        (("consolidated.00.pth", "params.json"), "another program"),
        (("model.onnx",), "another program"),
        (("tokenizer.json",), "tokenizer or processor and no weights"),
        (("manifest.json", "train.jsonl"), "prepared data set"),
        (("weights.safetensors",), "none of a checkpoint's"),
    ],
)
def test_each_folder_is_named_by_every_way_in(
    tmp_path: Path, names: tuple[str, ...], message: str, config: dict | None
) -> None:
    peft = PEFT if names[0].startswith("adapter") else None
    path = folder(tmp_path / "model", *names, config=config, peft=peft)
    ways = [describe_checkpoint, load_bundle]
    ways.append(lambda p: import_checkpoint(str(p), str(tmp_path), tmp_path / "out"))
    for way in ways[: 2 if config == STOCK else 3]:
        with pytest.raises(CheckpointError, match=message) as caught:
            way(path)
        if peft:
            assert "adapter of liuhaotian/llava-v1.5-7b" in caught.value.message


def test_weights_as_bin_alone_and_pointers_of_git(tmp_path: Path, bundle: Bundle) -> None:
    save_bundle(bundle, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_text(POINTER)
    for way in (describe_checkpoint, load_bundle):
        with pytest.raises(CheckpointError, match=r"is a Git LFS pointer.*git lfs pull"):
            way(tmp_path / "model")
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin alone.*save_pretrained"):
        load_bundle(tmp_path / "model")


def test_the_adapter_of_a_run_points_to_its_merged_checkpoint(tmp_path: Path) -> None:
    folder(tmp_path / "final", "model.safetensors", config=STOCK)
    adapter = folder(tmp_path / "final" / "adapter", "adapter_model.safetensors", peft=PEFT)
    with pytest.raises(CheckpointError, match=f"{adapter.parent} has it merged"):
        load_bundle(adapter)


def test_a_file_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"model.gguf holds GGUF weights"):
        load_bundle(tmp_path / "model.gguf")
    path = folder(tmp_path / "lora", "adapter_model.safetensors", config=LLAVA, peft=PEFT)
    result = CliRunner().invoke(app, ["checkpoint", "inspect", str(path)])
    assert isinstance(result.exception, CheckpointError)
    assert "is a LoRA adapter" in str(result.exception)
