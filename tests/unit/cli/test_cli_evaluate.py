"""The verbs of evaluation as a person and as a machine call them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError, ExgraMedError, ScoreError

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


@pytest.mark.parametrize(
    ("option", "value", "message", "hint"),
    [
        (
            "--expect",
            "",
            "An argument of `exgra-med evaluate`, after --expect, is empty.",
            "Quotes",
        ),
        ("--expect", " ", "after --expect, is empty", "Quotes"),
        ("--expect", "nowhere", "--expect nowhere: neither a YAML file nor", "exgra-med-dci-slake"),
        ("--expect", "nowhere.yaml", "nowhere.yaml: no such file.", ""),
        ("--expect", "nan", "--expect nan: neither a YAML file nor", "exgra-med-dci-slake"),
        ("--expect", str(GOLDEN), f"--expect {GOLDEN}: neither a YAML file nor", "Checkpoints"),
        ("--radeval", "", "after --radeval, is empty", "Quotes"),
        ("--radeval", "radgraph", "--radeval is for reports", ""),
        ("--candidates", str(GOLDEN), f"{GOLDEN}: cannot be read", ""),
    ],
)
def test_an_odd_value_of_score_is_one_sentence(
    option: str, value: str, message: str, hint: str
) -> None:
    files = [str(GOLDEN / "pred.jsonl"), str(GOLDEN / "gt.json")]
    error = runner.invoke(app, ["evaluate", "score", *files, option, value]).exception
    assert isinstance(error, ExgraMedError), error
    assert message in error.message and hint in error.hint and error.exit_code == 2


SAMPLE = open_prepared("bundled:vqa-rad-sample").path


@pytest.mark.parametrize(
    ("folders", "message", "hint"),
    [
        ([""], "after --data, is empty", "Quotes"),
        ([" "], "after --data, is empty", "Quotes"),
        (["nowhere"], "nowhere: no such folder.", "exgra-med data prepare"),
        (["nan"], "nan: no such folder.", "exgra-med data prepare"),
        ([str(GOLDEN)], "there is no manifest.json", "exgra-med data prepare"),
        ([str(GOLDEN / "gt.json")], "gt.json: a file, and no prepared folder.", "data prepare"),
        (
            [str(SAMPLE / "test.jsonl")],
            "test.jsonl: a file, and no prepared folder.",
            f"Name the folder that it lies in, {SAMPLE}.",
        ),
        (["bundled:nothing"], "there is no bundled sample 'nothing'.", "vqa-rad-sample"),
        ([str(SAMPLE), f"{SAMPLE}/."], "is named twice.", "--data once"),
        ([str(SAMPLE), "bundled:vqa-rad-sample"], "is named twice.", "--data once"),
    ],
)
def test_odd_data_of_an_evaluation_is_one_sentence(
    tmp_path: Path, folders: list[str], message: str, hint: str
) -> None:
    named = [part for each in folders for part in ("--data", each)]
    service = ["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1"]
    called = ["evaluate", "vqa", "m", *named, "--out", str(tmp_path / "run"), *service]
    error = runner.invoke(app, called).exception
    assert isinstance(error, ExgraMedError), error
    assert message in error.message and hint in error.hint and error.exit_code == 2


@pytest.mark.parametrize("verb", ["score", "report", "compare"])
def test_every_help_has_an_example(verb: str) -> None:
    assert f"exgra-med evaluate {verb}" in runner.invoke(app, ["evaluate", verb, "--help"]).stdout
