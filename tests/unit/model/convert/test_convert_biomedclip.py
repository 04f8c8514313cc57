"""BiomedCLIP's tower against a ViT written by hand with timm's tensors."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import load_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint, import_checkpoint

DATA = Path(__file__).parents[3] / "golden" / "data" / "model"
WIDTH, DEPTH, PATCH, SIDE = 64, 4, 14, 4


def timm_weights() -> dict[str, Tensor]:
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, SIDE * SIDE + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(DEPTH):
        for part, out, into in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 96, WIDTH),
            ("mlp.fc2", WIDTH, 96),
        ):
            shapes[f"blocks.{i}.{part}.weight"] = (out, into)
            shapes[f"blocks.{i}.{part}.bias"] = (out,)
        for part in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{part}.weight"] = shapes[f"blocks.{i}.{part}.bias"] = (WIDTH,)
    weights = {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    return {f"visual.trunk.{name}": tensor for name, tensor in weights.items()}


def block_outputs(weights: dict[str, Tensor], pixels: Tensor) -> list[Tensor]:
    w = {name.removeprefix("visual.trunk."): tensor for name, tensor in weights.items()}
    x = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
    outputs = []
    for i in range(DEPTH):

        def linear(part: str, value: Tensor, i: int = i) -> Tensor:
            return F.linear(value, w[f"blocks.{i}.{part}.weight"], w[f"blocks.{i}.{part}.bias"])

        def norm(part: str, value: Tensor, i: int = i) -> Tensor:
            ends = w[f"blocks.{i}.{part}.weight"], w[f"blocks.{i}.{part}.bias"]
            return F.layer_norm(value, (WIDTH,), *ends, eps=1e-6)

        heads = linear("attn.qkv", norm("norm1", x)).unflatten(-1, (3, 1, WIDTH))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + linear("attn.proj", mixed.transpose(1, 2).flatten(2))
        x = x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))
        outputs.append(x[:, 1:])
    return outputs


@pytest.fixture
def tower(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path / "biomedclip"
    folder.mkdir()
    weights = timm_weights()
    torch.save(weights | {"text.x": torch.ones(1)}, folder / "open_clip_pytorch_model.bin")
    config = {"preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, weights


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(DATA / "checkpoint_dci", tmp_path / "old"))
    weights = load_file(folder / "model.safetensors")
    weights["model.mm_projector.0.weight"] = torch.randn(64, 3 * WIDTH) * 0.05
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("num_l", "length"), [(None, 2), (1, 1)])
def test_features_are_the_means_of_blocks(
    tower: tuple[Path, dict[str, Tensor]],
    source: Path,
    tmp_path: Path,
    num_l: int | None,
    length: int,
) -> None:
    folder, weights = tower
    report = import_checkpoint(str(source), str(folder), tmp_path / "out", num_l=num_l)
    assert "num_l" in {each["what"] for each in report["inferred"]}
    bundle = load_bundle(tmp_path / "out")
    pixels = torch.randn(2, 3, 56, 56)
    blocks = block_outputs(weights, pixels)
    groups = [blocks[DEPTH - 2 : DEPTH - 1], blocks[:length], blocks[length : 2 * length]]
    expected = torch.cat([torch.stack(group).mean(0) for group in groups], -1)
    features = bundle.model.model.vision_features(pixels)
    assert (features - expected).abs().max() < 1e-5
    assert list(bundle.image_processor.image_mean) == [0.5, 0.5, 0.5]
    export_checkpoint(str(tmp_path / "out"), tmp_path / "export")
    stock = load_bundle(tmp_path / "export").model
    assert stock.config.vision_feature_layer == sorted({DEPTH - 1, *range(1, 2 * length + 1)})
    difference = stock.image_features(pixels) - bundle.model.image_features(pixels)
    assert difference.abs().max() < 2e-5


def test_num_l_that_does_not_fit(
    tower: tuple[Path, dict[str, Tensor]], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="4 blocks"):
        import_checkpoint(str(source), str(tower[0]), tmp_path / "out", num_l=3)
    with pytest.raises(CheckpointError, match="no effect with CLIP"):
        original = str(DATA / "checkpoint_dci")
        import_checkpoint(original, str(DATA / "clip_tiny"), tmp_path / "out", num_l=3)


def test_a_tower_of_another_kind_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    torch.save({"visual.conv1.weight": torch.ones(1)}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no timm ViT"):
        import_checkpoint(str(source), str(tmp_path), tmp_path / "out")


def test_a_tensor_too_many_is_named(
    tower: tuple[Path, dict[str, Tensor]], source: Path, tmp_path: Path
) -> None:
    folder, weights = tower
    extra = {"visual.trunk.blocks.0.ls1.gamma": torch.ones(WIDTH)}
    torch.save(weights | extra, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"unexpected: .*ls1"):
        import_checkpoint(str(source), str(folder), tmp_path / "out")
