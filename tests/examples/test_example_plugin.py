"""The package of examples/plugin, installed without a network, adds to the command line."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PLUGIN = PROJECT / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, apart from the environment of the tests."""
    if find_spec("hatchling") is None:
        pytest.skip("the build backend hatchling is not installed")
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir"]
    done = run([*pip, *offline, "--target", str(target), str(PLUGIN)])
    assert done.returncode == 0, done.stderr
    return target


def run(command: list[str], *path: Path) -> "subprocess.CompletedProcess[str]":
    places = os.pathsep.join(map(str, [*path, PROJECT / "src"]))
    environment = os.environ | {"PYTHONPATH": places, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def exgra_med(installed: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-m", "exgra_med", *map(str, arguments)], installed)


@pytest.mark.slow
def test_its_data_set_is_listed_and_prepared(installed: Path, tmp_path: Path) -> None:
    listed = exgra_med(installed, "data", "list")
    assert "pocket" in listed.stdout and "three invented records" in listed.stdout, listed.stderr
    done = exgra_med(installed, "data", "prepare", "pocket", "--out", tmp_path / "pocket")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "pocket" / "images").iterdir()) == [
        "test.png",
        "train.png",
        "validation.png",
    ]
    checked = exgra_med(installed, "data", "check", tmp_path / "pocket")
    assert checked.returncode == 0 and "no fault found" in checked.stdout


@pytest.mark.slow
def test_its_engine_answers_and_its_measure_is_shown_everywhere(
    installed: Path, tmp_path: Path
) -> None:
    data, run = "bundled:vqa-rad-sample", tmp_path / "polly"
    asked = ["evaluate", "vqa", "polly", "--engine", "parrot", "--data", data, "--out", run]
    done = exgra_med(installed, *asked)
    assert done.returncode == 0, done.stderr
    assert "Same first word" in done.stdout
    (entry,) = json.loads((run / "results.json").read_text(encoding="utf-8"))["results"]
    assert entry["engine"] == {"name": "parrot", "model": "polly"}
    assert entry["scores"]["strict"]["starts_alike"]["count"] == 56
    done = exgra_med(installed, "evaluate", "report", run)
    assert done.returncode == 0, done.stderr
    assert "Same first word" in (run / "report.html").read_text(encoding="utf-8")
    assert "strict,starts_alike," in (run / "scores.csv").read_text(encoding="utf-8")
    compared = exgra_med(installed, "evaluate", "compare", run, run, "--json")
    rows = json.loads(compared.stdout)["rows"]
    assert "starts_alike" in [row["measure"] for row in rows]
    # Without the package the run is still read; what it cannot ask again it says.
    assert run_alone("evaluate", "report", run).returncode == 0
    assert "Starts alike" in (run / "report.html").read_text(encoding="utf-8")
    refused = run_alone(*asked)
    assert refused.returncode == 2 and "no engine 'parrot'" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_its_solver_trains(installed: Path, tmp_path: Path) -> None:
    changes = [
        "connector=null",
        "vqa=null",
        "aligned.max_steps=1",
        "aligned.alignment.solver=greedy",
    ]
    words = [word for each in changes for word in ("--set", f"stages.{each}")]
    done = exgra_med(installed, "train", "debug/tiny", "--out", tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert '"matching_accuracy"' in log


def run_alone(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-m", "exgra_med", *map(str, arguments)])


def test_without_the_package_there_is_no_such_data_set(tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-m", "exgra_med", "data", "prepare", "pocket", "--out", str(tmp_path)]
    )
    assert done.returncode == 2
    assert "no data set 'pocket'" in " ".join(done.stderr.split())


def test_the_readme_names_each_file_that_adds_something() -> None:
    readme = (PLUGIN / "README.md").read_text(encoding="utf-8")
    package = PLUGIN / "src" / "exgra_med_plugin_example"
    files = [path for path in package.glob("*.py") if path.stem != "__init__"]
    assert files and all(path.relative_to(PLUGIN).as_posix() in readme for path in files)
