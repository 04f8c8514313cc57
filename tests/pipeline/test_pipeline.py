"""The command line as a newcomer uses it, on the smallest recipe."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SOURCE = Path(__file__).resolve().parents[2] / "src"


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exgra_med", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )


def run(*arguments: str, cwd: Path) -> str:
    process = start(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["connector", "aligned", "vqa"])
def test_sigkill_in_any_stage_costs_nothing_but_time(tmp_path: Path, stage: str) -> None:
    run("train", "debug/tiny", "--out", "whole", cwd=tmp_path)
    process = start("train", "debug/tiny", "--out", "killed", cwd=tmp_path)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    wanted = f'"stage": "{stage}", "step": 3'
    while not (log.is_file() and wanted in log.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run("train", "debug/tiny", "--out", "killed", "--resume", cwd=tmp_path)
    final = Path("checkpoints/vqa/final/model.safetensors")
    one, other = (load_file(tmp_path / name / final) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_verbs_by_hand_make_what_the_demo_makes(tmp_path: Path) -> None:
    # A model of four steps answers nothing, which is an error.
    learn = ["--set", "stages.vqa.max_steps=100", "--set", "stages.vqa.learning_rate=0.01"]
    run("train", "debug/tiny", "--out", "run", *learn, cwd=tmp_path)
    run("evaluate", "vqa", "run", cwd=tmp_path)
    (own,) = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["results"]
    run("evaluate", "vqa", "run", "--split", "validation", cwd=tmp_path)
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["results"][0] == own and own["split"] == "test"
    assert [each["split"] for each in results["results"]] == ["test", "validation"]
    run("evaluate", "report", "run", cwd=tmp_path)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for entry in results["results"]:
        for scorer in ("strict", "legacy"):
            assert 0 <= entry["scores"][scorer]["average"]["value"] <= 100
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "matched through graph layers" in html and "alignment loss" in html
    predictions = tmp_path / "run" / own["answers"]["questions"]
    assert len(predictions.read_text().splitlines()) == 56
    for name in ("recipe.yaml", "record.json", "log.jsonl", "report.html", "scores.csv"):
        assert (tmp_path / "run" / name).stat().st_size > 0
