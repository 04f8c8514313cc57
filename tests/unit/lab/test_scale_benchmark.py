"""The benchmark of a great many records goes through every step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "scale.py"


@pytest.mark.slow
def test_every_step_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--scratch", str(tmp_path)]
    subprocess.run([*command, "--numbers", "60", "120"], check=True, timeout=600)
    value = json.loads(out.read_text(encoding="utf-8"))
    assert value["numbers"] == [60, 120]
    steps = ["prepare", "check", "order", "write answers", "score", "score in a run", "report"]
    assert list(value["stages"]) == steps
    for each in value["stages"].values():
        assert all(each[number]["peak_megabytes"] > 20 for number in ("60", "120"))
        assert {"bytes", "microseconds"} == each["further_record"].keys()
