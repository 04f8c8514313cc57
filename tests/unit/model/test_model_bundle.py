import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
)

from exgra_med.errors import CheckpointError
from exgra_med.files import DiskFullError
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint
from exgra_med.model.native import NativeBundle, pixel_values
from exgra_med.model.sizes import folder_config


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    save_bundle(bundle, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "connector", ["dci", *(pytest.param(each, marks=pytest.mark.slow) for each in ("none", "sci"))]
)
def test_a_saved_bundle_comes_back_bit_for_bit(
    make_bundle: Callable[..., Bundle], connector: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    bundle = make_bundle(connector)
    save_bundle(bundle, tmp_path / "a")
    again = load_bundle(tmp_path / "a")
    assert again.model.config.connector == connector
    assert "model.vision_tower.embeddings.class_embedding" in again.model.state_dict()
    for name, weight in bundle.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    assert again.tokenizer.backend_tokenizer.to_str() == bundle.tokenizer.backend_tokenizer.to_str()
    assert torch.equal(pixel_values(again, pictures), pixel_values(bundle, pictures))
    assert again.processor.chat_template == bundle.processor.chat_template


def test_auto_classes_load_the_native_model(folder: Path, bundle: Bundle) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model) is type(bundle.model)
    assert type(AutoProcessor.from_pretrained(folder)) is type(bundle.processor)


def test_pixels_do_not_depend_on_what_else_is_installed(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torchvision:
        """What AutoProcessor would put there on a machine with torchvision."""

    def with_torchvision(*arguments: object, **options: object) -> object:
        processor = load(*arguments, **options)
        processor.image_processor = Torchvision()
        return processor

    load = AutoProcessor.from_pretrained
    monkeypatch.setattr(AutoProcessor, "from_pretrained", with_torchvision)
    again = load_bundle(folder)
    assert type(again.image_processor) is type(bundle.image_processor)
    assert again.image_processor.size == bundle.image_processor.size


def test_without_a_connector_the_folder_is_stock(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle("none")
    save_bundle(bundle, tmp_path / "a")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "a")
    assert type(model).__module__.startswith("transformers.")
    ids = torch.tensor([[1] + [bundle.image_token_id] * 4 + [5, 6]])
    pixels = torch.randn(1, 3, 28, 28)
    ours = bundle.model(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(ours, model(input_ids=ids, pixel_values=pixels).logits)


@pytest.mark.slow
def test_a_stock_export_that_transformers_wrote_again_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    """Its tensors have other names then (`language_model.model.*`)."""
    export_checkpoint(str(folder), tmp_path / "stock")
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock")
    made = LlavaForConditionalGeneration(stock.config)
    made.load_state_dict(stock.state_dict())
    made.save_pretrained(tmp_path / "again")
    AutoProcessor.from_pretrained(tmp_path / "stock").save_pretrained(tmp_path / "again")
    names = load_file(tmp_path / "again/model.safetensors")
    assert any(name.startswith("language_model.model.") for name in names)
    one, other = load_bundle(tmp_path / "stock"), load_bundle(tmp_path / "again")
    assert isinstance(other, NativeBundle)
    ours = one.model.state_dict()
    assert all(torch.equal(each, ours[n]) for n, each in other.model.state_dict().items())


def test_a_reloaded_tokenizer_gives_the_same_ids(folder: Path, bundle: Bundle) -> None:
    again = AutoTokenizer.from_pretrained(folder)
    for text in ["Yes###", "a\n<im_start><im_patch><im_end>\nb", " x", "<s>a", "β ≥ 5"]:
        assert again(text)["input_ids"] == bundle.tokenizer(text)["input_ids"]
    again.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a <im_end> b") == again("a <im_end> b")


def test_saving_again_replaces_the_folder(folder: Path, make_bundle: Callable[..., Bundle]) -> None:
    (folder / "old").write_text("x")
    save_bundle(make_bundle("dci", seed=5), folder)
    assert not (folder / "old").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_folder_with_other_things_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("x")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        save_bundle(bundle, tmp_path / "a")


def test_a_full_disk_leaves_what_was_there(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(bundle.processor), "save_pretrained", full)
    with pytest.raises(DiskFullError, match="full"):
        save_bundle(bundle, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_full_disk_reported_by_safetensors_is_one_too(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(type(bundle.model), "save_pretrained", full)
    with pytest.raises(DiskFullError):
        save_bundle(bundle, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_every_wrong_key_is_named(folder: Path) -> None:
    def edit(weights: dict[str, torch.Tensor]) -> None:
        weights["surprise"] = torch.zeros(2)
        del weights["model.language_model.norm.weight"]
        weights["lm_head.weight"] = weights["lm_head.weight"][:, :5].contiguous()

    change(folder, edit)
    with pytest.raises(CheckpointError) as caught:
        load_bundle(folder)
    assert "unexpected: surprise" in caught.value.message
    assert "missing: model.language_model.norm.weight" in caught.value.message
    assert "wrong shape: lm_head.weight" in caught.value.message


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    change(folder, lambda weights: weights["lm_head.weight"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"not finite: lm_head\.weight"):
        load_bundle(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_bundle(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin alone"):
        load_bundle(folder)


def test_the_layout_of_the_original_is_recognised(tmp_path: Path) -> None:
    config = {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="checkpoint import"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["exgra-med-dci", "MERGE-Group/exgra-med-dci"])
def test_a_published_name_names_its_import(name: str) -> None:
    with pytest.raises(CheckpointError, match="checkpoint import exgra-med-dci"):
        load_bundle(name)


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "nothing"])
def test_a_folder_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(CheckpointError, match=source):
        load_bundle(source)


def test_settings_can_be_read_where_the_weights_of_their_index_are_not(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert folder_config(folder).model_type == "exgra_llava"
    with pytest.raises(CheckpointError):
        load_bundle(folder)
