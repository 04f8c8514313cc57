"""A study as a newcomer runs it: two small runs, one of them killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
STUDY = """
name: small
description: Do two tiny runs differ?
recipe: debug/tiny
shared: [connector]
set: {stages.vqa.max_steps: 2, evaluation.max_new_tokens: 2}
methods:
  instruct: {set: {stages.aligned.alignment: null}}
  longer: {set: {stages.aligned.alignment: null}, match: {method: exgra-med, by: tokens}}
  exgra-med: {fractions: [1.0]}
fractions: [1.0]
baseline: instruct
evaluation: {splits: [test, validation], num_bootstrap_samples: 100}
"""


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exgra_med", "study", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )


def run(*arguments: str, cwd: Path, code: int = 0) -> str:
    process = start(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


@pytest.mark.slow
def test_a_study_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    asked = ["run", "small.yaml", "--out", "out", "--jobs", "2"]
    run("node", "out", "shared/seed-0", cwd=tmp_path, code=2)
    process = start(*asked, cwd=tmp_path)
    # The second stage of a cell is under way; it is killed without a word, the study goes on.
    log = tmp_path / "out" / "cells" / "exgra-med" / "1" / "seed-0" / "log.jsonl"
    attempt = tmp_path / "out" / "logs" / "cells__exgra-med__1__seed-0.json"
    deadline = time.monotonic() + 300
    while not (log.is_file() and '"kind": "train"' in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    assert json.loads(attempt.read_text())["state"] == "running"
    victim = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and is_node(entry, process.pid, "cells/exgra-med/1/seed-0")
    )
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1, output
    assert "Signal 9 ended it" in output
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert status["counts"] == {"finished": 3, "failed": 1}
    output = run(*asked, cwd=tmp_path)
    # Runs of so few steps may score the same, and then the study says that this tells nothing.
    said = ("No difference was found", "better", "worse", "have the same score for every question")
    assert any(words in output for words in said), output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["missing"] == [] and len(results["cells"]) == 3
    for cell in results["cells"]:
        assert set(cell["splits"]) == {"validation"}
        assert cell["num_steps"]["vqa"] == 2
    (longer,) = (cell for cell in results["cells"] if cell["method"] == "longer")
    budget = longer["budget"]
    assert longer["num_steps"]["aligned"] == budget["num_steps"] > budget["num_steps_of_reference"]
    assert abs(budget["spent"] - 1) < 0.5 / budget["num_steps"] + 1e-9
    for name in ("report.html", "table.md", "figure.svg"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    plan = json.loads(run(*asked, "--dry-run", "--json", cwd=tmp_path))
    assert all(node["finished"] for node in plan["nodes"]) and plan["tokens"] > 0


def is_node(entry: Path, parent: int, node: str) -> bool:
    """Whether a process is the one that does a node for this study."""
    try:
        words = (entry / "cmdline").read_text().split("\0")
        stat = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return node in words and int(stat[1]) == parent
