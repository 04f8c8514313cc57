"""A package that a model's processor needs and that is absent is one sentence with a way out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoProcessor

import exgra_med
from exgra_med.errors import CheckpointError, ExgraMedError, MissingExtraError
from exgra_med.model.bundle import load_processor

# What transformers 5.17 and 5.23 say where torchvision or num2words is absent.
SAID = [
    ImportError(
        "\nPixtralProcessor requires the Torchvision library but it was not found in your "
        "environment. Check out the instructions on the\ninstallation page: ..."
    ),
    ImportError("Package `num2words` is required to run SmolVLM processor. Install it with ..."),
    ValueError(
        "Could not load any image processor class for DIR. The model configuration resolves to "
        "the following image processor classes: torchvision: Lfm2VlImageProcessor. None of these "
        "classes could be imported. Missing optional dependencies: torchvision."
    ),
]
SOURCE = Path(exgra_med.__file__).parents[1]
LOAD_ALL = """
import importlib.machinery, json, sys
from pathlib import Path

class WithoutThem(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = WithoutThem
from exgra_med.errors import MissingExtraError
from exgra_med.model.bundle import load_processor

found = {}
for folder in Path(sys.argv[1]).iterdir():
    try:
        found[folder.name] = type(load_processor(folder).image_processor).__name__
    except MissingExtraError as error:
        found[folder.name] = str(error)
print(json.dumps(found))
"""


def refusal(error: Exception, folder: Path, patch: pytest.MonkeyPatch) -> ExgraMedError:
    """What is raised where transformers raises an error for a folder of another model."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    (folder / "config.json").write_text('{"model_type": "lfm2_vl"}')
    patch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(ExgraMedError) as caught:
        load_processor(folder)
    return caught.value


@pytest.mark.parametrize("absent", ["torchvision", "num2words"])
@pytest.mark.parametrize("error", SAID, ids=["processor", "num2words", "image processor"])
def test_the_extra_is_named_where_one_of_its_packages_is_absent(
    error: Exception, absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exgra_med.model.bundle.find_spec", lambda name: name != absent or None)
    said = refusal(error, tmp_path, monkeypatch)
    assert isinstance(said, MissingExtraError) and said.exit_code == 2
    assert said.message == "The processor of this model needs the extra [vlm]."
    assert said.hint == "pip install 'exgra-med[vlm]'"


@pytest.mark.parametrize("error", SAID, ids=["processor", "num2words", "image processor"])
def test_with_the_extra_the_sentence_is_that_of_transformers(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exgra_med.model.bundle.find_spec", lambda name: name)
    said = refusal(error, tmp_path, monkeypatch)
    assert type(said) is CheckpointError
    assert said.message.startswith("The processor of this model needs a package that is not ")
    assert str(error).strip().partition(" Check out")[0] in said.message
    assert "\n" not in said.message and said.hint == "Install that package."


def test_a_damaged_folder_is_not_mistaken_for_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exgra_med.model.bundle.find_spec", lambda name: None)
    said = refusal(ValueError("Unrecognized processor"), tmp_path, monkeypatch)
    assert type(said) is CheckpointError and "Unrecognized processor" in said.message


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["torchvision,num2words", "num2words"])
def test_every_family_loads_or_names_the_extra(absent: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("num2words")
    from families import FAMILIES, NEEDS_TORCHVISION, make

    for name in FAMILIES:
        model, processor = make(name)
        model.config.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(tmp_path), absent],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(FAMILIES)
    refused = {name for name, said in found.items() if "needs the extra [vlm]" in said}
    without = NEEDS_TORCHVISION if "torchvision" in absent else {"smolvlm"}
    # Before 5.23, Idefics 3 needs torchvision too.
    assert refused - {"idefics3"} == without
