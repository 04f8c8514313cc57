"""Extended answers from a server on this machine are what stage 2 trains on."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import open_prepared

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "captions"))
from bad_server import BadServer


def verb(*given: object) -> None:
    shown = CliRunner().invoke(app, [str(part) for part in given], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output


@pytest.mark.slow
def test_generate_then_merge_gives_what_stage_2_trains_on(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    long, merged, run = tmp_path / "long.jsonl", tmp_path / "merged", tmp_path / "run"
    data = "bundled:vqa-rad-sample"
    with BadServer(share=0.2, faults=("server error", "invalid JSON", "rate limit")) as server:
        more = ("--base-url", server.url, "--cache", tmp_path / "c.sqlite")
        verb("captions", "generate", data, "--out", long, "--model", "m", *more)
    verb("captions", "check", long)
    verb("captions", "merge", data, long, "--out", merged)
    verb("train", "debug/tiny", "--out", run, "--set", f"data.folder={merged}")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row for row in rows if row.get("stage") == "aligned" and "alignment_loss" in row]
    records = open_prepared(merged).records("train")
    assert all(text.startswith("In short: ") for one in records for text in one.extended or [""])
    seen = json.loads((run / "record.json").read_text())["data"]["aligned"]
    manifest = json.loads((merged / "manifest.json").read_text())
    assert manifest["made_from"]["made_by"] == "merge-captions"
    assert "fingerprint" in str(seen)


@pytest.mark.slow
def test_thirty_captions_are_enough_to_train_on(tmp_path: Path) -> None:
    long, merged, run = tmp_path / "long.jsonl", tmp_path / "merged", tmp_path / "run"
    data = "bundled:vqa-rad-sample"
    verb("captions", "compose", data, "--out", long)
    long.write_text("".join(long.read_text().splitlines(keepends=True)[:30]))
    verb("captions", "merge", data, long, "--out", merged, "--only-extended")
    assert len(open_prepared(merged).records("train")) == 30
    verb("train", "debug/tiny", "--out", run, "--set", f"data.folder={merged}")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row for row in rows if row.get("stage") == "aligned" and "alignment_loss" in row]
