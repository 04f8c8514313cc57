"""How many answers can be used: told by every evaluation, stored, and an error where none can."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, asked, graded
from made_up_run import make_data
from test_chat import write_answers, write_questions
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import Record, write_records
from exgra_med.errors import AnswerError
from exgra_med.evaluation.answers import (
    Prediction,
    answer_counts,
    counts_sentence,
    require_usable,
)
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.score import score_files, score_vqa
from exgra_med.evaluation.tasks.multiple_choice import choice_of, score_choices


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "300"})


def question(name: str, answer: str, kind: str, *options: str) -> Record:
    turns = [{"role": "user", "text": "Which?"}, {"role": "assistant", "text": answer}]
    meta = {"options": list(options)} if options else {}
    value = {"id": name, "image": "a.png", "turns": turns, "answer_type": kind, "meta": meta}
    return Record.model_validate(value)


RECORDS = [
    question("1", "HER2-", "CLOSED", "HER2+", "HER2-"),
    question("2", "<5 mm", "CLOSED", ">5 mm", "<5 mm"),
    question("3", "-5 D", "OPEN"),
]


def test_every_answer_is_counted_once() -> None:
    predictions = [
        None,
        Prediction("2", " "),
        Prediction("3", "<think>Hm", "length"),
        Prediction("4", "one or two"),
        Prediction("5", "</think>one", "stop"),
        Prediction("6", "one and so on", "length"),
        Prediction("7", "a free answ", "length"),
        Prediction("8", "a free answer"),
    ]
    were_read = [None, None, None, False, True, True, None, None]
    counts = answer_counts(predictions, were_read)
    assert counts == {
        "questions": 8, "missing": 1, "empty": 2, "cut": 3, "unparsed": 1, "usable": 3,
        "with_thoughts": 2,
    }  # fmt: skip
    assert counts_sentence(counts) == (
        "8 questions: 7 answered, 1 missing, 2 empty, 3 cut at the token limit, 1 unparsed. "
        "2 held thoughts, which are no part of an answer."
    )
    require_usable(counts)
    require_usable(answer_counts([]))
    with pytest.raises(AnswerError, match="Not one answer can be used") as error:
        require_usable(answer_counts(predictions[:3]))
    assert error.value.exit_code == 1 and "--max-new-tokens" in error.value.hint


def test_signs_are_told_apart_and_the_versions_are_named() -> None:
    """The cases of lost signs: three wrong answers score nothing, three right ones all."""
    wrong = [Prediction("1", "HER2+"), Prediction("2", ">5 mm"), Prediction("3", "+5 D")]
    right = [Prediction("1", "HER2 negative"), Prediction("2", "< 5mm"), Prediction("3", "−5 D")]
    for predictions, value in ((wrong, 0.0), (right, 100.0)):
        found = score_vqa(predictions, RECORDS, num_bootstrap_samples=0)
        assert found["scores"]["closed_accuracy"]["value"] == value
        assert found["scores"]["open_exact_match"]["value"] == value
        assert (found["scorer_version"], found["normaliser_version"]) == ("2", "2")
        older = score_vqa(predictions, RECORDS, "strict-1", num_bootstrap_samples=0)
        assert (older["scorer_version"], older["normaliser_version"]) == ("1", "1")
    # What version 1 made of the wrong ones.
    older = score_vqa(wrong, RECORDS, "strict-1", num_bootstrap_samples=0)
    assert older["scores"]["closed_accuracy"]["value"] == 100.0
    choices = [choice_of(each) for each in RECORDS[:2]]
    assert score_choices(wrong, choices)["scores"]["accuracy"]["value"] == 0.0
    assert score_choices(right, choices)["scores"]["accuracy"]["value"] == 100.0
    # To version 1 both options were "her2", of which it took the first.
    assert score_choices(right, choices, "strict-1")["scores"]["accuracy"]["value"] == 0.0
    assert score_choices(right, choices)["normaliser_version"] == "2"


def test_thoughts_are_no_part_of_an_answer_for_any_scorer() -> None:
    thinking = [
        Prediction("1", "HER2- or HER2+? The first.</think>HER2+"),
        Prediction("2", "<think><5 mm or", "length"),
        Prediction("3", "<think>-5 D</think>+5 D"),
    ]
    for scorer in ("strict", "legacy"):
        found = score_vqa(thinking, RECORDS, scorer, num_bootstrap_samples=0)
        assert found["answer_counts"]["with_thoughts"] == 3
        assert found["answer_counts"]["empty"] == 1 and found["answer_counts"]["cut"] == 1
    strict = score_vqa(thinking, RECORDS, num_bootstrap_samples=0)
    assert strict["scores"]["closed_accuracy"]["value"] == 0.0
    assert strict["scores"]["open_exact_match"]["value"] == 0.0


def test_stored_answers_that_are_all_empty_are_scored_and_refused(tmp_path: Path) -> None:
    reference, answers = tmp_path / "test.jsonl", tmp_path / "a.jsonl"
    write_records(reference, RECORDS)
    lines = [{"id": each.id, "text": "<think>cut", "finish_reason": "length"} for each in RECORDS]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done = call("evaluate", "score", answers, reference)
    assert isinstance(done.exception, AnswerError) and done.exception.exit_code == 1
    assert "3 questions: 3 answered, 0 missing, 3 empty, 3 cut" in done.stdout
    assert score_files(answers, reference)["scores"]["average"]["value"] == 0.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.mark.parametrize(("verb", "number"), [("vqa", 30), ("multiple-choice", 18)])
def test_a_service_whose_answers_are_all_cut_is_no_success(
    verb: str, number: int, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ChatServer(lambda _: "<think>Let me look at", finish_reason="length") as server:
        done = call(
            "evaluate", verb, "m", "--engine", "openai", "--base-url", server.url,
            "--data", data, "--out", run,
        )  # fmt: skip
    assert isinstance(done.exception, AnswerError), (done.output, done.exception)
    told = f"{number} answered, 0 missing, {number} empty, {number} cut"
    assert told in done.stdout and f"{number} held thoughts" in done.stdout
    (entry,) = read_results(run).results
    counts = entry.details["answer_counts"]
    assert (counts["questions"], counts["empty"], counts["usable"]) == (number, number, 0)
    # What the model wrote is stored as it is.
    (file,) = (run / "predictions").rglob("*.jsonl")
    assert "<think>Let me look at" in file.read_text("utf-8")


def test_a_service_that_thinks_aloud_is_scored_by_its_answers(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def reply(body: dict[str, Any]) -> str:
        asks = body["messages"][0]["content"][-1]["text"]
        return "Right? No.</think>\n\n**left**" if "left" in asks else "<think>no?</think>yes"

    with ChatServer(reply) as server:
        done = call(
            "evaluate", "vqa", "m", "--engine", "openai", "--base-url", server.url,
            "--data", data, "--out", run,
        )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    (entry,) = read_results(run).results
    verdicts = entry.details["scorers"]["strict"]["closed_answers"]["verdicts"]
    assert verdicts == {"right": 6, "wrong": 12, "missing": 0}
    assert entry.details["answer_counts"]["with_thoughts"] == 30


def test_chat_and_judge_tell_their_counts(tmp_path: Path) -> None:
    questions, run = write_questions(tmp_path / "data", 4), tmp_path / "run"
    chat = ["evaluate", "chat", "m", "--engine", "openai", "--data", questions, "--out", run]
    judge = ["evaluate", "judge", run, "--data", questions, "--judge", "j", "--attempts", 1]
    judge += ["--cache", tmp_path / "c.sqlite"]
    with ChatServer(lambda _: "", finish_reason="length") as server:
        done = call(*chat, "--base-url", server.url)
    assert isinstance(done.exception, AnswerError) and "4 empty, 4 cut" in done.stdout
    (entry,) = read_results(run).find("chat")
    assert entry.details["answer_counts"]["empty"] == 4 and not entry.scores
    # Nothing is graded yet; the report says so by its counts.
    assert call("evaluate", "report", run).exit_code == 0
    assert "4 empty, 4 cut" in (run / "report.html").read_text("utf-8")
    with ChatServer(lambda _: "9 9") as server:
        done = call(*judge, "--base-url", server.url)
        assert not server.bodies
    # Nothing to grade: every question loses, and that is no success.
    assert isinstance(done.exception, AnswerError), (done.output, done.exception)
    (file,) = (run / "predictions").rglob("test.jsonl")
    file.unlink()
    with ChatServer(lambda _: "Bad? No.</think>A good answer.") as server:
        done = call(*chat, "--base-url", server.url)
    assert done.exit_code == 0 and "0 empty, 0 cut" in done.stdout
    assert "4 held thoughts" in done.stdout

    def grade(body: dict[str, Any]) -> str:
        assert "Bad?" not in json.dumps(asked(body))
        return f"1 1 is too low.</think>{graded(8, 8)}"

    with ChatServer(grade) as server:
        done = call(*judge, "--base-url", server.url)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "8 of 8 gradings could be used" in done.stdout
    (entry,) = read_results(run).find("chat")
    found = entry.details["judges"]["j"]
    assert found["reply_counts"]["graded"] == 8 and found["answer_counts"]["usable"] == 4
    assert entry.score("j", "win_rate").value == 50.0


def test_a_judge_whose_replies_are_cut_is_no_success(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data", 4)
    answers = write_answers(tmp_path / "a.jsonl", {0: "An answer.", 1: "", 2: "", 3: ""})
    with ChatServer(lambda _: "<think>8 or", finish_reason="length") as server:
        done = call(
            "evaluate", "judge", answers, "--data", questions, "--judge", "j", "--attempts", 1,
            "--base-url", server.url, "--cache", tmp_path / "c.sqlite", "--json",
        )  # fmt: skip
    assert isinstance(done.exception, AnswerError), (done.output, done.exception)
    assert "graded nothing" in done.exception.message
    assert json.loads(done.stdout)["reply_counts"]["cut"] == 2
