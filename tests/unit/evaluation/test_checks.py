"""A finished run with a real (tiny) model goes through every check, from the command line."""

import json
from pathlib import Path

import pytest
from made_up_run import make_data
from test_predict_model import make_bundle
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import AnswerError, RunError
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import answers_file
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
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    # Not one answer of an untrained model can be used, which is told behind all that is stored.
    useless = isinstance(done.exception, AnswerError) and arguments[0] == "evaluate"
    assert useless or done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_run_is_asked_checked_and_reported(finished: Path) -> None:
    # The plain questions are asked first, where nobody has asked them.
    said = call("evaluate", "reliance", str(finished))
    for row in ("grey image", "noise image", "image of another question"):
        assert row in said
    assert "With the image mirrored, " in said and "answers about a side" in said
    (plain,) = read_results(finished).find("vqa")
    before = answers_file(finished, plain).read_bytes()
    call("evaluate", "vqa", str(finished))
    assert answers_file(finished, plain).read_bytes() == before
    reliance = json.loads(call("evaluate", "reliance", str(finished), "--json"))
    assert set(reliance["scores"]) == {"blank", "noise", "shuffled"}
    assert set(reliance["answers"]) == {"blank", "noise", "shuffled", "mirrored"}
    assert reliance["details"]["mirrored"]["num"] > 0
    folder = str(finished.parent / "data")
    said = call("evaluate", "multiple-choice", str(finished), "--data", folder, "--orders", "2")
    assert "most likely option, prior subtracted" in said
    assert "Stated confidence is off by" in said
    (choices,) = read_results(finished).find("multiple-choice", "made-up")
    assert choices.score("generation_strict", "accuracy").count == 18
    assert choices.details["protocols"]["generation_strict"]["num_rotations"] == 2
    assert choices.details["num_without_options"] == 12
    assert choices.details["calibration"]["num"] == 18
    call("evaluate", "report", str(finished))
    html = (finished / "report.html").read_text(encoding="utf-8")
    for number, title in enumerate(
        ("Visual question answering", "Reliance on the image", "Multiple choice"), start=1
    ):
        assert f'<section id="part-{number}">' in html and f"{title}: made-up, test" in html
    assert "12 questions without options" in html


def test_another_number_of_orders_does_not_mix_with_stored_answers(finished: Path) -> None:
    folder = str(finished.parent / "data")
    arguments = ["evaluate", "multiple-choice", str(finished), "--data", folder, "--orders", "3"]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, RunError)
    assert "num_rotations" in refused.exception.message
