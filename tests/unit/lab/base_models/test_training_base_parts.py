"""Base models: made, gone on with after a kill, joined, and worth more than random weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from exgra_med.data.records import Prepared, open_prepared
from exgra_med.errors import DamagedFileError, RecipeError, RunError
from exgra_med.lab.base_models import vision
from exgra_med.lab.base_models.make import make_parts
from exgra_med.lab.base_models.settings import (
    PartsSettings,
    PastedShapesSettings,
    check_parts,
    load_parts,
)
from exgra_med.lab.base_models.vision import draw_shapes, windows
from exgra_med.model.assemble import assemble_parts, read_language, save_language_model
from exgra_med.model.build import build_model
from exgra_med.model.convert.vision import read_vision
from exgra_med.recipe.schema import Architecture, Parts
from exgra_med.terminal import Silent

TINY = {
    "vision": {
        "architecture": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "split": "train",
        "training": {"num_steps": 4, "batch_size": 4, "save_every_steps": 2, "log_every_steps": 1},
    },
    "language": {
        "architecture": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 1,
            "num_heads": 2,
        },
        "tokenizer": {"vocabulary_size": 400},
        "split": "train",
        "training": {"max_steps": 2, "batch_size": 2},
    },
}


class Killed(BaseException):
    """Stands for SIGKILL."""


class KillAt(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        if done == self.step:
            raise Killed


@pytest.fixture(scope="session")
def sample() -> Prepared:
    return open_prepared("bundled:vqa-rad-sample")


@pytest.fixture
def tiny() -> PartsSettings:
    return check_parts(TINY, "test")


def test_settings_say_only_what_differs(tmp_path: Path) -> None:
    settings = check_parts({"language": {"training": {"epochs": 1.0}}}, "here")
    usual = PartsSettings().language.training
    assert settings.language.training == usual.model_copy(update={"epochs": 1.0})
    with pytest.raises(RecipeError, match=r"vision\.training\.maskfraction"):
        check_parts({"vision": {"training": {"maskfraction": 0.5}}}, "here")
    with pytest.raises(RecipeError, match="no file"):
        load_parts(tmp_path / "parts.yaml")


def test_parts_are_made_once_and_join(
    sample: Prepared, tiny: PartsSettings, tmp_path: Path
) -> None:
    made = tmp_path / "parts"
    make_parts(tiny, sample.path, made, Silent())
    parts = Parts(language=str(made / "language"), vision=str(made / "vision"))
    bundle = assemble_parts(parts, seed=0)
    tower = load_file(made / "vision" / "model.safetensors")
    found = bundle.model.model.vision_tower.state_dict()
    for name, value in tower.items():
        assert torch.equal(found[name.removeprefix("vision_model.")], value)
    times = {each: each.stat().st_mtime_ns for each in (tmp_path / "parts").rglob("model.*")}
    make_parts(tiny, sample.path, tmp_path / "parts", Silent())
    assert times == {each: each.stat().st_mtime_ns for each in times}
    other = check_parts(TINY | {"seed": 1}, "test")
    with pytest.raises(RunError, match="other settings"):
        make_parts(other, sample.path, tmp_path / "parts", Silent())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    with pytest.raises(RunError, match="no parts"):
        make_parts(tiny, sample.path, tmp_path / "taken", Silent())


def test_a_killed_tower_goes_on_to_the_same_weights(
    sample: Prepared, tiny: PartsSettings, tmp_path: Path
) -> None:
    records, images = sample.records("train")[:30], sample.image_folder(10**8)

    def train(name: str, reporter: Silent) -> Path:
        work = tmp_path / name
        work.mkdir(exist_ok=True)
        vision.train_vision(tiny.vision, records, images, work, work / "out", 0, reporter)
        return work

    undisturbed = train("one", Silent())
    with pytest.raises(Killed):
        train("two", KillAt(3))
    assert not (tmp_path / "two" / "out").exists()
    resumed = train("two", Silent())
    weights = [load_file(each / "out" / "model.safetensors") for each in (undisturbed, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    logs = [(each / "log.jsonl").read_text() for each in (undisturbed, resumed)]
    assert logs[0] == logs[1]
    assert read_vision(resumed / "out").config.hidden_size == 16


def test_a_language_model_alone_says_what_it_said_in_its_bundle(tmp_path: Path) -> None:
    architecture = Architecture.model_validate(
        {"vision": TINY["vision"]["architecture"], "language": TINY["language"]["architecture"]}
        | {"tokenizer": TINY["language"]["tokenizer"]}
    )
    bundle = build_model(architecture, ["a lesion in the left lung"] * 4, seed=0)
    save_language_model(bundle, tmp_path / "language")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "language").eval()
    ids = torch.tensor([bundle.tokenizer("a lesion in the lung")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(alone(ids).logits, bundle.model(input_ids=ids).logits)
    file = tmp_path / "language" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"model\.safetensors is not what was written there"):
        read_language(tmp_path / "language")


def test_what_is_pasted_has_the_size_and_contrast_that_was_asked_for() -> None:
    settings = PastedShapesSettings(max_shapes=1, min_radius=0.1, max_radius=0.1, min_contrast=1.0)
    settings = settings.model_copy(update={"max_contrast": 1.0})
    stream = torch.Generator().manual_seed(0)
    pasted = draw_shapes(400, 32, settings, stream)
    areas = (pasted.abs() > 0.5).flatten(1).sum(1)
    assert 0.2 < float((areas == 0).float().mean()) < 0.4
    assert pasted.abs().max() == 1.0
    # The largest disc of radius 3.2 pixels covers 32; lobes reach 1.55 times as far.
    assert int(areas.max()) < 80
    assert (pasted > 0).any()
    assert (pasted < 0).any()
    again = draw_shapes(400, 32, settings, torch.Generator().manual_seed(0))
    assert torch.equal(pasted, again)


def test_a_window_is_a_patch_and_its_neighbours() -> None:
    picture = torch.arange(64.0).view(1, 8, 8)
    found = windows(picture, 2)
    assert found.shape == (1, 16, 36)
    padded = torch.nn.functional.pad(picture, (2, 2, 2, 2))
    for row in range(4):
        for column in range(4):
            part = padded[0, 2 * row : 2 * row + 6, 2 * column : 2 * column + 6]
            assert torch.equal(found[0, 4 * row + column], part.flatten())
