"""`exgra-med bench`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.lab.benchmarks import matching
from exgra_med.lab.benchmarks import step as step_benchmark
from exgra_med.training.estimate import peak_of


def test_help_has_an_example() -> None:
    shown = CliRunner().invoke(app, ["bench", "matching", "--help"])
    assert shown.exit_code == 0 and "exgra-med bench matching --quick" in shown.stdout


def test_quick_prints_json_and_writes_it(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def small(sizes, **settings):
        asked.append((sizes, settings["num_steps"]))
        return {"metadata": {"benchmark": "matching"}, "rows": []}

    monkeypatch.setattr(matching, "benchmark_matching", small)
    out = tmp_path / "matching.json"
    shown = CliRunner().invoke(app, ["bench", "matching", "--quick", "--json", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads(out.read_text())
    assert asked == [((8, 16), 2)]


@pytest.mark.parametrize("own_processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_is_measured_in_every_way_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_processes: bool
) -> None:
    """The real thing with a tiny model: what is in the result, not times."""
    if not own_processes:
        monkeypatch.setattr(step_benchmark, "_in_own_process", step_benchmark.run_way)
        monkeypatch.setattr(step_benchmark, "VOCABULARY", 1000)
    out = tmp_path / "step.json"
    arguments = ["--shape", "tiny", "--records", "3", "--rounds", "1", "--repeats", "1"]
    shown = CliRunner().invoke(app, ["bench", "step", *arguments, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    result = json.loads(out.read_text())
    assert set(result["ways"]) == {"reference", "ours", "language"}
    (ours,), (reference,) = result["ways"]["ours"], result["ways"]["reference"]
    assert ours["positions"] < reference["positions"]
    assert (
        ours["operations"] == reference["operations"] > result["ways"]["language"][0]["operations"]
    )
    assert result["speedup"] == reference["seconds"] / ours["seconds"]
    assert 0 < result["alignment_share"] < 1
    assert result["model_flops_utilisation"] is None
    assert result["metadata"]["shape"] == "tiny"
    assert "peak not known" in shown.stdout and "original's way over ours" in shown.stdout


def test_what_cannot_be_measured_is_said() -> None:
    for options, word in ((["--shape", "huge"], "llama-7b"), (["--dtype", "int8"], "bfloat16")):
        shown = CliRunner().invoke(app, ["bench", "step", *options])
        assert shown.exit_code != 0
        assert word in str(shown.exception)


def test_the_peak_is_that_of_the_very_card() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == peak_of("NVIDIA H200") == 989e12
    assert peak_of("NVIDIA H100 PCIe") is None
    assert peak_of("NVIDIA H200 NVL") is None
    assert peak_of("x86_64, 2 cores") is None
