"""Protocols that need a judge: asked in their own words, cached, and the replies kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import DataError, ServiceError


def write_files(folder: Path, reference: str = "left lung") -> list[str]:
    """Two open questions and a closed one of VQA-RAD, all answered right in other words."""
    rows = [("OPEN", reference, "the lung on the left"), ("OPEN", "heart", "cor"),
            ("CLOSED", "yes", "Yes, normal")]  # fmt: skip
    records = [
        {
            "id": f"vqa-rad/test/{n}",
            "image": f"{n}.png",
            "answer_type": kind,
            "turns": [{"role": "user", "text": "What?"}, {"role": "assistant", "text": right}],
        }
        for n, (kind, right, _) in enumerate(rows)
    ]
    answers = [{"id": f"vqa-rad/test/{n}", "text": said} for n, (*_, said) in enumerate(rows)]
    paths = [folder / "answers.jsonl", folder / "test.jsonl"]
    for path, lines in zip(paths, (answers, records), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["evaluate", "explain", *map(str, paths), "--cache", str(folder / "cache.sqlite")]


def run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def value_of(result: dict[str, Any], name: str) -> float | None:
    return next(each["value"] for each in result["numbers"] if each["name"] == name)


def reply(body: dict[str, Any]) -> str:
    said = body["messages"][0]["content"]
    return "<judge>0</judge>" if "the lung on the left" in said else "<judge>1</judge>"


def test_a_judge_gives_the_numbers_that_need_one_and_is_paid_once(tmp_path: Path) -> None:
    verb = write_files(tmp_path)
    assert value_of(run(*verb), "medevalkit/open_judged") is None
    with ChatServer(reply) as server:
        judge = ["--judge", "some-judge", "--base-url", server.url]
        result = run(*verb, *judge)
        assert len(server.bodies) == 3
        assert run(*verb, *judge) == result
        assert len(server.bodies) == 3
    assert value_of(result, "medevalkit/open_judged") == 50
    # The right "yes" beside "normal" is wrong by this protocol's rule.
    assert value_of(result, "medevalkit/total_judged") == pytest.approx(100 / 3)
    kept = {each["id"]: each for each in result["judged"]}
    assert kept["vqa-rad/test/0"] == {
        "judge": "medevalkit",
        "model": "some-judge",
        "id": "vqa-rad/test/0",
        "reply": "<judge>0</judge>",
        "verdict": 1.0,
    }
    compared = run(*verb, *judge, "--between", "medevalkit/open", "medevalkit/open_judged")
    (step,) = compared["differences"][0]["steps"]
    assert (step["cause"], step["points"]) == ("judge", 50)


def test_a_judge_that_does_not_answer_is_no_wrong_answer(tmp_path: Path) -> None:
    verb = write_files(tmp_path)
    with ChatServer(lambda body: 500) as server:
        judge = ["--judge", "some-judge", "--base-url", server.url, "--attempts", "1"]
        failed = CliRunner().invoke(app, [*verb, *judge]).exception
    assert isinstance(failed, ServiceError)
    assert "gave no reply to 3 of 3 answers" in str(failed)


def test_text_that_names_a_patient_does_not_leave_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    verb = write_files(tmp_path, reference="Patient name: Jane Doe, born 1970-01-02")
    judge = ["--judge", "some-judge", "--base-url", "https://judge.example/v1"]
    refused = CliRunner().invoke(app, [*verb, *judge]).exception
    assert isinstance(refused, ServiceError)
    refused = CliRunner().invoke(app, [*verb, *judge, "--allow-remote"]).exception
    assert isinstance(refused, DataError) and "identify patients" in str(refused)
