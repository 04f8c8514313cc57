"""Two processes, SIGTERM, and the choice of the best checkpoint, through the real command line."""

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

from exgra_med.training.log import read_log

SOURCE = Path(__file__).resolve().parents[2] / "src"
ONE_STAGE = ["--set", "stages.connector=null", "--set", "stages.vqa=null"]
PLAIN = [*ONE_STAGE, "--set", "stages.aligned={alignment: null, distinct_images: false}"]


def command(*arguments: str, processes: int = 1) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_addr", "127.0.0.1", "--master_port", str(29500 + os.getpid() % 400)]
    return [*launcher, "-m", "exgra_med", *arguments]


def environment() -> dict[str, str]:
    own = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return os.environ | own


def train(folder: Path, *arguments: str, processes: int = 1) -> None:
    call = command("train", "debug/tiny", "--out", str(folder), *arguments, processes=processes)
    done = subprocess.run(call, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(folder: Path) -> list[tuple[float, float]]:
    events = [event for event in read_log(folder / "log.jsonl") if event["kind"] == "train"]
    return [(event["loss"], event["gradient_norm"]) for event in events]


def weights(folder: Path, stage: str = "aligned") -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / stage / "final" / "model.safetensors")


@pytest.mark.slow
def test_two_processes_follow_the_trajectory_of_one(tmp_path: Path) -> None:
    train(tmp_path / "one", *PLAIN, "--set", "stages.aligned.batch_size=8")
    train(tmp_path / "two", *PLAIN, "--set", "stages.aligned.batch_size=4", processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
def test_two_processes_with_accumulation_follow_it_too(tmp_path: Path) -> None:
    train(tmp_path / "one", *PLAIN, "--set", "stages.aligned.batch_size=8")
    spread = "stages.aligned={batch_size: 2, gradient_accumulation_steps: 2}"
    train(tmp_path / "four", *PLAIN, "--set", spread, processes=2)
    one, four = losses(tmp_path / "one"), losses(tmp_path / "four")
    for first, second in zip(one, four, strict=True):
        assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
def test_graphs_of_all_processes_equal_those_of_one(tmp_path: Path) -> None:
    """Without noise and dropout, two ranks of four nodes are one graph of eight."""
    quiet = "{weight: 1.0, noise_scale: 0.0, dropout: 0.0, scope: global}"
    same = [*ONE_STAGE, "--set", f"stages.aligned={{alignment: {quiet}, distinct_images: false}}"]
    train(tmp_path / "one", *same, "--set", "stages.aligned.batch_size=8")
    train(tmp_path / "two", *same, "--set", "stages.aligned.batch_size=4", processes=2)
    for first, second in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_killed_processes_resume_bit_for_bit(tmp_path: Path, sharding: str) -> None:
    own = [*ONE_STAGE, "--set", f"stages.aligned.sharding={sharding}"]
    train(tmp_path / "whole", *own, processes=2)
    call = command("train", "debug/tiny", "--out", str(tmp_path / "cut"), *own, processes=2)
    process = subprocess.Popen(call, env=environment(), start_new_session=True)
    log = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (log.is_file() and '"stage": "aligned", "step": 3' in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    train(tmp_path / "cut", *own, "--resume", processes=2)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    more = [*ONE_STAGE, "--set", "stages.aligned.max_steps=40"]
    train(tmp_path / "whole", *more)
    call = command("train", "debug/tiny", "--out", str(tmp_path / "cut"), *more)
    process = subprocess.Popen(
        call, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    log = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 100
    while not (log.is_file() and '"step": 5' in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "--resume" in output
    train(tmp_path / "cut", *more, "--resume")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_really_loaded(tmp_path: Path) -> None:
    chosen = ["--set", "stages.aligned={load_best_model_at_end: true, evaluate_every_steps: 1}"]
    train(tmp_path / "run", *ONE_STAGE, *chosen)
    events = read_log(tmp_path / "run" / "log.jsonl")
    scores = {event["step"]: event["score"] for event in events if event["kind"] == "held_out"}
    assert sorted(scores) == [0, 1, 2, 3, 4]
    folder = tmp_path / "run" / "checkpoints" / "aligned"
    kept = json.loads((folder / "best" / "score.json").read_text())
    first_best = min(step for step, score in scores.items() if score == max(scores.values()))
    assert kept == {"score": scores[first_best], "step": first_best}
    best = load_file(folder / "best" / "parameters.safetensors")
    final = load_file(folder / "final" / "model.safetensors")
    assert all(torch.equal(best[name], final[name]) for name in best)
