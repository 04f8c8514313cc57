"""Scores of several data sets lie side by side, and none stands before the others."""

import json
import shutil
from pathlib import Path

import pytest
from made_up_run import make_data
from test_predict_model import make_bundle
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import AnswerError, ScoreError
from exgra_med.evaluation.results import read_results
from exgra_med.model.bundle import save_bundle
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import Recipe


def another(data: Path, name: str) -> Path:
    """The same questions as another data set, under ids of their own."""
    folder, old = data.with_name(name), json.loads((data / "manifest.json").read_text())["dataset"]
    shutil.copytree(data, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for split in ("train", "test"):
        file = folder / f"{split}.jsonl"
        file.write_text(file.read_text("utf-8").replace(f"{old}/", f"{name}/"), "utf-8")
    from exgra_med.data.records import file_sha256

    manifest["dataset"] = name
    manifest["files"] = {each: file_sha256(folder / each) for each in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    data = make_data(root / "data")
    for name in ("second", "third"):
        another(data, name)
    recipe = {
        "name": "tiny",
        "model": {"architecture": {}},
        "data": {"folder": str(data)},
        "stages": {"vqa": {"trainable": ["connector"], "learning_rate": 1e-3}},
        "evaluation": {"max_new_tokens": 4, "num_bootstrap_samples": 20},
        "text": {"max_length": 512},
    }
    run = start_run(root / "run", Recipe.model_validate(recipe), resume=False)
    run.final("vqa").parent.mkdir(parents=True)
    save_bundle(make_bundle(), run.final("vqa"))
    return run.path


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    # Not one answer of an untrained model can be used, which is told behind all that is stored.
    useless = isinstance(done.exception, AnswerError) and arguments[0] == "evaluate"
    assert useless or done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.mark.slow
def test_scores_of_every_data_set_stay(run: Path) -> None:
    for name in ("second", "third"):
        said = call("evaluate", "vqa", run, "--data", run.parent / name)
        assert f"Visual question answering: {name}, test" in said and "Average" in said
    call("evaluate", "reliance", run, "--data", run.parent / "third")
    before = read_results(run)
    assert [(each.task, each.dataset) for each in before.results] == [
        ("vqa", "second"), ("vqa", "third"), ("reliance", "third"),
    ]  # fmt: skip
    call("evaluate", "vqa", run)
    results = read_results(run)
    assert results.results[:-1] == before.results
    for name in ("made-up", "second", "third"):
        (entry,) = results.find("vqa", name)
        assert entry.details["scorers"]["strict"]["num_open"] == 12
        assert entry.details["baselines"] and entry.details["leaks"]
        assert entry.answers == {"questions": f"predictions/vqa/{name}/test.jsonl"}
    call("evaluate", "report", run)
    html = (run / "report.html").read_text("utf-8")
    for name in ("made-up", "second", "third"):
        assert f"Visual question answering: {name}, test" in html
    rows = (run / "scores.csv").read_text("utf-8").splitlines()
    for name in ("made-up", "second", "third"):
        assert sum(row.startswith(f"{name},test,vqa,strict,average,") for row in rows) == 1
    assert any(row.startswith("third,test,reliance,blank,average,") for row in rows)
    call("evaluate", "card", run, "--out", run / "card.md")
    assert "third, test" in (run / "card.md").read_text("utf-8")


@pytest.mark.slow
def test_the_order_of_runs_decides_nothing(run: Path, tmp_path: Path) -> None:
    """A run on other data is asked the second data set too, and both are found, either way."""
    other = tmp_path / "other"
    call("evaluate", "vqa", run, "--data", run.parent / "second")
    where = ["--data", run.parent / "second", "--out", other]
    call("evaluate", "vqa", run, *where)
    for pair in ((run, other), (other, run)):
        result = json.loads(call("evaluate", "compare", *pair, "--json"))
        assert result["num_questions"] == 30 and result["missing"] == [0, 0]
    call("evaluate", "report", run, other, "--out", tmp_path / "page.html")
    assert "were not compared" not in (tmp_path / "page.html").read_text("utf-8")
    assert "not at hand" not in (other / "report.html").read_text("utf-8")


def test_of_several_data_sets_one_is_named(run: Path, tmp_path: Path) -> None:
    for name in ("data", "second", "third"):
        call("evaluate", "vqa", run, "--data", run.parent / name)
        if name != "data":
            call("evaluate", "vqa", run, "--data", run.parent / name, "--out", tmp_path / "other")
    for pair in ((run, tmp_path / "other"), (tmp_path / "other", run)):
        error = CliRunner().invoke(app, ["evaluate", "compare", *map(str, pair)]).exception
        assert isinstance(error, ScoreError) and "--data" in error.hint
        for name in ("second", "third"):
            said = call("evaluate", "compare", *pair, "--data", run.parent / name, "--json")
            assert json.loads(said)["missing"] == [0, 0]
        named = ["evaluate", "compare", *map(str, pair), "--data", str(run.parent / "data")]
        error = CliRunner().invoke(app, named).exception
        assert isinstance(error, ScoreError)
        assert "0 scored splits of made-up in common" in error.message


def test_a_report_finds_the_questions_of_another_data_set(tmp_path: Path, run: Path) -> None:
    second, moved = another(run.parent / "second", "fourth"), tmp_path / "moved"
    answering = tmp_path / "answering"
    call("evaluate", "vqa", run, "--data", second, "--out", answering)
    recipe = answering / "recipe.yaml"
    _, _, text = recipe.read_text("utf-8").partition("\n")  # without its digest
    recipe.write_text(text.replace(str(second), str(run.parent / "data")))
    call("evaluate", "report", answering)
    assert "not at hand" not in (answering / "report.html").read_text("utf-8")
    second.rename(moved)
    pair = ["evaluate", "compare", str(answering), str(answering)]
    error = CliRunner().invoke(app, pair).exception
    assert isinstance(error, ScoreError) and "--data" in error.hint
    call("evaluate", "compare", answering, answering, "--data", moved)
