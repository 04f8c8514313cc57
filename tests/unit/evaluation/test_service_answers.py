"""A server of this machine answers our questions; files and scores are those of our own models."""

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from made_up_run import make_data
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import open_prepared
from exgra_med.errors import RunError, ServiceError
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.engines import EngineOptions, ServiceEngine, answer_all, data_url
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import answers_path, open_to_answer
from exgra_med.llm.service import ServiceSettings


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", *arguments])


def text_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"][-1]["text"]


def pairing(run: Path) -> dict[str, Any]:
    (entry,) = read_results(run).find("vqa")
    return entry.details["scorers"]["strict"]["pairing"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


def test_a_server_answers_resumes_and_is_scored(data: Path, tmp_path: Path) -> None:
    run, broken = tmp_path / "served", {"is": True}

    def reply(body: dict[str, Any]) -> str | int:
        if "mass?" in text_of(body) and "Where" in text_of(body):
            return 400 if broken["is"] else ""
        return "Yes.\n##" if "normal" in text_of(body) else "no"

    common = ["vqa", "m", "--data", str(data), "--out", str(run), "--engine", "openai"]
    with ChatServer(reply, finish_reason="length") as server:
        done = call(*common, "--base-url", server.url)
        assert done.exit_code == 0, (done.output, done.exception)
        records = open_prepared(data).records("test")
        answers = answers_path(run, "vqa", "made-up", "test")
        found = read_predictions(answers).predictions
        where = sum("Where is the mass?" in record.question for record in records)
        assert len(found) == len(records) - where
        assert f"{where} questions have no answer" in done.stdout and "HTTP 400" in done.stdout
        assert pairing(run)["missing"] == where
        broken["is"], before = False, len(server.bodies)
        assert call(*common, "--base-url", server.url).exit_code == 0
        assert len(server.bodies) == before + where
    found = read_predictions(answers).predictions
    assert {each.finish_reason for each in found} == {"length"}
    assert sum(not each.text for each in found) == where
    assert {each.text for each in found} == {"Yes.", "no", ""}
    assert pairing(run)["empty"] == where and pairing(run)["missing"] == 0
    (entry,) = read_results(run).results
    assert entry.details["baselines"] and entry.template is None
    decoding = {"max_tokens": 64, "temperature": 0.0, "seed": 0}
    engine = {"name": "openai", "model": "m", "host": "127.0.0.1", "decoding": decoding}
    assert entry.engine == engine
    about = json.loads(answers.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert about["model"] == "m" and about["host"] == "127.0.0.1"
    body = server.bodies[0]
    image, _ = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert body["temperature"] == 0.0 and body["max_tokens"] == 64
    closed = next(text_of(each) for each in server.bodies if "left or right" in text_of(each))
    assert closed.endswith('(Answer with either "left" or "right").')
    done = CliRunner().invoke(app, ["evaluate", "report", str(run)])
    assert done.exit_code == 0, done.exception
    assert "Answers of m" in (run / "report.html").read_text(encoding="utf-8")


def test_a_server_chooses_between_options(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "served"
    with ChatServer(lambda body: "left" if "left" in text_of(body) else "yes") as server:
        arguments = ["multiple-choice", "m", "--data", str(data), "--engine", "openai"]
        arguments += ["--out", str(run), "--base-url", server.url]
        done = call(*arguments, "--orders", "2")
        assert done.exit_code == 0, (done.output, done.exception)
        assert isinstance(call(*arguments, "--protocol", "likelihood").exception, RunError)
    (entry,) = read_results(run).find("multiple-choice", "made-up")
    assert entry.score("generation_strict", "accuracy").count == 18
    assert entry.score("generation_strict", "unreadable").value == 0.0
    assert entry.details["num_without_options"] == 12
    assert set(entry.scores) == {"generation_strict", "generation_original", "guessing"}
    assert len(server.bodies) == 36


def test_what_would_go_wrong_is_said_before_anything_is_sent(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "served"
    local = ["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1"]
    where = ["--data", str(data), "--out", str(run)]
    assert isinstance(call("vqa", "m", "--engine", "openai", *where).exception, ServiceError)
    assert not run.exists()
    error = call("vqa", "m", *local, "--out", str(run)).exception
    assert isinstance(error, RunError) and "--data" in error.hint
    error = call("vqa", "m", "--engine", "other", *where).exception
    assert isinstance(error, RunError) and "There is no engine 'other'" in error.message
    remote = [*where, "--engine", "openai", "--base-url", "https://far.example/v1"]
    done = CliRunner().invoke(app, ["evaluate", "vqa", "m", *remote], env={"OPENAI_API_KEY": "k"})
    assert isinstance(done.exception, ServiceError) and "would leave" in done.exception.message
    assert not run.exists()
    service = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1")
    kept = open_to_answer("m", engine="openai", data=str(data), out=run, service=service)
    assert kept.recipe.engine == "openai" and kept.recipe.model.start == "m"
    answers = answers_path(run, "vqa", "made-up", "test")
    answers.parent.mkdir(parents=True)
    answers.write_text('{"id": "1", "text": "yes"}\n')
    error = call("vqa", "other", *local, *where).exception
    assert isinstance(error, RunError) and "holds answers of m" in error.message
    # The folder of answers is no checkpoint that could answer here.
    error = call("vqa", str(run)).exception
    assert isinstance(error, RunError) and "--engine openai" in error.hint
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    full = ["--data", str(data), "--out", str(tmp_path / "full")]
    assert isinstance(call("vqa", "m", *local, *full).exception, RunError)


def test_only_pixels_are_sent() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.info["comment"] = b"Jane"
    image.getexif()[0x010E] = "Jane"
    raw = base64.b64decode(data_url(image).partition(",")[2])
    assert b"Jane" not in raw
    assert Image.open(io.BytesIO(raw)).tobytes() == image.tobytes()


@pytest.mark.parametrize("verb", ["vqa", "multiple-choice"])
def test_a_wrong_model_name_stops_at_once(verb: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "served"

    def reply(body: dict[str, Any]) -> str | int:
        return "yes" if body["model"] == "right" else 400

    with ChatServer(reply) as server:
        common = ["--data", str(data), "--out", str(run), "--engine", "openai"]
        common += ["--base-url", server.url, "--concurrency", "1"]
        error = call(verb, "wrong", *common).exception
        assert isinstance(error, ServiceError) and "HTTP 400" in error.message
        assert "'wrong'" in error.hint
        # 8 requests, not one for each question.
        assert len(server.bodies) == 8
        assert call(verb, "right", *common).exit_code == 0
        error = call(verb, "another", *common).exception
        assert isinstance(error, RunError) and "answers of right" in error.message
    assert "right" in (run / "recipe.yaml").read_text("utf-8")


def test_not_one_answer_is_no_score(data: Path, tmp_path: Path) -> None:
    """Fewer questions than a service rejects before it stops: the cause is still told."""
    records = open_prepared(data).records("test")[:3]
    settings = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1", concurrency=2)
    with ChatServer(lambda _: 400) as server:
        settings = dataclasses.replace(settings, base_url=server.url)
        images, out = open_prepared(data).image_folder(10_000), tmp_path / "answers.jsonl"
        engine = ServiceEngine(EngineOptions(model="m", service=settings))
        with pytest.raises(ServiceError, match="HTTP 400"):
            answer_all(engine, records, images, out, {})
