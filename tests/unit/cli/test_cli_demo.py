"""`exgra-med demo --self-test`: a newcomer's first check of an installation."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import exgra_med.evaluation.report
from exgra_med.cli import demo
from exgra_med.cli.main import app
from exgra_med.errors import MissingExtraError
from exgra_med.evaluation.results import Entry, put_result

WHOLE = {"strict": 12.0, "legacy": 50.0}
LOG = [{"kind": "held_out", "step": step, "matching_accuracy": step / 100} for step in (10, 20)]


@pytest.mark.slow
def test_the_self_test_passes_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = CliRunner().invoke(app, ["demo", "--self-test"])
    assert done.exit_code == 0, done.output
    assert "The self-test passed" in done.output
    assert not list(tmp_path.iterdir())


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Whatever a run left, without training one; change it to see what the self-test says."""
    left = {"averages": WHOLE, "log": LOG, "answer": "no", "report": lambda out: out}

    def run(recipe: str, out: Path, assignments: object, console: object) -> SimpleNamespace:
        assert recipe == "debug/tiny"
        out.mkdir()
        for name in ("recipe.yaml", "record.json"):
            (out / name).write_text("{}")
        log = out / "log.jsonl"
        log.write_text("".join(json.dumps(line) + "\n" for line in left["log"]))
        scores = {name: {"average": {"value": value}} for name, value in left["averages"].items()}
        asked = {"dataset": "d", "split": "test", "task": "vqa", "engine": {}, "scores": scores}
        put_result(out, Entry.model_validate(asked))
        return SimpleNamespace(last_checkpoint=out, log=log)

    def load(folder: str) -> SimpleNamespace:
        return SimpleNamespace(ask=lambda question: left["answer"])

    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr("exgra_med.load", load, raising=False)
    monkeypatch.setattr(
        exgra_med.evaluation.report, "write_report", lambda out: left["report"](out)
    )
    return left


def test_a_whole_run_passes(made_up: dict[str, Any]) -> None:
    done = CliRunner().invoke(app, ["demo", "--self-test"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"averages": {}}, "the strict average is None"),
        ({"averages": WHOLE | {"legacy": 120.0}}, "the legacy average is 120.0"),
        ({"log": []}, "the matching accuracy is [], not shares"),
        ({"log": LOG[:1]}, "the matching accuracy is [0.1], not shares"),
        (
            {"log": [*LOG, LOG[0] | {"matching_accuracy": 1.5}]},
            "the matching accuracy is [0.1, 0.2, 1.5], not shares",
        ),
        ({"answer": None}, "does not answer"),
    ],
)
def test_what_is_not_as_it_must_be_is_said(
    made_up: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    made_up.update(changes)
    done = CliRunner().invoke(app, ["demo", "--self-test"])
    assert done.exit_code == 1
    assert said in done.output
    assert done.output.count("Problem: ") <= 2


def test_without_the_report_extra_the_rest_is_tested(made_up: dict[str, Any]) -> None:
    def missing(out: Path) -> None:
        raise MissingExtraError("The report", "report")

    made_up["report"] = missing
    done = CliRunner().invoke(app, ["demo", "--self-test"])
    assert done.exit_code == 0, done.output
    assert "exgra-med[report]" in done.output
