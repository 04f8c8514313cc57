"""Chat answers before a judge on this machine: both orders, cache, transcripts, scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, asked, graded
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import DataError, ExgraMedError, RunError, ScoreError, ServiceError
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.statistics import cluster_codes
from exgra_med.evaluation.tasks.chat import (
    ChatQuestion,
    length_controlled,
    open_chat_set,
    score_judgements,
)
from exgra_med.evaluation.tasks.judge import Grades, Judgement, judge_messages, read_grades
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.request import ReplyError

SECRET = "Patient name: Jane"


def write_questions(folder: Path, number: int = 12) -> Path:
    """Two questions an image, in LLaVA-Med's format."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(number):
        name = f"{index // 2}_F1.png"
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / "images" / name)
        rows.append(
            {
                "question_id": index,
                "image": name,
                "pair_id": name,
                "text": f"What is shown in {index}?\n<image>",
                "gpt4_answer": f"Reference {index} tells it all.",
                "fig_caption": f"Caption {index}.",
                "in_text_mention": [],
                "domain": {"mri": index % 2 == 0, "ct_scan": True},
                "type": "conversation" if index % 3 else "detailed_description",
            }
        )
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_answers(path: Path, texts: dict[int, str]) -> Path:
    lines = [json.dumps({"question_id": key, "text": text}) for key, text in texts.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_judge(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["evaluate", "judge", *arguments, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def failure(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, ["evaluate", *arguments]).exception


def fair(body: dict[str, Any]) -> str:
    """Gives the reference an 8 and the model a 4, wherever they stand."""
    given = asked(body)
    return graded(
        *(8 if given[key].startswith("Reference") else 4 for key in ("answer_1", "answer_2"))
    )


def test_both_orders_are_graded_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    answers = write_answers(tmp_path / "a.jsonl", {i: f"Answer {i}." for i in range(12)})
    common = ["--data", str(questions), "--judge", "local", "--cache", str(tmp_path / "c.sqlite")]
    with ChatServer(fair) as server:
        first = run_judge(str(answers), *common, "--base-url", server.url)
        assert len(server.bodies) == 24
        again = run_judge(str(answers), *common, "--base-url", server.url)
        assert len(server.bodies) == 24
    assert (
        first["scores"]["relative_score"]["value"]
        == first["scores"]["relative_score_published_order"]["value"]
        == 50.0
    )
    assert first["scores"]["win_rate"]["value"] == 0.0 and first["order"]["flip_rate"] == 0.0
    assert first["usage"]["requests"] == 24 and first["usage"]["cost"] == 0.0
    assert again["usage"] == {
        "requests": 0, "from_cache": 24, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0,
        "adapted": {},
    }  # fmt: skip
    assert first["num_images"] == 6 and first["scores"]["win_rate"]["value"] == 0.0
    # No image of 6 won: the exact binomial bound.
    assert first["scores"]["win_rate"]["interval"] == pytest.approx(
        [0.0, 100 * (1 - 0.025 ** (1 / 6))]
    )
    by_type, by_domain = (first["groups"][title] for title in ("question type", "domain"))
    assert set(by_type) == {"conversation", "detailed_description"}
    assert {name: each["win_rate"]["count"] for name, each in by_domain.items()} == {
        "mri": 6, "ct_scan": 6,
    }  # fmt: skip
    for key in ("scores", "groups", "length", "order"):
        assert first[key] == again[key]
    body = server.bodies[0]
    assert body["temperature"] == 0.0 and body["seed"] == 0
    sent = {json.dumps(asked(each), sort_keys=True) for each in server.bodies}
    assert len(sent) == 24
    assert not any("F1.png" in each or "question_id" in each for each in sent)
    lines = (tmp_path / "a.judged-by-local.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["order"] for each in found[:2]] == ["reference-first", "model-first"]
    assert found[0]["grades"] == {"reference": 8.0, "model": 4.0}
    assert json.loads(found[0]["reply"])["reason"] == "so it is"


def test_a_judge_that_likes_the_first_place_is_found_out(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    answers = write_answers(
        tmp_path / "a.jsonl", dict.fromkeys(range(12), "Same length as the other.")
    )
    with ChatServer(lambda body: "9 6\nThe first is better.") as server:
        section = run_judge(
            str(answers), "--data", str(questions), "--judge", "local", "--base-url", server.url,
            "--cache", str(tmp_path / "c.sqlite"),
        )  # fmt: skip
    assert section["order"] == {
        "flip_rate": 100.0, "reversal_rate": 100.0, "first_place_bonus": 3.0,
    }  # fmt: skip
    assert section["scores"]["win_rate"]["value"] == 50.0
    assert section["scores"]["relative_score_published_order"]["value"] == pytest.approx(
        100 * 6 / 9
    )
    assert section["scores"]["relative_score"]["value"] == pytest.approx(100 * (6 / 9 + 9 / 6) / 2)


def test_what_cannot_be_read_is_asked_again_and_then_counted_apart(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    texts = {i: f"Answer {i}." for i in range(10)} | {10: "  "}
    answers = write_answers(tmp_path / "a.jsonl", texts)

    def reply(body: dict[str, Any]) -> str:
        question = asked(body)["question"]
        if question.endswith("in 3?"):
            return "I would rather not say."
        if question.endswith("in 4?") and len(body["messages"]) == 2:
            return "Both are fine: 11 and 12"
        return fair(body)

    arguments = [
        str(answers), "--data", str(questions), "--judge", "local", "--cache",
        str(tmp_path / "c.sqlite"), "--attempts", "1",
    ]  # fmt: skip
    with ChatServer(reply) as server:
        section = run_judge(*arguments, "--base-url", server.url)
        spoken = CliRunner().invoke(
            app, ["evaluate", "judge", *arguments, "--base-url", server.url]
        )
    assert section["num_questions"] == 12 and section["scores"]["win_rate"]["count"] == 11
    assert section["num_no_answer"] == 2 and section["num_unjudged"] == 1
    assert section["unjudged"] == {"reference-first": 1, "model-first": 1}
    assert section["scores"]["relative_score"]["value"] == pytest.approx(9 * 50 / 11)
    lines = (tmp_path / "a.judged-by-local.jsonl").read_text(encoding="utf-8").splitlines()
    bad = [json.loads(line) for line in lines if json.loads(line)["grades"] is None]
    assert {each["id"] for each in bad} == {"chat-benchmark/test/3"}
    assert bad[0]["refused"] == ["I would rather not say."] * 2
    assert bad[0]["failure"].startswith("invalid reply")
    assert "1 questions could not be graded and are left out." in spoken.stdout
    assert "2 questions have no answer and lose." in spoken.stdout
    assert "cost $0.0000" in spoken.stdout


def test_nothing_leaves_this_machine_unasked(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    answers = write_answers(tmp_path / "a.jsonl", {0: f"{SECRET} has a mass."})
    remote = ["judge", str(answers), "--data", str(questions), "--judge", "m", "--base-url"]
    remote += ["https://judge.example/v1"]
    key = {"OPENAI_API_KEY": "k"}
    done = CliRunner().invoke(app, ["evaluate", *remote], env=key)
    assert isinstance(done.exception, ServiceError) and "would leave" in done.exception.message
    done = CliRunner().invoke(app, ["evaluate", *remote, "--allow-remote"], env=key)
    assert isinstance(done.exception, DataError)
    assert "Jane" not in str(done.exception) and "chat-benchmark/test/0" in str(done.exception)


def test_the_cost_is_told_before_and_capped(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    answers = write_answers(tmp_path / "a.jsonl", {i: f"Answer {i}." for i in range(12)})
    arguments = [
        "judge", str(answers), "--data", str(questions), "--judge", "local",
        "--price", "100", "100", "--cache", str(tmp_path / "c.sqlite"), "--base-url",
    ]  # fmt: skip
    with ChatServer(fair) as server:
        done = CliRunner().invoke(app, ["evaluate", *arguments, server.url, "--dry-run"])
        told = json.loads(done.stdout)
        assert told["requests"] == 24 and told["cost"] > 0.5 and not server.bodies
        stopped = failure(*arguments, server.url, "--max-cost", "0.3", "--concurrency", "1")
        assert isinstance(stopped, ServiceError) and "budget" in stopped.message.lower()
        paid = len(server.bodies)
        assert 0 < paid < 24
        assert failure(*arguments, server.url) is None
        assert len(server.bodies) == 24


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data")
    judge = ["--judge", "m", "--base-url", "http://localhost:9/v1", "--data", str(questions)]
    answers = write_answers(tmp_path / "a.jsonl", {77: "Other."})
    assert isinstance(failure("judge", str(answers), *judge), ScoreError)
    (tmp_path / "run").mkdir()
    assert isinstance(failure("judge", str(tmp_path / "run"), *judge), RunError)
    assert isinstance(
        failure("chat", str(tmp_path / "run"), "--data", str(tmp_path)), ExgraMedError
    )


def test_a_served_model_answers_and_is_graded(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data", 4)

    def reply(body: dict[str, Any]) -> str:
        return fair(body) if len(body["messages"]) > 1 else "An answer."

    with ChatServer(reply) as server:
        run = tmp_path / "served"
        done = CliRunner().invoke(
            app,
            ["evaluate", "chat", "m/vl", "--data", str(questions), "--engine", "openai",
             "--out", str(run), "--base-url", server.url],
        )  # fmt: skip
        assert done.exit_code == 0, (done.output, done.exception)
        run_judge(
            str(run), "--data", str(questions), "--judge", "org/j:8b", "--base-url", server.url,
            "--cache", str(tmp_path / "c.sqlite"),
        )  # fmt: skip
    (entry,) = read_results(run).find("chat", "questions")
    section = entry.details["judges"]["org/j:8b"]
    assert entry.score("org/j:8b", "relative_score").value == 50.0
    assert section["transcripts"] == "test.judged-by-org-j-8b.jsonl"
    assert section["prompt"].startswith("judge-answers/1-")
    done = CliRunner().invoke(app, ["evaluate", "report", str(run)])
    assert done.exit_code == 0, done.exception
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Chat: questions, test" in page and "org/j:8b" in page
    assert "By question type, org/j:8b" in page and "detailed_description" in page
    assert "By domain, org/j:8b" in page and "ct_scan" in page
    rows = (run / "scores.csv").read_text(encoding="utf-8").splitlines()
    for variant in ("org/j:8b", '"org/j:8b, mri"', '"org/j:8b, conversation"'):
        start = f"questions,test,chat,{variant},relative_score,50.0,"
        assert sum(row.startswith(start) for row in rows) == 1


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        (graded(7, 3), (7, 3)),
        ("```json\n" + graded(7, 3) + "\n```", (7, 3)),
        ("7 3\nBecause.", (7, 3)),
        ("7.5, 3", (7.5, 3)),
        ('{"score_1": "7", "score_2": "3"}', (7, 3)),
        ("<think>1 2</think>" + graded(7, 3), (7, 3)),
    ],
)
def test_grades_are_read(reply: str, grades: tuple[float, float]) -> None:
    assert read_grades(reply, "reference-first") == Grades(*grades)
    assert read_grades(reply, "model-first") == Grades(*grades[::-1])


@pytest.mark.parametrize(
    "reply",
    ["", "7", "seven three", "0 3", "7 11", graded(0, 3), '{"score_1": 7}', "7 out of 10, 3 of 10",
     '{"score_1": true, "score_2": 3}', '{"score_1": 7, "score_2": "nan"}', "[7, 3]",
     graded(7, 3) + graded(3, 7)],
)  # fmt: skip
def test_no_grade_is_guessed(reply: str) -> None:
    with pytest.raises(ReplyError):
        read_grades(reply, "reference-first")


def question(index: int, cluster: str) -> ChatQuestion:
    return ChatQuestion(
        str(index), str(index), "Q?", "R" * 100, "C", "", "conversation", "mri", cluster
    )


def test_the_scores_are_those_computed_by_hand() -> None:
    questions = [question(i, f"image {i % 6}") for i in range(12)]
    answers = {str(i): "a" * 100 for i in range(12)}
    judgements = []
    for i in range(12):
        judgements += [
            Judgement(str(i), "reference-first", "j", "p", Grades(5, 1 + i % 10)),
            Judgement(str(i), "model-first", "j", "p", Grades(5, 5)),
        ]
    section = score_judgements(questions, answers, judgements, num_bootstrap_samples=200)
    firsts = [(1 + i % 10) / 5 for i in range(12)]
    assert section["scores"]["relative_score_published_order"]["value"] == pytest.approx(
        100 * sum(firsts) / 12
    )
    assert section["scores"]["relative_score"]["value"] == pytest.approx(
        100 * (sum(firsts) / 12 + 1) / 2
    )
    wins = [(1.0 if f > 1 else 0.5 if f == 1 else 0.0) for f in firsts]
    assert section["scores"]["win_rate"]["value"] == pytest.approx(100 * (sum(wins) / 12 + 0.5) / 2)
    assert section["order"]["flip_rate"] == pytest.approx(100 * 11 / 12)
    assert section["order"]["reversal_rate"] == 0.0
    low, high = section["scores"]["win_rate"]["interval"]
    assert low < section["scores"]["win_rate"]["value"] < high
    assert section["length"]["win_rate"] == pytest.approx(
        section["scores"]["win_rate"]["value"], abs=0.5
    )
    with pytest.raises(ScoreError):
        score_judgements(questions, answers, [])


def test_length_control_takes_out_a_judge_that_counts_characters() -> None:
    import numpy as np

    numbers = np.random.default_rng(0)
    gaps = numbers.normal(120, 100, 400)
    # The judge looks at nothing but length; by words alone the model would win most of the time.
    wins = (numbers.random(400) < 1 / (1 + np.exp(-3 * np.tanh(gaps / gaps.std())))).astype(float)
    clusters = cluster_codes([str(i // 4) for i in range(400)])
    found = length_controlled(wins, gaps.tolist(), clusters, 300)
    assert 100 * wins.mean() > 75
    low, high = found["interval"]
    assert low < 50 < high and abs(found["win_rate"] - 50) < 12
    assert found["length_effect"] > 1.5 and not found["extrapolated"]
    assert found == length_controlled(wins, gaps.tolist(), clusters, 300)
    one_sided = length_controlled(np.ones(20), [5.0] * 20, cluster_codes(list("ab" * 10)), 50)
    assert one_sided["extrapolated"] and 95 < one_sided["win_rate"] <= 100


def test_the_prompt_is_frozen_with_its_version(tmp_path: Path) -> None:
    prompt = load_prompt("judge-answers")
    assert prompt.label == "judge-answers/1-8c7a9b95ba1a"
    chat = open_chat_set(str(write_questions(tmp_path, 2)))
    messages = judge_messages(prompt, chat.questions[0], "Mine.", "model-first")
    assert json.loads(messages[1]["content"]) == {
        "caption": "Caption 0.",
        "mentions": "",
        "question": "What is shown in 0?",
        "answer_1": "Mine.",
        "answer_2": "Reference 0 tells it all.",
    }


def test_a_judge_that_never_replies_is_an_error(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "data", 4)
    answers = write_answers(tmp_path / "a.jsonl", {0: "A mass.", 1: "None."})
    judge = ["judge", str(answers), "--data", str(questions), "--judge", "wrong"]
    judge += ["--cache", str(tmp_path / "c.sqlite"), "--base-url"]
    absent = failure(*judge, "http://127.0.0.1:9/v1", "--attempts", "1")
    assert isinstance(absent, ServiceError) and "connection" in absent.message
    with ChatServer(lambda _: 400) as server:
        refused = failure(*judge, server.url)
        assert isinstance(refused, ServiceError) and "HTTP 400" in refused.message
    assert not list(tmp_path.glob("*judged-by*"))
