"""A checkpoint that no run of ours made is asked, scored, reported and compared as a run is."""

from pathlib import Path
from typing import Any

import pytest
from made_up_run import make_data
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, DataError, RunError
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import answers_file
from exgra_med.evaluation.tasks import reliance
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.recipe.run_folder import open_run

MODELS = Path(__file__).parents[2] / "golden" / "data" / "model"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "native"
    import_checkpoint(str(MODELS / "checkpoint_dci"), str(MODELS / "clip_tiny"), out)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("asked") / "data")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def good(*arguments: object) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.mark.slow
def test_an_imported_checkpoint_is_evaluated(imported: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "Published"
    where = ["--data", data, "--out", run]
    assert f"evaluate report {run}" in good("evaluate", "vqa", imported, *where).replace("\n", "")
    good("evaluate", "multiple-choice", imported, *where, "--protocol", "likelihood")
    good("evaluate", "reliance", imported, *where)
    (plain,), (choices,), (lost,) = (
        read_results(run).find(task, "made-up", "test")
        for task in ("vqa", "multiple-choice", "reliance")
    )
    assert plain.details["scorers"]["strict"]["pairing"]["missing"] == 0
    assert plain.engine["name"] == "checkpoint"
    assert choices.score("likelihood", "accuracy").count == 18
    assert set(lost.scores) == {"blank", "noise", "shuffled"}
    assert set(lost.answers) == {"blank", "noise", "shuffled", "mirrored"}
    good("evaluate", "vqa", run)
    good("evaluate", "report", run)
    assert f"Answers of {imported}" in (run / "report.html").read_text(encoding="utf-8")
    good("evaluate", "compare", run, run)
    card = tmp_path / "card.md"
    good("evaluate", "card", run, "--out", card)
    assert "imported checkpoint" in card.read_text(encoding="utf-8")
    assert open_run(run).recipe.name == "published"


def test_reliance_asks_a_checkpoint_first(
    imported: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No question is about a side: nothing is mirrored, and no file of such answers is missed.
    monkeypatch.setattr(reliance, "sided_records", lambda _: [])
    good("evaluate", "reliance", imported, "--data", data, "--out", tmp_path / "run")
    plain, found = read_results(tmp_path / "run").results
    assert [plain.task, found.task] == ["vqa", "reliance"]
    assert set(found.answers) == {"blank", "noise", "shuffled"}
    done = call("evaluate", "report", tmp_path / "run")
    assert done.exit_code == 0 and "cannot be read" not in done.output


@pytest.mark.parametrize("verb", ["vqa", "multiple-choice", "reliance"])
def test_what_is_missing_is_said(verb: str, imported: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if verb != "multiple-choice":  # which always wants its data
        error = call("evaluate", verb, imported).exception
        assert isinstance(error, RunError) and "is a checkpoint" in error.message
        assert "--data" in error.hint
        error = call("evaluate", verb, tmp_path / "none").exception
        assert isinstance(error, RunError) and "--data" in error.hint
    error = call("evaluate", verb, tmp_path / "none", "--data", data).exception
    assert isinstance(error, CheckpointError)
    error = call("evaluate", verb, tmp_path / "none", "--data", data, "--out", run).exception
    assert isinstance(error, CheckpointError)
    original = MODELS / "checkpoint_dci"
    error = call("evaluate", verb, original, "--data", data, "--out", run).exception
    assert isinstance(error, CheckpointError) and "checkpoint import" in error.hint
    assert not run.exists()


def test_answers_of_a_checkpoint_have_a_folder_without_being_told(
    imported: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = good("evaluate", "vqa", imported, "--data", data)
    run = Path("runs") / imported.name
    assert f"evaluate report {run}" in told.replace("\n", "")
    assert [each.task for each in read_results(run).results] == ["vqa"]


def test_a_folder_is_of_one_checkpoint(imported: Path, data: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    import_checkpoint(str(MODELS / "checkpoint_none"), str(MODELS / "clip_tiny"), other)
    error = call("evaluate", "vqa", imported, "--out", run).exception
    assert isinstance(error, RunError) and "--data" in error.hint
    good("evaluate", "vqa", imported, "--data", data, "--out", run)
    error = call("evaluate", "vqa", other, "--data", data, "--out", run).exception
    assert isinstance(error, RunError) and "holds answers of" in error.message


@pytest.mark.slow
def test_the_template_can_be_chosen(imported: Path, data: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", ["--template", "original-simple"]
    wrong = call("evaluate", "vqa", imported, "--data", data, "--out", run, "--template", "simple")
    assert isinstance(wrong.exception, DataError) and "original-simple" in wrong.exception.hint
    good("evaluate", "vqa", imported, "--data", data, "--out", run, *chosen)
    (plain,) = read_results(run).find("vqa")
    assert plain.template == "original-simple"
    about = answers_file(run, plain).with_suffix(".about.json").read_text(encoding="utf-8")
    assert '"template": "original-simple"' in about
    # Answers of two templates are never mixed, nor compared as if the image made the difference.
    error = call("evaluate", "vqa", run).exception
    assert isinstance(error, RunError) and "template" in error.message
    error = call("evaluate", "reliance", run).exception
    assert isinstance(error, RunError) and error.hint == "Give --template original-simple."
    good("evaluate", "reliance", run, *chosen)
    good("evaluate", "multiple-choice", run, "--data", data, *chosen, "--protocol", "likelihood")
    templates = {each.task: each.template for each in read_results(run).results}
    assert templates == dict.fromkeys(("vqa", "reliance", "multiple-choice"), "original-simple")
    for verb in ("vqa", "multiple-choice"):
        server = ["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--data", data]
        server += ["--out", tmp_path / "served"]
        error = call("evaluate", verb, "m", *server, *chosen).exception
        assert isinstance(error, RunError) and "--template" in error.hint
