"""Downloading by name, against a stand-in of the hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import COMMIT, Hub, serving
from huggingface_hub import constants

from exgra_med.errors import CheckpointError
from exgra_med.model import bundle as folders
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.model.hub import download_checkpoint

DATA = Path(__file__).parents[2] / "golden" / "data" / "model"


@pytest.fixture
def hub(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    save_bundle(bundle, tmp_path / "repository")
    (tmp_path / "repository" / "evil.py").write_text("boom")
    (tmp_path / "repository" / "pytorch_model.bin").write_bytes(b"the same again, pickled")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(Hub("owner/model", tmp_path / "repository")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_name_is_downloaded_once_and_loaded(hub: Hub, bundle: Bundle) -> None:
    loaded = load_bundle("owner/model")
    assert loaded.model.config.connector == bundle.model.config.connector
    folder = download_checkpoint("owner/model")
    assert folder.name == COMMIT
    assert not (folder / "evil.py").exists()
    assert not (folder / "pytorch_model.bin").exists()


def test_an_interrupted_download_goes_on_where_it_broke_off(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    hub.break_off["model.safetensors"] = 1
    folder = download_checkpoint("owner/model")
    size = len(hub.content("model.safetensors"))
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for n, r in hub.ranges if "safe" in n]
    assert starts and 0 < starts[0] < size
    assert (folder / "model.safetensors").read_bytes() == hub.content("model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_hash_is_refused_and_forgotten(hub: Hub, name: str) -> None:
    hub.corrupt.add(name)
    with pytest.raises(CheckpointError, match=f"other bytes than it announced for {name}"):
        load_bundle("owner/model")
    hub.corrupt.clear()
    assert (download_checkpoint("owner/model") / name).read_bytes() == hub.content(name)


def test_a_name_the_hub_does_not_know(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="does not give owner/other"):
        load_bundle("owner/other")


def test_a_hub_that_is_away_is_a_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="Check the name and the network"):
        folders.local_folder("owner/absent")


def test_a_published_checkpoint_is_imported_by_its_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(DATA / "checkpoint_dci", tmp_path / "repository")
    with serving(Hub("MERGE-Group/exgra-med-dci", tmp_path / "repository")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        vision = str(DATA / "clip_tiny")
        import_checkpoint("exgra-med-dci", vision, tmp_path / "out", revision=COMMIT)
    assert load_bundle(tmp_path / "out").model.config.connector == "dci"


@pytest.mark.slow
def test_a_download_that_gave_up_keeps_its_whole_files(hub: Hub) -> None:
    hub.break_off["model.safetensors"] = 100
    with pytest.raises(CheckpointError, match="what was downloaded is kept"):
        download_checkpoint("owner/model")
    hub.break_off.clear()
    hub.sent.clear()
    folder = download_checkpoint("owner/model")
    assert hub.sent == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == hub.content("model.safetensors")


@pytest.mark.slow
def test_the_command_line_imports_from_the_hub_of_the_environment(tmp_path: Path) -> None:
    shutil.copytree(DATA / "checkpoint_none", tmp_path / "repository")
    with serving(Hub("MERGE-Group/exgra-med", tmp_path / "repository")) as hub:
        environment = {name: value for name, value in os.environ.items() if "HF_" not in name}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        arguments = ["exgra-med", "--vision", str(DATA / "clip_tiny"), "--out", "out", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "exgra_med", "checkpoint", "import", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "exgra-med"
    assert load_bundle(tmp_path / "out").model.config.connector == "none"
