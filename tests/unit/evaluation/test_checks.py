"""A finished run with a real (tiny) model goes through every check, from the command line."""

import json
from pathlib import Path

import pytest
from made_up_run import make_data
from test_predict_model import make_bundle
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import RunError
from exgra_med.evaluation.results import read_results
from exgra_med.model.bundle import save_bundle
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import Recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checks")
    recipe = {
        "name": "tiny",
        "model": {"architecture": {}},
        "data": {"folder": str(make_data(root / "data"))},
        "stages": {"vqa": {"trainable": ["connector"], "learning_rate": 1e-3}},
        "evaluation": {"max_new_tokens": 4, "num_bootstrap_samples": 100},
        "text": {"max_length": 512},
    }
    run = start_run(root / "run", Recipe.model_validate(recipe), resume=False)
    run.final("vqa").parent.mkdir(parents=True)
    save_bundle(make_bundle(), run.final("vqa"))
    return run.path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_run_is_asked_checked_and_reported(finished: Path) -> None:
    unasked = CliRunner().invoke(app, ["evaluate", "reliance", str(finished)])
    assert isinstance(unasked.exception, RunError)
    call("evaluate", "vqa", str(finished))
    said = call("evaluate", "reliance", str(finished))
    assert "blank image:" in said
    assert "mirrored image: of " in said
    reliance = json.loads(call("evaluate", "reliance", str(finished), "--json"))
    assert set(reliance) == {"blank", "noise", "shuffled", "mirrored"}
    folder = str(finished.parent / "data")
    said = call("evaluate", "multiple-choice", str(finished), "--on", folder, "--orders", "2")
    assert "most likely" not in said
    assert "likelihood prior subtracted: " in said
    results = read_results(finished)
    choices = results["multiple_choice"]["made-up"]
    assert choices["generation_strict"]["num_questions"] == 18
    assert choices["num_without_options"] == 12
    assert choices["calibration"]["num"] == 18
    call("evaluate", "report", str(finished))
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert '<section id="choices">' in html
    assert "12 questions without options" in html


def test_another_number_of_orders_does_not_mix_with_stored_answers(finished: Path) -> None:
    folder = str(finished.parent / "data")
    arguments = ["evaluate", "multiple-choice", str(finished), "--on", folder, "--orders", "3"]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, RunError)
    assert "num_rotations" in refused.exception.message
