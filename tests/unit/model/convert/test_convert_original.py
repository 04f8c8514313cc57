"""Refusals and inferences of the import, on the golden checkpoints."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from exgra_med.errors import CheckpointError, DamagedFileError
from exgra_med.model.bundle import load_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint, import_checkpoint
from exgra_med.model.convert.tokenizer import read_sentencepiece
from exgra_med.model.inspection import describe_checkpoint
from exgra_med.model.verification import verify_checkpoint

DATA = Path(__file__).parents[3] / "golden" / "data" / "model"
VISION = str(DATA / "clip_tiny")
Weights = dict[str, torch.Tensor]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "checkpoint_dci", tmp_path / "old"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def change(source: Path, edit: Callable[[Weights], object]) -> None:
    weights = load_file(source / "model.safetensors")
    edit(weights)
    save_file(weights, source / "model.safetensors")


def set_config(source: Path, **values: object) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def as_bin(source: Path, num_shards: int) -> None:
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    if num_shards == 1:
        torch.save(weights, source / "pytorch_model.bin")
        return
    places = {name: f"pytorch_model-{i % num_shards}.bin" for i, name in enumerate(weights)}
    for shard in set(places.values()):
        own = {name: weights[name] for name in weights if places[name] == shard}
        torch.save(own, source / shard)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (source / "pytorch_model.bin.index.json").write_text(index)


def nothing_left(out: Path) -> bool:
    return not out.exists() and not [path for path in out.parent.iterdir() if "out" in path.name]


@pytest.mark.parametrize("num_shards", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_bin_and_safetensors_import_alike(source: Path, out: Path, num_shards: int) -> None:
    import_checkpoint(str(source), VISION, out)
    as_bin(source, num_shards)
    import_checkpoint(str(source), VISION, out.with_name("bin"))
    one, two = load_bundle(out).model.state_dict(), load_bundle(out.with_name("bin")).model
    assert all(torch.equal(one[name], weight) for name, weight in two.state_dict().items())


@pytest.mark.slow
def test_what_was_inferred_is_written_with_its_evidence(source: Path, out: Path) -> None:
    report = import_checkpoint(str(source), VISION, out)
    stored = json.loads((out / "import.json").read_text())
    assert stored == report
    found = {each["what"]: (each["value"], each["evidence"]) for each in stored["inferred"]}
    assert found["connector"][0] == "dci"
    assert "96 channels, the vision tower has 32" in found["connector"][1]
    assert found["id of <im_patch>"][0] == 481
    assert "CC BY-NC" in (out / "README.md").read_text()


def test_an_ambiguous_connector_can_be_named(source: Path, out: Path) -> None:
    import_checkpoint(str(source), VISION, out, connector="sci")
    assert load_bundle(out).model.config.connector == "sci"


def test_a_connector_that_does_not_fit_is_refused(source: Path, out: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'none' does not fit.*96 channels"):
        import_checkpoint(str(source), VISION, out, connector="none")
    assert nothing_left(out)


def test_every_wrong_tensor_is_named(source: Path, out: Path) -> None:
    def edit(weights: Weights) -> None:
        weights["model.surprise"] = torch.zeros(2)
        del weights["model.norm.weight"]
        weights["lm_head.weight"] = weights["lm_head.weight"][:5].contiguous()
        weights["model.layers.0.mlp.up_proj.weight"].fill_(float("inf"))

    change(source, edit)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(str(source), VISION, out)
    for line in (
        "unexpected: model.surprise",
        "missing: model.language_model.norm.weight",
        "wrong shape: lm_head.weight is [5, 64], not [484, 64]",
        "not finite: model.language_model.layers.0.mlp.up_proj.weight",
    ):
        assert line in caught.value.message
    assert nothing_left(out)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_bomb_does_not_go_off(source: Path, out: Path) -> None:
    (source / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb(source / "boom")}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="could run code"):
        import_checkpoint(str(source), VISION, out)
    assert not (source / "boom").exists() and nothing_left(out)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_truncated_file_is_refused(source: Path, out: Path, name: str) -> None:
    if name.endswith("bin"):
        as_bin(source, 1)
    path = source / name
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="damaged"):
        import_checkpoint(str(source), VISION, out)
    assert nothing_left(out)


def test_a_bin_that_is_no_table_of_tensors_is_refused(source: Path, out: Path) -> None:
    (source / "model.safetensors").unlink()
    torch.save({"a": {"b": 1}}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="'a' is not a tensor"):
        import_checkpoint(str(source), VISION, out)


def test_a_missing_shard_is_named(source: Path, out: Path) -> None:
    as_bin(source, 3)
    (source / "pytorch_model-1.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-1\.bin"):
        import_checkpoint(str(source), VISION, out)


def test_the_graph_layers_are_kept_beside_the_model(source: Path, out: Path) -> None:
    name = "model.message_pass_node_features.conv1.lin_rel.weight"
    change(source, lambda weights: weights.update({name: torch.ones(64, 64)}))
    import_checkpoint(str(source), VISION, out)
    kept = load_file(out / "alignment.safetensors")
    assert list(kept) == ["message_passing.conv1.lin_rel.weight"]


@pytest.mark.slow
def test_the_projector_of_stage_1_goes_into_a_checkpoint(source: Path, tmp_path: Path) -> None:
    native = tmp_path / "native"
    import_checkpoint(str(source), VISION, native)
    stage1 = {
        name: weight + 1
        for name, weight in load_file(source / "model.safetensors").items()
        if "mm_projector" in name or "embed_tokens" in name
    }
    torch.save(stage1, tmp_path / "mm_projector.bin")
    with pytest.raises(CheckpointError, match="--onto"):
        import_checkpoint(str(tmp_path / "mm_projector.bin"), VISION, tmp_path / "out")
    import_checkpoint(str(tmp_path / "mm_projector.bin"), VISION, tmp_path / "out", onto=native)
    before, after = (load_bundle(path).model.state_dict() for path in (native, tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 5 == len(stage1)
    assert all(torch.equal(before[name] + 1, after[name]) for name in changed)


def test_a_linear_projector_is_exact_natively_and_close_in_stock(tmp_path: Path, out: Path) -> None:
    source = Path(shutil.copytree(DATA / "checkpoint_none", tmp_path / "old"))

    def edit(weights: Weights) -> None:
        for end in ("weight", "bias"):
            weights[f"model.mm_projector.{end}"] = weights.pop(f"model.mm_projector.0.{end}")
            del weights[f"model.mm_projector.2.{end}"]

    change(source, edit)
    set_config(source, mm_projector_type="linear")
    import_checkpoint(str(source), VISION, out)
    weights = load_file(source / "model.safetensors")
    model, pixels = load_bundle(out).model, torch.randn(1, 3, 56, 56)
    features = model.model.vision_features(pixels)
    by_hand = features @ weights["model.mm_projector.weight"].T + weights["model.mm_projector.bias"]
    assert (model.image_features(pixels) - by_hand).abs().max() < 1e-6
    export_checkpoint(str(out), tmp_path / "export")
    stock = load_bundle(tmp_path / "export").model
    assert stock.config.projector_hidden_act == "gelu"
    assert (stock.image_features(pixels) - by_hand).abs().max() < 1e-5


def test_another_projector_is_refused(source: Path, out: Path) -> None:
    change(source, lambda w: w.update({"model.mm_projector.4.weight": torch.zeros(64, 64)}))
    with pytest.raises(CheckpointError, match="neither `linear` nor `mlp2x_gelu`"):
        import_checkpoint(str(source), VISION, out)


def test_other_added_tokens_are_refused(source: Path, out: Path) -> None:
    (source / "added_tokens.json").write_text('{"[PAD]": 480, "<im_patch>": 481}')
    with pytest.raises(CheckpointError, match="added tokens"):
        import_checkpoint(str(source), VISION, out)


def test_a_first_token_of_the_checkpoint_is_kept(source: Path, out: Path) -> None:
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "</s>"}))
    report = import_checkpoint(str(source), VISION, out)
    assert "first token" in {each["what"] for each in report["inferred"]}
    assert load_bundle(out).tokenizer("a")["input_ids"][0] == 2


def test_what_needs_no_import_is_refused(source: Path, out: Path) -> None:
    import_checkpoint(str(source), VISION, out)
    with pytest.raises(CheckpointError, match="not in the original's layout"):
        import_checkpoint(str(out), VISION, out.with_name("again"))


def test_stock_transformers_silently_misreads_the_layout(source: Path) -> None:
    misread = AutoConfig.from_pretrained(source)
    assert (misread.text_config.hidden_size, misread.vision_config.image_size) == (4096, 336)
    with pytest.raises(CheckpointError, match="checkpoint import"):
        load_bundle(source)


def test_verify_notices_a_changed_weight(source: Path, out: Path) -> None:
    import_checkpoint(str(source), VISION, out)
    assert all(finding.passed for finding in verify_checkpoint(out))
    change(out, lambda weights: weights["lm_head.weight"][0].add_(1e-3))
    with pytest.raises(DamagedFileError, match=r"model\.safetensors is not what was written there"):
        verify_checkpoint(out)
    (out / "digests.json").unlink()  # an earlier version wrote none
    wrong = [finding.name for finding in verify_checkpoint(out) if not finding.passed]
    assert wrong == ["hash of model.safetensors", "logits of image", "logits of text"]


def test_verify_needs_something_recorded(source: Path, out: Path) -> None:
    import_checkpoint(str(source), VISION, out)
    for name in ("verification.json", "digests.json"):
        (out / name).unlink()
    with pytest.raises(CheckpointError, match="nothing was recorded"):
        verify_checkpoint(out)


@pytest.mark.slow
def test_inspect_tells_the_layouts_apart(source: Path, out: Path, tmp_path: Path) -> None:
    import_checkpoint(str(source), VISION, out)
    export_checkpoint(str(out), tmp_path / "export")
    old, native, stock = map(describe_checkpoint, (source, out, tmp_path / "export"))
    assert old["layout"].startswith("original")
    assert (native["layout"], native["connector"]) == ("native", "dci")
    assert (stock["layout"], stock["vision_layers"]) == ("stock LLaVA", list(range(24)))
    assert native["projector"] == [64, 96] and stock["projector"] == [64, 24 * 32]
    assert native["language"]["vocab_size"] == 484


def test_a_damaged_tokenizer_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    whole = (DATA / "checkpoint_dci" / "tokenizer.model").read_bytes()
    for content in (b"", b"hello", whole[:-3], b"\xff" * 20):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a SentencePiece model"):
            read_sentencepiece(path)


def test_pieces_and_merges_equal_the_library() -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from tokenizers.models import BPE
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    path = DATA / "checkpoint_dci" / "tokenizer.model"
    theirs = SentencePieceExtractor(str(path)).extract(BPE)
    assert read_sentencepiece(path) == (theirs["vocab"], theirs["merges"])
