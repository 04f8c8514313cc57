import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from exgra_med.data.download.hub import download_dataset
from exgra_med.data.sources import SOURCES
from exgra_med.errors import DataError, ServiceError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A hub that has one JSON file and one archive; records what it is asked for."""
    asked: list[dict] = []

    class Api:
        def dataset_info(self, name: str, revision: str | None) -> SimpleNamespace:
            return SimpleNamespace(sha=revision or "newest")

    def snapshot(name: str, **options) -> None:
        asked.append({"name": name, **options})
        folder = options["local_dir"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.json").write_text("[]")
        with zipfile.ZipFile(folder / "imgs.zip", "w") as bundle:
            bundle.writestr("imgs/xmlab1/source.jpg", b"x")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_a_repository_is_fetched_pinned_and_unpacked(hub: list[dict], tmp_path: Path) -> None:
    ledger = download_dataset(SOURCES.find("slake"), tmp_path / "raw")
    assert hub[0]["name"] == "BoKelvin/SLAKE" and hub[0]["revision"] == "newest"
    assert (tmp_path / "raw/imgs/xmlab1/source.jpg").read_bytes() == b"x"
    assert json.loads((tmp_path / "raw/download.json").read_text()) == ledger
    assert ledger["files"]["train.json"] == 2
    assert download_dataset(SOURCES.find("slake"), tmp_path / "raw", "v1")["commit"] == "v1"
    assert not list((tmp_path / "raw").glob(".imgs*"))


def test_a_source_may_name_the_commit_that_is_fetched(hub: list[dict], tmp_path: Path) -> None:
    source = SOURCES.find("pmc-vqa")
    ledger = download_dataset(source, tmp_path / "raw")
    assert hub[0]["revision"] == ledger["commit"] == source.revision and len(source.revision) == 40
    assert download_dataset(source, tmp_path / "raw", "v1")["commit"] == "v1"


def test_a_hub_that_fails_says_to_run_again(
    hub: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, **options) -> None:
        raise ConnectionError("https://user:secret@host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ServiceError, match=r"could not be downloaded \(ConnectionError\)") as error:
        download_dataset(SOURCES.find("slake"), tmp_path)
    assert "secret" not in str(error.value) and error.value.exit_code == 1


def test_a_dataset_without_a_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no public repository"):
        download_dataset(SOURCES.find("custom"), tmp_path)
