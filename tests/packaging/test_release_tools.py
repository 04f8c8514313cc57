"""`make release` takes a commit alone, the SBOM lists what runs, `make check` runs all tools."""

import importlib.util
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import exgra_med

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with this Makefile in one commit."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    author = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Begin"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(folder), *words], capture_output=True, text=True)


def test_a_release_of_a_tree_with_changes_is_refused(checkout: Path) -> None:
    assert make(checkout, "clean-tree").returncode == 0
    (checkout / "notes.txt").write_text("mine")
    done = make(checkout, "release")
    assert done.returncode != 0
    assert "this tree has changes:\n?? notes.txt" in done.stdout
    assert not (checkout / ".venv").exists()


def test_a_check_runs_all_four_tools_and_names_those_that_failed(checkout: Path) -> None:
    programs = checkout / "programs"
    programs.mkdir()
    for name, code in (("ruff", 1), ("codespell", 0), ("pyrefly", 1)):
        (programs / name).write_text(f"#!/bin/sh\necho ran {name} $1\nexit {code}\n")
        (programs / name).chmod(0o755)
    done = make(checkout, "check", "BIN=programs", "--old-file=.venv/.ready-test")
    assert [line for line in done.stdout.splitlines() if line.startswith("ran ")] == [
        "ran ruff check", "ran ruff format", "ran codespell", "ran pyrefly check",
    ]  # fmt: skip
    assert "Failed: ruff-check ruff-format pyrefly." in done.stdout
    assert done.returncode != 0


def test_the_sbom_has_the_version_and_leaves_out_what_only_builds() -> None:
    pytest.importorskip("hatchling", reason="what it needs is read from its installation")
    spec = importlib.util.spec_from_file_location("sbom", PROJECT / "tools" / "sbom.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    names = {line.partition("==")[0] for line in tool.pins_to_run()}
    assert {"torch", "numba", "packaging", "matplotlib"} <= names
    assert not names & {"hatchling", "editables", "pathspec", "pluggy", "trove-classifiers"}
    project = tomllib.loads(tool.pyproject_with_version())["project"]
    assert project["version"] == exgra_med.__version__
    assert "dynamic" not in project
