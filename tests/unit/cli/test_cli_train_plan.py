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
    assert stage["parameters"]["learning"] == 6_826_545_152
    assert stage["memory"]["total"] < 80e9
    assert (stage["fits"], stage["memory_sharded"]) == (True, None)
    whole = [*arguments, "--set", "stages.instruct.sharding=none"]
    assert "sharding: full" in CliRunner().invoke(app, whole).output
    (other,) = json.loads(CliRunner().invoke(app, [*whole, "--json"]).output)["stages"]
    assert other["memory"]["total"] > 80e9
    assert other["memory_sharded"] == stage["memory"]
    assert other["fits"] is False
    assert not list(tmp_path.iterdir())
