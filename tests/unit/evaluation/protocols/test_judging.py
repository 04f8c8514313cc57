"""Protocols that need a judge: asked in our words or a file's, cached, and the replies kept."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CommandError, DataError, ExgraMedError, ScoreError, ServiceError
from exgra_med.evaluation.protocols import protocols
from exgra_med.evaluation.protocols.judging import in_words_of, judges_of
from exgra_med.llm.prompt import load_prompt


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
        "words": "own",
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


REQUEST = "Q {question} R {reference} A {answer}\n{your short thought} <judge>{0/1}</judge>\n"
"""A request of a user to the judge of MedEvalKit; two pairs of its braces are text."""


def test_a_judge_is_asked_in_the_words_of_a_file_and_the_result_says_whose(tmp_path: Path) -> None:
    verb, words = write_files(tmp_path, reference="{answer}"), tmp_path / "request.txt"
    words.write_bytes(REQUEST.encode())
    with ChatServer(reply) as server:
        judge = ["--judge", "some-judge", "--base-url", server.url]
        own = run(*verb, *judge)
        given = run(*verb, *judge, "--judge-request", f"medevalkit={words}")
        asked = [each["messages"][0]["content"] for each in server.bodies]
    # What is put in is no place again, and other words are asked anew.
    assert "Q What? R {answer} A the lung on the left\n{your short thought}" in "".join(asked[3:])
    assert len(asked) == 6 and all(each.endswith("<judge>{0/1}</judge>\n") for each in asked[3:])
    digest = hashlib.sha256(REQUEST.encode()).hexdigest()
    assert {each["words"] for each in own["judged"]} == {"own"}
    assert {each["words"] for each in given["judged"]} == {digest}
    for result, expected in ((own, "own"), (given, digest)):
        known = {each["name"]: each["words"] for each in result["numbers"]}
        assert known["medevalkit/open_judged"] == known["medevalkit/total_judged"] == expected
        assert known["medevalkit/open"] is known["strict/closed"] is None


def test_a_number_in_our_words_is_marked_and_one_in_published_words_is_not(tmp_path: Path) -> None:
    verb, words = write_files(tmp_path), tmp_path / "request.txt"
    words.write_text(REQUEST)
    with ChatServer(reply) as server:
        verb += ["--judge", "some-judge", "--base-url", server.url, "--claimed", "33.3"]
        own = CliRunner().invoke(app, verb).stdout
        given = CliRunner().invoke(app, [*verb, "--judge-request", f"medevalkit={words}"]).stdout
    assert "medevalkit/total_judged *" in own and "medevalkit/total *" not in own
    assert "* Asked in our words, not the published ones (--judge-request)." in own
    assert "medevalkit/total_judged: asked in our words" in " ".join(own.split())
    assert "our words" not in given
    digest = hashlib.sha256(words.read_bytes()).hexdigest()
    assert f"asked in the words of the file with SHA-256 {digest}" in " ".join(given.split())


@pytest.mark.parametrize(
    ("protocol", "text", "kind", "message"),
    [
        ("medevalkit", "{question} {answer}", DataError, "the place {reference} is missing"),
        ("medevalkit", "", DataError, "the place {answer} is missing"),
        ("medevalkit", f"{REQUEST} {{options}}", DataError, "not told what belongs at {options}"),
        ("medevalkit", None, DataError, "no such file"),
        ("medevalkit", b"\xff\xfe{", DataError, "not UTF-8"),
        ("vlmevalkit", REQUEST, ScoreError, "no judge that is asked about these questions"),
        ("strict", REQUEST, ScoreError, "no judge that is asked about these questions"),
        ("mine", REQUEST, ScoreError, "mine"),
        ("", REQUEST, DataError, "needs NAME=VALUE"),
    ],
)
def test_a_request_of_no_use_is_refused_before_anything_is_asked(
    tmp_path: Path, protocol: str, text: str | bytes | None, kind: type, message: str
) -> None:
    verb, words = write_files(tmp_path), tmp_path / "request.txt"
    if text is not None:
        words.write_bytes(text if isinstance(text, bytes) else text.encode())
    with ChatServer(reply) as server:
        judge = ["--judge", "some-judge", "--base-url", server.url]
        failed = CliRunner().invoke(app, [*verb, *judge, "--judge-request", f"{protocol}={words}"])
        assert not server.bodies
    assert isinstance(failed.exception, kind) and message in str(failed.exception)
    assert isinstance(failed.exception, ExgraMedError)


def test_words_without_a_judge_are_refused(tmp_path: Path) -> None:
    verb = [*write_files(tmp_path), "--judge-request", "medevalkit=request.txt"]
    assert isinstance(CliRunner().invoke(app, verb).exception, CommandError)


def test_protocols_that_share_a_judge_take_one_file(tmp_path: Path) -> None:
    judges = judges_of(protocols())
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in files:
        path.write_text(REQUEST)
    same = in_words_of(judges, {"medevalkit": files[0], "medevalkit-pathvqa": files[0]})
    assert {each.name for each in same if each.words != "own"} == {"medevalkit"}
    with pytest.raises(ScoreError, match="share a judge"):
        in_words_of(judges, {"medevalkit": files[0], "medevalkit-pathvqa": files[1]})


@pytest.mark.parametrize(
    "label",
    [
        "judge-medevalkit/1-1dad2b18d9a9",
        "judge-vlmevalkit/1-cd2ee665f2a6",
        "judge-vlmevalkit-choices/1-fb8fc67e05c5",
    ],
)
def test_our_words_change_only_with_their_version(label: str) -> None:
    assert load_prompt(label.partition("/")[0]).label == label


def test_a_judge_is_told_what_its_request_has_places_for() -> None:
    for judge in judges_of(protocols()):
        places = {"question", "answer", "options" if "choices" in judge.name else "reference"}
        assert set(judge.places) == places and judge.words == "own" and judge.published


def test_the_documents_say_where_the_published_words_of_each_judge_are() -> None:
    page = Path(__file__).parents[4] / "docs" / "reference" / "protocols.md"
    items = page.read_text(encoding="utf-8").split("\n* ")
    for protocol in protocols():
        for judge in judges_of([protocol]):
            (item,) = [each for each in items if f"`{protocol.name}`" in each]
            assert protocol.source.where in item and protocol.source.version[:10] in item
            assert judge.published.partition(",")[0] in item
            assert all(f"{{{place}}}" in item for place in judge.places)
