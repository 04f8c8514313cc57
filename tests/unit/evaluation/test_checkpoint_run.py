"""A checkpoint that no run of ours made is asked, scored, reported and compared as a run is."""

from pathlib import Path
from typing import Any

import pytest
from made_up_run import make_data
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, RunError
from exgra_med.evaluation.results import read_results
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.recipe.run import open_run

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


def test_an_imported_checkpoint_is_evaluated(imported: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "Published"
    where = ["--on", data, "--out", run]
    assert f"exgra-med report {run}" in good("evaluate", "vqa", imported, *where).replace("\n", "")
    good("evaluate", "multiple-choice", imported, *where, "--protocol", "likelihood")
    good("evaluate", "reliance", imported, *where)
    results = read_results(run)
    assert results["vqa"]["strict"]["pairing"]["missing"] == 0
    assert results["multiple_choice"]["made-up"]["likelihood"]["num_questions"] == 18
    assert set(results["visual_reliance"]) == {"blank", "noise", "shuffled", "mirrored"}
    good("evaluate", "vqa", run)
    good("report", run)
    assert "Answers of the checkpoint" in (run / "report.md").read_text(encoding="utf-8")
    good("compare", run, run)
    card = tmp_path / "card.md"
    good("card", "model", run, "--out", card)
    assert "imported checkpoint" in card.read_text(encoding="utf-8")
    assert open_run(run).recipe.name == "published"


def test_reliance_asks_a_checkpoint_first(imported: Path, data: Path, tmp_path: Path) -> None:
    good("evaluate", "reliance", imported, "--on", data, "--out", tmp_path / "run")
    assert "visual_reliance" in read_results(tmp_path / "run")


@pytest.mark.parametrize("verb", ["vqa", "multiple-choice", "reliance"])
def test_what_is_missing_is_said(verb: str, imported: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    error = call("evaluate", verb, imported, "--on", data).exception
    assert isinstance(error, RunError) and "is a checkpoint" in error.message
    assert "--out RUN" in error.hint
    error = call("evaluate", verb, tmp_path / "none", "--on", data).exception
    assert isinstance(error, RunError) and "--out RUN" in error.hint
    error = call("evaluate", verb, tmp_path / "none", "--on", data, "--out", run).exception
    assert isinstance(error, CheckpointError)
    original = MODELS / "checkpoint_dci"
    error = call("evaluate", verb, original, "--on", data, "--out", run).exception
    assert isinstance(error, CheckpointError) and "checkpoint import" in error.hint
    assert not run.exists()


def test_a_folder_is_of_one_checkpoint(imported: Path, data: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    import_checkpoint(str(MODELS / "checkpoint_none"), str(MODELS / "clip_tiny"), other)
    error = call("evaluate", "vqa", imported, "--out", run).exception
    assert isinstance(error, RunError) and "--on" in error.hint
    good("evaluate", "vqa", imported, "--on", data, "--out", run)
    error = call("evaluate", "vqa", other, "--on", data, "--out", run).exception
    assert isinstance(error, RunError) and "holds answers of" in error.message
