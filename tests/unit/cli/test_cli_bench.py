"""`exgra-med bench`."""

import json
from pathlib import Path

from typer.testing import CliRunner

from exgra_med.alignment import benchmark
from exgra_med.cli.main import app


def test_help_has_an_example() -> None:
    shown = CliRunner().invoke(app, ["bench", "matching", "--help"])
    assert shown.exit_code == 0 and "exgra-med bench matching --quick" in shown.stdout


def test_quick_prints_json_and_writes_it(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def small(sizes, **settings):
        asked.append((sizes, settings["num_steps"]))
        return {"metadata": {"benchmark": "matching"}, "rows": []}

    monkeypatch.setattr(benchmark, "benchmark_matching", small)
    out = tmp_path / "matching.json"
    shown = CliRunner().invoke(app, ["bench", "matching", "--quick", "--json", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads(out.read_text())
    assert asked == [((8, 16), 2)]
