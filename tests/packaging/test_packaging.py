"""What is published: complete, of this commit alone, and with no data but the bundled samples and
the small model.

`make release` sets EXGRA_MED_DIST to where it has built both; elsewhere they are built here.
"""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import warnings
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
BUNDLED = (
    "exgra_med/data/samples/slake-sample/",
    "exgra_med/data/samples/vqa-rad-sample/",
    "exgra_med/model/small/",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist."""
    if told := os.environ.get("EXGRA_MED_DIST"):
        return PROJECT / told
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


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Files that git tracks, as paths in the project."""
    done = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("not a checkout")
    return {each for each in done.stdout.split("\0") if each}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_there_is_no_data_but_what_is_bundled(built: Path, kind: str) -> None:
    members = names(built)[kind]
    data = {each for each in members if PurePosixPath(each).suffix.lower() in DATA}
    assert data
    assert all(any(folder in each for folder in BUNDLED) for each in data)


def test_no_large_file_and_nothing_generated(built: Path) -> None:
    for path in built.iterdir():
        assert path.stat().st_size < 20_000_000
    for members in names(built).values():
        parts = {part for each in members for part in PurePosixPath(each).parts}
        assert not parts & {"__pycache__", "runs", "tests", "docs", ".venv", ".github"}


def test_the_wheel_is_the_tracked_package_and_its_metadata(built: Path, tracked: set[str]) -> None:
    package = {each.removeprefix("src/") for each in tracked if each.startswith("src/")}
    members = names(built)["wheel"]
    generated = {each for each in members if each.partition("/")[0].endswith(".dist-info")}
    assert {PurePosixPath(each).name for each in generated} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE",
    }  # fmt: skip
    assert members - generated == package, "git tracks all of the package, and nothing else"


def test_the_sdist_has_what_it_should_and_nothing_that_git_does_not_track(
    built: Path, tracked: set[str]
) -> None:
    members = names(built)["sdist"]
    assert members - {"PKG-INFO"} <= tracked
    wanted = {each for each in tracked if each.startswith(("src/", "examples/"))}
    wanted |= {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    assert wanted <= members


def test_relative_links_of_the_published_readme_are_reported() -> None:
    """They are dead on a package page until there is a base address: see CONTRIBUTING, Release."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)\s]+)", readme)
    with (PROJECT / "pyproject.toml").open("rb") as stream:
        has_address = "urls" in tomllib.load(stream)["project"]
    assert not (has_address and links), "the repository has its address: give the links that base"
    if links:
        warnings.warn(
            f"{len(links)} links of README.md lead nowhere on a package page", stacklevel=1
        )


def test_the_code_and_the_citation_have_one_version() -> None:
    citation = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [exgra_med.__version__]


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
