"""The verbs of evaluation as a person and as a machine call them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import DataError, ScoreError

GOLDEN = Path(__file__).parents[2] / "golden" / "data" / "evaluation" / "made_up"
runner = CliRunner()


def test_score_prints_the_promised_keys() -> None:
    arguments = ["evaluate", "score", str(GOLDEN / "pred.jsonl"), str(GOLDEN / "gt.json")]
    arguments += ["--candidates", str(GOLDEN / "candidate.json"), "--scorer", "legacy", "--json"]
    printed = runner.invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    result = json.loads(printed.stdout)
    assert (result["scorer"], result["num_open"], result["num_closed"]) == ("legacy", 47, 20)
    assert set(result["scores"]) == {
        "open_exact_match", "open_f1", "open_precision", "open_recall", "bleu", "bleu_1", "bleu_2",
        "bleu_3", "open_accuracy", "closed_accuracy", "average",
    }  # fmt: skip
    # All questions are about one image, so there is no interval.
    assert result["scores"]["closed_accuracy"] == {"value": 75.0, "interval": None, "count": 20}


def test_score_and_compare_print_tables_for_people() -> None:
    files = [str(GOLDEN / "pred.jsonl"), str(GOLDEN / "gt.json")]
    printed = runner.invoke(app, ["evaluate", "score", *files])
    assert "Closed accuracy" in printed.stdout
    assert "3 empty, 0 cut" in printed.stdout
    printed = runner.invoke(app, ["evaluate", "compare", files[0], *files])
    assert "67 questions on 1 images" in printed.stdout
    printed = runner.invoke(app, ["evaluate", "compare", files[0], *files, "--json"])
    assert json.loads(printed.stdout)["rows"][0]["conclusion"] == "cannot be told apart"


def test_a_wrong_name_is_one_sentence() -> None:
    files = [str(GOLDEN / "pred.jsonl"), str(GOLDEN / "gt.json")]
    score = ["evaluate", "score"]
    assert isinstance(runner.invoke(app, [*score, *files, "--scorer", "x"]).exception, ScoreError)
    assert isinstance(runner.invoke(app, [*score, "absent", files[1]]).exception, DataError)
    done = subprocess.run(
        [sys.executable, "-m", "exgra_med", "evaluate", "score", *files, "--scorer", "fuzzy"],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Unknown scorer 'fuzzy'.")


@pytest.mark.parametrize("verb", ["score", "report", "compare"])
def test_every_help_has_an_example(verb: str) -> None:
    assert f"exgra-med evaluate {verb}" in runner.invoke(app, ["evaluate", verb, "--help"]).stdout
