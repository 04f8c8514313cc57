"""What is published: complete, and with no data but the bundled sample."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import exgra_med

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
SOURCE = Path(exgra_med.__file__).parent
DATA = {
    ".arrow", ".bin", ".bmp", ".csv", ".dcm", ".gz", ".h5", ".jpeg", ".jpg", ".jsonl", ".model",
    ".nii", ".npy", ".npz", ".parquet", ".pickle", ".pkl", ".png", ".pt", ".pth", ".safetensors",
    ".tar", ".tif", ".tiff", ".zip",
}  # fmt: skip
SAMPLE = "exgra_med/data/samples/vqa-rad-sample/"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def names(built: Path) -> dict[str, set[str]]:
    """Members of both, without the sdist's first folder."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {each for each in archive.namelist() if not each.endswith("/")}
    with tarfile.open(sdist) as archive:
        in_sdist = {each.name.partition("/")[2] for each in archive if each.isfile()}
    return {"wheel": in_wheel, "sdist": in_sdist}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_there_is_no_data_but_the_sample(built: Path, kind: str) -> None:
    members = names(built)[kind]
    data = {each for each in members if PurePosixPath(each).suffix.lower() in DATA}
    assert data
    assert all(SAMPLE in each for each in data)


def test_no_large_file_and_nothing_generated(built: Path) -> None:
    for path in built.iterdir():
        assert path.stat().st_size < 5_000_000
    for members in names(built).values():
        parts = {part for each in members for part in PurePosixPath(each).parts}
        assert not parts & {"__pycache__", "runs", "tests", "docs", ".venv", ".github"}


def test_the_wheel_has_every_file_of_the_package(built: Path) -> None:
    listed = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "src/exgra_med"], capture_output=True, text=True
    ).stdout.split("\n")
    wanted = {each.removeprefix("src/") for each in listed if each}
    if not wanted:
        pytest.skip("not a checkout")
    assert wanted <= names(built)["wheel"]


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == names(built)["wheel"]


def test_metadata_say_licence_and_notice(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Research use only" in metadata
    assert any(each.endswith("licenses/LICENSE") for each in names(built)["wheel"])
