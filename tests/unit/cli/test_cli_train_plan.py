"""`exgra-med train --dry-run`."""

import json

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app


def test_a_plan_is_read_by_people_and_machines(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "pretrain/aligned", "--dry-run", "--gpu", "a100-80", "--gpus", "4"]
    text = CliRunner().invoke(app, arguments)
    assert text.exit_code == 0, text.output
    assert "7,129,724,928, of which 6,826,545,152 learn" in text.output
    for word in ("memory of a GPU", "hours", "Disk in all", "a100-80 reaches 40%", "assumed"):
        assert word in text.output
    done = CliRunner().invoke(app, [*arguments, "--json"])
    (stage,) = json.loads(done.output)["stages"]
    assert stage["parameters"]["trainable"] == 6_826_545_152
    assert stage["memory"]["total"] < 80e9
    assert (stage["fits"], stage["memory_sharded"]) == (True, None)
    whole = [*arguments, "--set", "stages.instruct.sharding=none"]
    assert "sharding: full" in CliRunner().invoke(app, whole).output
    (other,) = json.loads(CliRunner().invoke(app, [*whole, "--json"]).output)["stages"]
    assert other["memory"]["total"] > 80e9
    assert other["memory_sharded"] == stage["memory"]
    assert other["fits"] is False
    assert not list(tmp_path.iterdir())


def dry_run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["train", *arguments, "--dry-run"], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_a_plan_says_how_a_step_is_composed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    four = ["pretrain/aligned", "--gpu", "a100-80", "--gpus", "4"]
    text = dry_run(*four)
    assert "256: 16 a pass x 4 accumulated x 4 GPUs; graphs of 16 nodes" in text
    assert "epochs 3" in text and "learning rate 2e-05, cosine, 3% warm-up" in text
    assert "sharding full" in text and "precision bfloat16, weights float32" in text
    assert "4 GPUs make 256 records a step of stage instruct, and the recipe has 64" in text
    assert "--set stages.instruct.gradient_accumulation_steps=1 keeps 64" in text
    kept = dry_run(*four, "--set", "stages.instruct.gradient_accumulation_steps=1")
    assert "64: 16 a pass x 1 accumulated x 4 GPUs" in kept and "another experiment" not in kept
    everywhere = dry_run(*four, "--set", "stages.instruct.alignment.scope=global")
    assert "graphs of 64 nodes" in everywhere
    assert "No gradient_accumulation_steps gives 64" in dry_run(*four[:-1], "8")


def test_a_plan_counts_the_driver_and_advises_where_nothing_fits(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = dry_run("pretrain/aligned", "--gpu", "a100-80")
    assert "reserved 1.5 GB" in text and "fits no" in text
    for name in ("pretrain/aligned-one-card", "pretrain/aligned-lora", "sharding=full (--gpus)"):
        assert name in text
    shared = ["--gpus", "4", "--set", "stages.instruct.sharding=none"]
    advice = dry_run("pretrain/aligned", "--gpu", "a100-80", *shared)
    assert "fits with --set stages.instruct.sharding=full" in advice
    qlora = dry_run("pretrain/aligned-qlora", "--gpu", "rtx4090")
    assert "does not fit" in qlora and "sharding=full" not in qlora
