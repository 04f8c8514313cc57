"""`benchmarks/gpu.py`: nothing is lost by a stop, and the shares follow from the parts."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu", module)
    spec.loader.exec_module(module)
    return module


def test_each_part_is_written_when_it_is_done(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "runs" / "gpu.json", []  # in a folder that is not there yet

    def part(name: str, miniature: bool, seconds: float) -> dict[str, Any]:
        seen.append(list(json.loads(out.read_text())["parts"]) if out.exists() else [])
        assert miniature and 0 < seconds <= 60
        if name == "matching":
            raise KeyboardInterrupt
        return {"failed": "no memory"} if name == "matmul" else {"operations_per_second": 2.0}

    monkeypatch.setattr(gpu, "run_part", part)
    call = ["gpu.py", "--miniature", "--minutes", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*call, "--only", "matmul", "step-7b-plain", "matching"])
    with pytest.raises(KeyboardInterrupt):
        gpu.main()
    assert seen == [[], ["matmul"], ["matmul", "step-7b-plain"]]
    written = json.loads(out.read_text())
    assert written["metadata"]["miniature"] and written["metadata"]["device"]
    assert written["parts"]["matmul"] == {"failed": "no memory"}
    monkeypatch.setattr(sys, "argv", [*call, "--only", "matmul"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    monkeypatch.setattr(sys, "argv", [*call[:3], "0", *call[4:], "--only", "matmul"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert json.loads(out.read_text())["parts"]["matmul"] == {"failed": "no time was left"}


def test_all_parts_fit_into_ten_minutes(gpu: Any) -> None:
    assert sum(seconds for seconds, _ in gpu.PARTS.values()) <= 600


def test_a_part_that_takes_too_long_is_stopped(gpu: Any) -> None:
    assert gpu.run_part("matmul", True, 0.2)["failed"] == "not done within 0 seconds"


def test_shares_are_of_the_peak_and_of_measured_products(gpu: Any) -> None:
    parts = {
        "matmul": {"7b": {"operations_per_second": 800.0}},
        "step-7b-plain": {"operations_per_second": 400.0, "samples_per_second": 6.0},
        "step-7b-aligned": {"operations_per_second": 500.0, "samples_per_second": 4.0},
        "step-160m-plain": {"operations_per_second": 100.0, "samples_per_second": 9.0},
        "step-160m-aligned": {"failed": "no memory"},
    }
    assert gpu.shares(parts, 1000.0) == {
        "7b-plain": {"mfu_of_peak": 0.4, "mfu_of_matmul": 0.5},
        "7b-aligned": {"mfu_of_peak": 0.5, "mfu_of_matmul": 0.625, "overhead_over_plain": 0.5},
        "160m-plain": {"mfu_of_peak": 0.1, "mfu_of_matmul": None},
    }
    assert gpu.shares(parts, None)["7b-plain"]["mfu_of_peak"] is None


@pytest.mark.slow
def test_the_miniature_runs_every_part(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    call = [sys.executable, str(SCRIPT), "--miniature", "--minutes", "30", "--out", str(out)]
    done = subprocess.run(
        call, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    parts = result["parts"]
    assert set(result["shares"]) == {"7b-plain", "7b-aligned", "160m-plain", "160m-aligned"}
    assert all(parts["matching"][nodes]["equal_assignments"] for nodes in ("8", "16"))
    for size in ("160m", "7b"):
        assert parts[f"evaluation-{size}"]["share_of_answers_equal_to_single"]["batch"] == 1.0
    difference = "largest_relative_difference_of_a_loss"
    assert parts["sharding"]["float32"][difference] < 1e-6
    assert parts["sharding"]["bfloat16"][difference] < 1e-2
