"""Wherever a checkpoint is named, a finished run may be: its last checkpoint is taken."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import exgra_med
from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, RunError
from exgra_med.evaluation.session import open_to_answer
from exgra_med.llm.service import ServiceSettings
from exgra_med.model.bundle import local_folder
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.model.serving import prepare_export
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run

DATA = Path(__file__).parents[2] / "golden" / "data" / "model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run = start_run(root / "demo", load_recipe("debug/tiny").recipe, resume=False)
    final = run.final(list(run.recipe.stages)[-1])
    final.parent.mkdir(parents=True)
    import_checkpoint(str(DATA / "checkpoint_dci"), str(DATA / "clip_tiny"), final)
    return run.path


def test_a_run_stands_for_its_last_checkpoint(run: Path, tmp_path: Path) -> None:
    assert exgra_med.load(run).ask("What?", DATA / "images" / "square.png")
    assert prepare_export(str(run)).parent == local_folder(run).parent
    for arguments in (
        ["checkpoint", "export", run, "--out", tmp_path / "exported"],
        ["checkpoint", "inspect", run],
        ["chat", run, DATA / "images" / "square.png", "What?"],
    ):
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == 0, (done.output, done.exception)


def test_the_folder_of_a_checkpoints_answers_stands_for_it(run: Path, tmp_path: Path) -> None:
    checkpoint = local_folder(run)
    open_to_answer(run, data="data", out=tmp_path / "answers")
    assert local_folder(tmp_path / "answers").resolve() == checkpoint.resolve()


def test_what_cannot_be_taken_is_said(run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    start_run(unfinished, load_recipe("debug/tiny").recipe, resume=False)
    with pytest.raises(RunError, match="has not finished"):
        exgra_med.load(unfinished)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="finished run"):
        exgra_med.load(tmp_path / "empty")
    served = shutil.copytree(unfinished, tmp_path / "served")
    (served / "recipe.yaml").write_text("served: {model: m}", "utf-8")
    with pytest.raises(RunError, match="of a served model"):
        exgra_med.load(served)
    service = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1")
    out = tmp_path / "answers"
    open_to_answer("m", engine="openai", data="data", out=out, service=service)
    with pytest.raises(RunError, match="there is no checkpoint"):
        exgra_med.load(out)
