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
    for word in ("fully sharded", "hours", "Disk in all", "a100-80 reaches 40%", "assumed"):
        assert word in text.output
    done = CliRunner().invoke(app, [*arguments, "--json"])
    (stage,) = json.loads(done.output)["stages"]
    assert stage["parameters"]["learning"] == 6_826_545_152
    assert stage["memory_sharded"]["total"] < 80e9 < stage["memory"]["total"]
    assert stage["fits"] is True
    assert not list(tmp_path.iterdir())
