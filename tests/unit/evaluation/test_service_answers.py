"""A server of this machine answers our questions; files and scores are those of our own models."""

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from exgra_med.evaluation.foreign import ask_service, start_folder
from made_up_run import make_data
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.prepared import open_prepared
from exgra_med.errors import RunError, ServiceError
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.engines import data_url
from exgra_med.evaluation.results import read_results
from exgra_med.llm.service import ServiceSettings
from exgra_med.progress import Silent


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", *arguments])


def text_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"][-1]["text"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


def test_a_server_answers_resumes_and_is_scored(data: Path, tmp_path: Path) -> None:
    run, broken = tmp_path / "served", {"is": True}

    def reply(body: dict[str, Any]) -> str | int:
        if "mass?" in text_of(body) and "Where" in text_of(body):
            return 400 if broken["is"] else ""
        return "Yes.\n##" if "normal" in text_of(body) else "no"

    common = ["vqa", str(run), "--on", str(data), "--engine", "openai", "--model", "m"]
    with ChatServer(reply, finish_reason="length") as server:
        done = call(*common, "--base-url", server.url)
        assert done.exit_code == 0, (done.output, done.exception)
        records = open_prepared(data).records("test")
        answers = run / "predictions" / "made-up.jsonl"
        found = read_predictions(answers).predictions
        where = sum("Where is the mass?" in record.question for record in records)
        assert len(found) == len(records) - where
        strict = read_results(run)["vqa"]["strict"]
        assert strict["pairing"]["missing"] == where
        broken["is"], before = False, len(server.bodies)
        assert call(*common, "--base-url", server.url).exit_code == 0
        assert len(server.bodies) == before + where
    found = read_predictions(answers).predictions
    assert {each.finish_reason for each in found} == {"length"}
    assert sum(not each.text for each in found) == where
    assert {each.text for each in found} == {"Yes.", "no", ""}
    assert read_results(run)["vqa"]["strict"]["pairing"]["empty"] == where
    assert read_results(run)["floors"]
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
        arguments = ["multiple-choice", str(run), "--on", str(data), "--engine", "openai"]
        arguments += ["--model", "m", "--base-url", server.url]
        done = call(*arguments, "--orders", "2")
        assert done.exit_code == 0, (done.output, done.exception)
        assert isinstance(call(*arguments, "--protocol", "likelihood").exception, RunError)
    section = read_results(run)["multiple_choice"]["made-up"]
    assert section["generation_strict"]["num_questions"] == 18
    assert section["generation_strict"]["unreadable"] == 0.0
    assert section["num_without_options"] == 12
    assert "likelihood" not in section
    assert len(server.bodies) == 36


def test_what_would_go_wrong_is_said_before_anything_is_sent(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "served"
    openai = ["--on", str(data), "--engine", "openai"]
    assert isinstance(call("vqa", str(run), *openai).exception, ServiceError)
    assert isinstance(call("vqa", str(run), "--engine", "openai").exception, RunError)
    remote = [*openai, "--model", "m", "--base-url", "https://far.example/v1"]
    done = CliRunner().invoke(
        app, ["evaluate", "vqa", str(run), *remote], env={"OPENAI_API_KEY": "k"}
    )
    assert isinstance(done.exception, ServiceError) and "would leave" in done.exception.message
    assert not run.exists()
    start_folder(run, ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1"), {}, "test")
    (run / "predictions").mkdir()
    (run / "predictions" / "made-up.jsonl").write_text('{"id": "1", "text": "yes"}\n')
    local = [*openai, "--base-url", "http://127.0.0.1:9/v1", "--model"]
    assert isinstance(call("vqa", str(run), *local, "other").exception, RunError)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert isinstance(call("vqa", str(tmp_path / "full"), *local, "m").exception, RunError)


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
        common = [verb, str(run), "--on", str(data), "--engine", "openai"]
        common += ["--base-url", server.url, "--concurrency", "1", "--model"]
        error = call(*common, "wrong").exception
        assert isinstance(error, ServiceError) and "HTTP 400" in error.message
        assert "'wrong'" in error.hint
        # 8 requests, not one for each question.
        assert len(server.bodies) == 8
        assert call(*common, "right").exit_code == 0
        error = call(*common, "another").exception
        assert isinstance(error, RunError) and "answers of right" in error.message
    assert "right" in (run / "recipe.yaml").read_text("utf-8")


def test_not_one_answer_is_no_score(data: Path, tmp_path: Path) -> None:
    """Fewer questions than a service rejects before it stops: the cause is still told."""
    records = open_prepared(data).records("test")[:3]
    settings = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1", concurrency=2)
    with ChatServer(lambda _: 400) as server:
        settings = dataclasses.replace(settings, base_url=server.url)
        images, out = open_prepared(data).image_folder(10_000), tmp_path / "answers.jsonl"
        with pytest.raises(ServiceError, match="HTTP 400"):
            ask_service(settings, records, images, out, {}, Silent())
