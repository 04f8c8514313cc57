"""What is said of a folder of any kind, what is recorded of it, and how it is served."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from any_models import families
from exgra_med.cli.main import app
from exgra_med.digests import write_digests
from exgra_med.errors import CheckpointError, DamagedFileError
from exgra_med.model import bundle as bundles
from exgra_med.model import inspection, serving
from exgra_med.model.any_model import Facts
from exgra_med.model.bundle import load_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint
from exgra_med.model.inspection import describe_checkpoint, measured_in_words
from exgra_med.model.sizes import folder_config
from exgra_med.model.verification import verify_checkpoint, write_verification
from families import make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def saved(name: str, folder: Path) -> Path:
    model, processor = make(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def inspect(folder: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["checkpoint", "inspect", str(folder), *options])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@families(["gemma3", "qwen2_5_vl"])
def test_a_folder_of_another_family_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path / name)
    found = describe_checkpoint(folder)
    model, _ = make(name)
    assert (found["layout"], found["model_type"]) == ("plain transformers", name)
    assert found["class"] == type(model).__name__
    assert sum(found["parts"].values()) == sum(each.numel() for each in model.parameters())
    assert all(found["parts"].values())
    tied = name == "gemma3"
    assert found["head"] == ("tied to the embeddings" if tied else "a matrix of its own")
    assert found["image_token"] == ("<image_soft_token>" if tied else "<|image_pad|>")
    assert (found["context_length"], found["chat_template"]) == (4096, "its own")
    assert found["measured"] == {} and "problem" not in found
    assert "connector none" not in inspect(folder)


@families(["gemma3"])
def test_what_was_measured_is_shown_and_measured_on_demand(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path / name)
    assert "not yet; it is measured when the model is loaded, or with --probe" in inspect(folder)
    facts = json.loads(inspect(folder, "--probe", "--json"))["measured"]["float32"]
    assert (facts["leak"], facts["text_packing"]) == (0.0, "plain")
    assert facts["batch_difference"] < 1e-3
    assert "float32: texts are packed" in inspect(folder)
    doctor = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert doctor["measured_models"] == 1
    assert isinstance(doctor["extras"]["vlm"], bool)


def test_why_a_model_cannot_be_used_is_told(tmp_path: Path) -> None:
    model, processor = make("paligemma")
    folder = saved("paligemma", tmp_path / "model")
    assert "has no chat template" in describe_checkpoint(folder)["problem"]
    gemma = make("gemma3")[1]
    processor.chat_template = gemma.chat_template.replace("<start_of_image>", "<image>")
    processor.save_pretrained(folder)
    with pytest.raises(CheckpointError):
        load_bundle(folder)
    text = folder.with_name("text")
    hf.LlamaForCausalLM(
        hf.LlamaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(text)
    problem = describe_checkpoint(text)["problem"]
    assert "none that reads images and text" in problem and "`model.parts`" in problem
    unknown = folder.with_name("unknown")
    model.save_pretrained(unknown)
    config: dict[str, Any] = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "martian_vl"}))
    assert "'martian_vl', which transformers cannot read" in describe_checkpoint(unknown)["problem"]


def test_a_refusal_by_what_was_measured_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Facts(0.1, 0.0, 0.0, None, None, float("inf"), 0.5)
    monkeypatch.setattr(inspection, "known_facts", lambda folder: {"float32": facts})
    found = describe_checkpoint(saved("llava", tmp_path / "model"))
    assert "lets its question see its answer" in found["problem"]
    assert found["measured"]["float32"]["text_difference"] is None
    assert found["measured"]["float32"]["image_difference"] == 0.5
    assert "texts are padded, images are padded (leak 1e-01" in measured_in_words(found["measured"])


@pytest.mark.slow
@families(["gemma3", "internvl"])
def test_a_changed_weight_of_another_family_is_noticed(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path / name)
    write_verification(load_bundle(folder, dtype="auto"), folder)
    assert all(finding.passed for finding in verify_checkpoint(folder))
    weights = load_file(folder / "model.safetensors")
    connector = [w for n, w in weights.items() if "projector" in n and w.ndim > 1]
    connector[0].mul_(1.5)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    wrong = [finding.name for finding in verify_checkpoint(folder) if not finding.passed]
    # The connector plays no part in a question without an image.
    assert wrong == ["hash of model.safetensors", "logits of image"]


def test_a_checkpoint_of_a_run_is_verified_by_its_digests(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0")
    write_digests(tmp_path)
    (finding,) = verify_checkpoint(tmp_path)
    assert finding.passed and finding.name == "SHA-256 of every file"
    (tmp_path / "model.safetensors").write_bytes(b"1")
    with pytest.raises(DamagedFileError, match=r"model\.safetensors is not what was written"):
        verify_checkpoint(tmp_path)


def test_another_family_is_served_as_it_is_and_needs_no_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("gemma3", tmp_path / "gemma3")
    assert serving.prepare_export(str(folder)) == folder.resolve()
    assert [each.name for each in tmp_path.iterdir()] == ["gemma3"]
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert "--model-impl" not in serving.server_command(folder, "127.0.0.1", 8000)
    with pytest.raises(CheckpointError, match=r"plain transformers already.*gemma3") as caught:
        export_checkpoint(str(folder), tmp_path / "out")
    assert "exgra-med serve" in caught.value.hint

    def absent(*_: object, **__: object) -> None:
        raise ImportError("torchvision")

    monkeypatch.setattr(bundles.AutoProcessor, "from_pretrained", absent)
    # vLLM has an environment of its own.
    assert serving.prepare_export(str(folder)) == folder.resolve()


def test_a_folder_that_holds_no_weights_has_a_configuration(tmp_path: Path) -> None:
    model, _ = make("gemma3")
    model.config.save_pretrained(tmp_path)
    assert folder_config(tmp_path).model_type == "gemma3"
