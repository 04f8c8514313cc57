import json
from pathlib import Path

from typer.testing import CliRunner

from exgra_med.cli.main import app

DATA = Path(__file__).parents[2] / "golden" / "data" / "model"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_import_export_verify_and_inspect(tmp_path: Path) -> None:
    native, export = tmp_path / "native", tmp_path / "export"
    vision = DATA / "clip_tiny"
    told = run("import", DATA / "checkpoint_none", "--vision", vision, "--out", native)
    assert "connector: none" in told
    run("export", native, "--format", "hf-llava", "--out", export)
    # An import writes the numbers that it is verified by, and must not be taken for their proof.
    verified = " ".join(run("verify", native).split())
    assert "recorded from this very checkpoint" in verified
    assert "do not show that an import was right" in verified
    verified = " ".join(run("verify", export).split())
    assert "WRONG" not in verified and "stock transformers compute the same" in verified
    assert json.loads(run("inspect", export, "--json"))["layout"] == "stock LLaVA"
    # Recorded anew, it is what was written.
    assert all(each["passed"] for each in json.loads(run("verify", export, "--record", "--json")))
    assert "from this very checkpoint" in " ".join(run("verify", export).split())
    for name in ("verification.json", "digests.json"):
        (export / name).unlink()
    assert all(each["passed"] for each in json.loads(run("verify", export, "--record", "--json")))
    (export / "tokenizer.json").write_text((export / "tokenizer.json").read_text() + "\n")
    result = CliRunner().invoke(app, ["checkpoint", "verify", str(export)])
    assert result.exit_code == 1 and "WRONG hash of tokenizer.json" in result.output


def test_list_names_all_and_what_is_claimed_of_them() -> None:
    listed = json.loads(run("list", "--json"))
    assert len(listed["checkpoints"]) == 20
    assert all(each["how_to_use"] for each in listed["checkpoints"])
    shown = " ".join(run("list").split())
    assert "Claimed of exgra-med-dci-slake: average 85.23 (legacy, slake/test;" in shown
    assert "Published by leduckhai" in shown
    assert listed["checkpoints"][5]["connector"] == "dci"
    assert "exgra-med-dci-slake" in run("list")
