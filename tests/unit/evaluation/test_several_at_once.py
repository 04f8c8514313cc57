"""Several data sets in one call: one engine, one table, and all is in order before it asks."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_run import SayingEngine, make_data
from test_other_datasets import another
from test_predict_model import make_bundle
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import Record
from exgra_med.errors import AnswerError, DataError, ExgraMedError, RunError, ScoreError
from exgra_med.evaluation import session
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.results import read_results
from exgra_med.model.bundle import save_bundle

NAMES = ("data", "second", "third")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    data = make_data(tmp_path / "data")
    return [data, *(another(data, name) for name in NAMES[1:])]


class Saying:
    """In place of an engine: how often it was started, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: list[SayingEngine] = []
        self.stops_at: str | None = None
        monkeypatch.setattr(session, "open_engine", self._open)

    def _open(self, *_: object) -> SayingEngine:
        self.engines.append(SayingEngine(self._say))
        return self.engines[-1]

    def _say(self, record: Record) -> str:
        if self.stops_at and record.id.startswith(self.stops_at):
            raise DataError("stopped")
        return record.answer

    @property
    def asked(self) -> list[str]:
        """Ids of all records, as often as they were asked."""
        return [r.id for each in self.engines for batch in each.asked for r in batch]


@pytest.fixture
def saying(monkeypatch: pytest.MonkeyPatch) -> Saying:
    return Saying(monkeypatch)


def arguments(verb: str, out: Path, folders: list[Path], *more: str) -> list[str]:
    named = [part for each in folders for part in ("--data", str(each))]
    service = ["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1"]
    return ["evaluate", verb, "m", *named, "--out", str(out), *service, *more]


def call(*given: str) -> str:
    done = CliRunner().invoke(app, list(given), env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*given: str) -> ExgraMedError:
    error = CliRunner().invoke(app, list(given)).exception
    assert isinstance(error, ExgraMedError), error
    return error


def test_one_engine_answers_all_and_one_table_shows_them(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    said = call(*arguments("vqa", tmp_path / "run", folders))
    assert len(saying.engines) == 1 and len(saying.asked) == 90
    assert said.count("Visual question answering") == 1 and "3 data sets" in said
    for name in ("made-up", "second", "third"):
        assert f"{name}, test" in said
    # The same as asking one after the other.
    for folder in folders:
        call(*arguments("vqa", tmp_path / "one", [folder]))
    both = [read_results(tmp_path / name).results for name in ("run", "one")]
    assert [each.scores for each in both[0]] == [each.scores for each in both[1]]
    assert [each.dataset for each in both[0]] == ["made-up", "second", "third"]


def test_json_is_a_list_for_several_and_an_object_for_one(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    several = json.loads(call(*arguments("vqa", tmp_path / "run", folders, "--json")))
    assert [each["dataset"] for each in several] == ["made-up", "second", "third"]
    one = json.loads(call(*arguments("vqa", tmp_path / "run", folders[:1], "--json")))
    assert one == several[0]


def test_a_call_that_was_stopped_goes_on_where_it_was(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    saying.stops_at = "second/test/9"
    given = arguments("vqa", tmp_path / "run", folders)
    assert "stopped" in refused(*given).message
    assert not any(name.startswith("third/") for name in saying.asked)
    before = len(saying.asked)
    saying.stops_at = None
    call(*given)
    again = saying.asked[before:]
    assert not any(name.startswith("made-up/") for name in again)
    kept = (tmp_path / "run/predictions/vqa/second/test.jsonl").read_text("utf-8")
    assert len(kept.splitlines()) == 30 and 0 < sum(n.startswith("second/") for n in again) < 30


@pytest.mark.parametrize("verb", ["vqa", "reliance", "multiple-choice"])
@pytest.mark.parametrize("damage", ["split", "picture", "answers", "folder"])
def test_what_is_wrong_with_the_last_is_said_before_the_first_question(
    verb: str, damage: str, folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    run, last = tmp_path / "run", folders[-1]
    if damage == "split":
        manifest = json.loads((last / "manifest.json").read_text("utf-8"))
        del manifest["counts"]["test"], manifest["files"]["test.jsonl"]
        (last / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    elif damage == "picture":
        (last / "images" / "11.png").unlink()
    elif damage == "answers":
        name = {"vqa": "vqa", "reliance": "reliance/noise"}.get(verb, f"{verb}/generation")
        file = run / "predictions" / name / "third" / "test.jsonl"
        call(*arguments("vqa", run, [last]))
        saying.engines.clear()
        file.parent.mkdir(parents=True, exist_ok=True)
        if verb == "vqa":
            file.with_suffix(".about.json").write_text('{"name": "another"}', "utf-8")
        else:
            file.write_text('{"id": "third/test/6-0", "text": "yes"}\n', "utf-8")
    else:
        shutil.rmtree(last)
    error = refused(*arguments(verb, run, folders))
    assert isinstance(error, DataError | RunError), error
    assert not saying.asked
    assert "third" in error.message or "11.png" in error.message


def test_a_set_without_options_is_said_before_the_first_question(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    phantomless = make_data(tmp_path / "plain")
    for file in phantomless.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        for row in rows:
            row["meta"].pop("options", None)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plain = another(phantomless, "no-options")
    error = refused(*arguments("multiple-choice", tmp_path / "run", [*folders, plain]))
    assert isinstance(error, ScoreError) and "no-options/test" in error.message
    assert not saying.asked


def test_two_folders_of_one_data_set_are_refused(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders[0], copy)
    error = refused(*arguments("vqa", tmp_path / "run", [folders[0], copy]))
    assert "both hold made-up" in error.message and "--out" in error.hint
    assert not saying.asked


def test_every_verb_has_a_row_for_each_data_set(
    folders: list[Path], saying: Saying, tmp_path: Path
) -> None:
    said = call(*arguments("reliance", tmp_path / "run", folders[:2]))
    assert "made-up, test: grey image" in said and "second, test: noise image" in said
    said = call(*arguments("multiple-choice", tmp_path / "run", folders[:2]))
    assert "made-up, test: guessing" in said and "second, test: guessing" in said


def test_the_set_without_a_usable_answer_is_named(
    folders: list[Path], saying: Saying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saying, "_say", lambda r: "" if r.id.startswith("second/") else r.answer)
    error = refused(*arguments("vqa", tmp_path / "run", folders))
    assert isinstance(error, AnswerError)
    assert error.message.startswith("Not one answer to second, test can be used.")
    assert len(read_results(tmp_path / "run").results) == 3


@pytest.mark.slow
def test_two_processes_share_every_data_set(folders: list[Path], tmp_path: Path) -> None:
    save_bundle(make_bundle(), tmp_path / "toy")
    named = [part for each in folders[:2] for part in ("--data", str(each))]
    command = [sys.executable, "-m", "exgra_med", "evaluate", "vqa", str(tmp_path / "toy"), *named]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = []
    for rank in ("0", "1"):
        own = {"PYTHONPATH": os.pathsep.join(sys.path), "RANK": rank, "LOCAL_RANK": rank}
        workers.append(
            subprocess.Popen(
                [*command, "--out", str(tmp_path / "run"), "--max-new-tokens", "8"],
                env=os.environ | shared | own | {"ACCELERATE_USE_CPU": "true"},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    assert "2 data sets" in said[0] and not said[1].strip()
    for name in ("made-up", "second"):
        folder = tmp_path / "run" / "predictions" / "vqa" / name
        assert [path.name for path in folder.glob("*.jsonl")] == ["test.jsonl"]
        answers = read_predictions(folder / "test.jsonl").predictions
        assert len({each.id for each in answers}) == len(answers) == 30
