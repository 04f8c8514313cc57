"""Services as users meet them: parameters refused in turn, errors inside good replies, thoughts,
cut answers. Each verb that asks a service is run to its end, and its scores are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Said, asked, graded
from made_up_run import make_data
from typer.testing import CliRunner, Result

from exgra_med.cli.main import app
from exgra_med.data.records import open_prepared, read_records
from exgra_med.errors import CommandError, ServiceError
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.engines import data_url
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import answers_path
from exgra_med.evaluation.tasks.chat import chat_answers, open_chat_set
from exgra_med.llm import service

REASONING = ("max_tokens", "temperature", "seed", "response_format")
"""What a reasoning model takes under another name or not at all."""
VERBS = ("vqa", "multiple-choice", "chat", "judge", "captions")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short waits, and neither keys nor answers of the person who runs the tests."""
    monkeypatch.setattr(service, "FIRST_WAIT_SECONDS", 0.001)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_API_KEY", "OPENROUTER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


class Verb:
    """A verb on small data, the reply that is right, and what it found."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.run = name, folder, folder / "run"
        self.data, self.long = make_data(folder / "data"), folder / "long.jsonl"
        prepared = open_prepared(self.data)
        images = prepared.image_folder(10_000)
        records = prepared.records("test")
        self.answers = {
            (data_url(images.open(each.image, each.id)), each.question): each.answer
            for each in records
        }
        self.pairs = {(each.question, each.answer) for each in prepared.records("train")}
        self.chat = folder / "chat.jsonl"
        rows = [
            {
                "question_id": number, "image": f"{number}.png", "pair_id": f"{number}",
                "text": f"What is shown in {number}?\n<image>", "gpt4_answer": "A reference.",
                "fig_caption": "A caption.", "in_text_mention": [], "domain": {"mri": True},
                "type": "conversation",
            }
            for number in range(6)
        ]  # fmt: skip
        self.chat.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        lines = [json.dumps({"question_id": row["question_id"], "text": "Mine."}) for row in rows]
        self.chat_answers = folder / "answers.jsonl"
        self.chat_answers.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def right(self, body: dict[str, Any]) -> str:
        """What scores 100 %; a judge gives the model half of the reference's grade."""
        if self.name == "judge":
            given = asked(body)
            first = given["answer_1"] == "Mine."
            return graded(4, 8) if first else graded(8, 4)
        if self.name == "captions":
            pair = json.loads(body["messages"][-1]["content"])
            return json.dumps({"explanation": {}, "revision": f"In full: {pair['answer']}"})
        if self.name == "chat":
            return f"Seen: {body['messages'][0]['content'][-1]['text']}"
        image, text = body["messages"][0]["content"]
        question = text["text"].split("?")[0] + "?"
        return self.answers[image["image_url"]["url"], question]

    def call(self, url: str, *more: str) -> Result:
        arguments = {
            "vqa": ["evaluate", "vqa", "m", "--data", str(self.data)],
            "multiple-choice": ["evaluate", "multiple-choice", "m", "--data", str(self.data)],
            "chat": ["evaluate", "chat", "m", "--data", str(self.chat)],
            "judge": ["evaluate", "judge", str(self.chat_answers), "--data", str(self.chat)],
            "captions": ["captions", "generate", str(self.data), "--out", str(self.long)],
        }[self.name]
        arguments += {
            "chat": ["--images", str(self.data / "images")],
            "judge": ["--judge", "m", "--json"],
            "captions": ["--model", "m", "--temperature", "0", "--seed", "0", "--json"],
        }.get(self.name, [])
        if self.name not in ("judge", "captions"):
            arguments += ["--engine", "openai", "--out", str(self.run)]
        return CliRunner().invoke(app, [*arguments, "--base-url", url, *more])

    def check(self, done: Result) -> None:
        """All was answered, and rightly."""
        assert done.exit_code == 0, (done.output, done.exception)
        if self.name == "vqa":
            (entry,) = read_results(self.run).find("vqa")
            assert entry.score("strict", "average").value == 100.0
            assert entry.details["scorers"]["strict"]["pairing"]["missing"] == 0
        elif self.name == "multiple-choice":
            (entry,) = read_results(self.run).find("multiple-choice")
            assert entry.score("generation_strict", "accuracy").value == 100.0
            assert entry.score("generation_strict", "accuracy").count == 18
        elif self.name == "chat":
            # As a judge gets them.
            texts, *_ = chat_answers(self.file, open_chat_set(str(self.chat)))
            assert sorted(texts.values()) == [f"Seen: What is shown in {n}?" for n in range(6)]
        elif self.name == "judge":
            found = json.loads(done.stdout)
            assert found["scores"]["relative_score"]["value"] == 50.0
            assert found["num_unjudged"] == 0
        else:
            made = read_records(self.long)
            assert len(made) == 30
            assert all(each.extended == [f"In full: {each.answer}"] for each in made)

    @property
    def file(self) -> Path:
        """Of the answers."""
        task = "multiple-choice/generation" if self.name == "multiple-choice" else self.name
        return answers_path(self.run, task, "chat" if task == "chat" else "made-up", "test")


@pytest.fixture
def verb(tmp_path: Path, request: pytest.FixtureRequest) -> Verb:
    return Verb(request.param, tmp_path)


@pytest.mark.parametrize("verb", VERBS, indirect=True)
def test_what_a_model_does_not_take_is_found_out_once(verb: Verb) -> None:
    with ChatServer(verb.right, refuses=REASONING) as server:
        done = verb.call(server.url)
        verb.check(done)
    has_schema = verb.name in ("judge", "captions")
    num_asked = {
        "vqa": 30,
        "multiple-choice": 18,
        "chat": 6,
        "judge": 12,
        "captions": len(verb.pairs),
    }
    refused = [name for name in REASONING if has_schema or name != "response_format"]
    assert len(server.bodies) == len(refused) + num_asked[verb.name]
    first, *_, last = server.bodies
    assert first["temperature"] == 0.0 and first["seed"] == 0 and first["max_tokens"] > 0
    assert last.keys() == {"model", "messages", "max_completion_tokens"}
    adapted = {"max_tokens": "max_completion_tokens"}
    adapted |= {name: None for name in refused if name != "max_tokens"}
    if has_schema:
        summary = json.loads(done.stdout)
        assert (summary.get("usage") or summary)["adapted"] == adapted
    else:
        assert "max_tokens is called max_completion_tokens; temperature and seed" in done.stdout
        assert "may differ from call to call" in done.stdout
        (about,) = verb.run.rglob("*.about.json")
        assert json.loads(about.read_text("utf-8"))["adapted"] == adapted
    if verb.name in ("vqa", "multiple-choice"):
        (entry,) = read_results(verb.run).find(verb.name)
        assert entry.engine["adapted"] == adapted and entry.engine["decoding"]["seed"] == 0
    if verb.name == "multiple-choice":
        assert CliRunner().invoke(app, ["evaluate", "report", str(verb.run)]).exit_code == 0
        page = (verb.run / "report.html").read_text("utf-8")
        assert "may differ from call to call" in page


@pytest.mark.parametrize("verb", ["chat"], indirect=True)
def test_a_call_that_goes_on_still_says_it(verb: Verb) -> None:
    with ChatServer(verb.right, refuses=REASONING) as server:
        verb.check(verb.call(server.url))
        again = verb.call(server.url)
        assert len(server.bodies) == 9
    assert again.exit_code == 0 and "temperature and seed had to be left out" in again.stdout


@pytest.mark.parametrize("verb", ["captions"], indirect=True)
def test_an_answer_by_chance_stands_for_no_greedy_one(verb: Verb) -> None:
    """The cache knows with which parameters an answer was drawn, and nothing is paid twice."""
    with ChatServer(verb.right, refuses=["temperature"]) as server:
        verb.check(verb.call(server.url))
        verb.long.unlink()
        again = verb.call(server.url)
        # Each time one request that is refused; the second time the rest is known.
        assert len(server.bodies) == len(verb.pairs) + 2
        assert json.loads(again.stdout)["from_cache"] == 30
    with ChatServer(verb.right) as server:
        verb.long.unlink()
        verb.check(verb.call(server.url))
        assert len(server.bodies) == len(verb.pairs) and all(
            "temperature" in body for body in server.bodies
        )


OVERLOADED = {"error": {"message": "The engine is overloaded, try again", "code": 503}}
CHOICE_ERROR = {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502}}
PASSING: dict[str, Said] = {
    "error": OVERLOADED,
    "error beside an empty choice": OVERLOADED
    | {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
    "error in the choice": CHOICE_ERROR,
    "no choice": {"choices": []},
}


@pytest.mark.parametrize("verb", ["multiple-choice", "chat", "judge", "captions"], indirect=True)
def test_an_error_in_a_good_reply_that_may_pass_is_asked_again(verb: Verb) -> None:
    faults = list(PASSING.values())

    def reply(body: dict[str, Any]) -> Said:
        return faults.pop() if faults else verb.right(body)

    with ChatServer(reply) as server:
        # Evaluations ask six times by default.
        more = ["--attempts", "6"] if verb.name == "judge" else []
        verb.check(verb.call(server.url, "--concurrency", "2", *more))
    assert not faults


@pytest.mark.parametrize("verb", VERBS, indirect=True)
def test_an_error_in_a_good_reply_is_told_and_not_repeated(verb: Verb) -> None:
    said = "This model is not served to your organisation on Sundays"
    with ChatServer(lambda _: {"error": {"message": said, "code": "odd"}}) as server:
        done = verb.call(server.url)
    # A run of captions goes on with what a later call may finish.
    text = "".join(path.read_text("utf-8") for path in verb.folder.glob("*failures.jsonl"))
    error = done.exception
    assert said in f"{text} {error}" and isinstance(error, ServiceError)
    assert "address" not in str(error)
    assert len(server.bodies) <= 18


STOPPING = {
    "quota": (429, "insufficient_quota", "You exceeded your current quota"),
    "key": (401, "invalid_api_key", "Incorrect API key provided: [key]"),
    "permission": (403, "forbidden", "Your project may not use this model"),
    "model": (404, "model_not_found", "The model `m` does not exist"),
    "model, as a bad request": (400, None, "Invalid model name passed in model=m"),
    "model, in a good reply": (200, "model_not_found", "The model `m` does not exist"),
    "credit, in a good reply": (200, "402", "Insufficient credits"),
}


@pytest.mark.parametrize(
    ("name", "verb"),
    [*((name, "chat") for name in STOPPING), ("quota", "judge"), ("key", "captions")],
    indirect=["verb"],
)
def test_what_cannot_get_better_stops_at_once(
    name: str, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, code, sentence = STOPPING[name]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    sent = sentence.replace("[key]", "sk-very-secret-key")
    with ChatServer(lambda _: (status, {"error": {"message": sent, "code": code}})) as server:
        done = verb.call(server.url)
    assert isinstance(done.exception, ServiceError) and sentence in done.exception.message
    assert len(server.bodies) == 1
    kept = b"".join(path.read_bytes() for path in verb.folder.rglob("*") if path.is_file())
    assert "secret" not in f"{done.output}{done.exception}" and b"secret" not in kept


@pytest.mark.parametrize("verb", ["chat"], indirect=True)
def test_what_was_answered_before_the_credit_ended_is_kept(verb: Verb) -> None:
    error = {"error": {"message": "Insufficient credits", "code": 402}}

    def reply(body: dict[str, Any]) -> Said:
        return verb.right(body) if len(server.bodies) <= 4 else (402, error)

    with ChatServer(reply) as server:
        done = verb.call(server.url, "--concurrency", "3")
        assert isinstance(done.exception, ServiceError)
        assert "Insufficient credits" in done.exception.message
        assert len(read_predictions(verb.file).predictions) == 4
    with ChatServer(verb.right) as server:
        verb.check(verb.call(server.url))
        assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [200, 422, 500])
def test_a_refusal_is_known_under_every_status(status: int, tmp_path: Path) -> None:
    verb = Verb("chat", tmp_path)

    def reply(body: dict[str, Any]) -> Said:
        unknown = [name for name in ("seed", "temperature") if name in body]
        error = {"error": f"unknown field {unknown[0]!r}"} if unknown else {}
        return (status, error) if unknown else verb.right(body)

    with ChatServer(reply) as server:
        verb.check(verb.call(server.url))
        assert len(server.bodies) == 8


def test_a_model_that_reads_no_images_is_told(tmp_path: Path) -> None:
    verb = Verb("vqa", tmp_path)
    said = {"error": {"code": 500, "message": "image input is not supported", "type": "server"}}
    with ChatServer(lambda _: (500, said)) as server:
        error = verb.call(server.url).exception
    assert isinstance(error, ServiceError) and "image input is not supported" in error.message
    assert "reads images" in error.hint and len(server.bodies) == 1
    assert all(len(body["messages"][0]["content"]) == 2 for body in server.bodies)


THOUGHTS: dict[str, Callable[[str], Said]] = {
    "reasoning_content": lambda text: {
        "message": {"content": text, "reasoning_content": "left? no, right? no, yes"}
    },
    "reasoning": lambda text: {"message": {"content": text, "reasoning": "left? no, right?"}},
    "parts": lambda text: {
        "message": {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "left? no, yes"}]},
                {"type": "text", "text": text},
            ]
        }
    },
}
THOUGHTS_INSIDE: dict[str, Callable[[str], Said]] = {
    "closed": lambda text: f"<think>left? no, right? {{}}</think>\n\n{text}",
    "closed and never opened": lambda text: f"left? no, right? {{}}</think>\n\n{text}",
}


@pytest.mark.parametrize("verb", VERBS, indirect=True)
def test_thoughts_beside_an_answer_are_no_part_of_it(verb: Verb) -> None:
    ways = list(THOUGHTS.values())

    def reply(body: dict[str, Any]) -> Said:
        return ways[len(server.bodies) % len(ways)](verb.right(body))

    with ChatServer(reply) as server:
        verb.check(verb.call(server.url))


@pytest.mark.parametrize("verb", VERBS, indirect=True)
def test_thoughts_inside_an_answer_are_no_part_of_it(verb: Verb) -> None:
    ways = list(THOUGHTS_INSIDE.values())

    def reply(body: dict[str, Any]) -> Said:
        return ways[len(server.bodies) % len(ways)](verb.right(body))

    with ChatServer(reply) as server:
        verb.check(verb.call(server.url))


@pytest.mark.parametrize("verb", VERBS, indirect=True)
def test_thoughts_that_never_end_are_no_answer(verb: Verb) -> None:
    with ChatServer(lambda body: f"<think>maybe {verb.right(body)}", "length") as server:
        done = verb.call(server.url, "--max-new-tokens", "9")
    assert done.exit_code != 0


@pytest.mark.parametrize("verb", ["vqa", "multiple-choice", "chat"], indirect=True)
def test_an_answer_that_was_cut_says_so(verb: Verb) -> None:
    """Half of the answers lose their end, or thoughts took every token."""

    def reply(body: dict[str, Any]) -> Said:
        text = verb.right(body)
        if len(server.bodies) % 3 == 1:
            message = {"content": None, "reasoning_content": "so many thoughts"}
            return {"message": message, "finish_reason": "length"}
        if len(server.bodies) % 3 == 2:
            return {"message": {"content": text[:2]}, "finish_reason": "length"}
        return text

    with ChatServer(reply) as server:
        done = verb.call(server.url, "--concurrency", "1")
    assert done.exit_code == 0, (done.output, done.exception)
    found = read_predictions(verb.file).predictions
    third = len(server.bodies) // 3
    assert [sum(each.finish_reason == end for each in found) for end in ("length", "stop")] == [
        2 * third, third
    ]  # fmt: skip
    assert sum(not each.text for each in found) == third
    assert not any("thoughts" in each.text for each in found)


@pytest.mark.parametrize("verb", ["judge", "captions"], indirect=True)
def test_a_cut_reply_is_asked_again(verb: Verb) -> None:
    faults: list[Said] = [
        {"message": {"content": None}, "finish_reason": "length"},
        {"message": {"content": '{"revision": "The'}, "finish_reason": "length"},
        {"message": {"content": ""}, "finish_reason": "content_filter"},
        {"message": {"content": None, "refusal": "I cannot"}},
        {"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"},
    ]

    def reply(body: dict[str, Any]) -> Said:
        return faults.pop() if faults else verb.right(body)

    with ChatServer(reply) as server:
        verb.check(verb.call(server.url, "--concurrency", "3", "--attempts", "7"))
    assert not faults


def test_temperature_and_seed_are_sent_and_told(tmp_path: Path) -> None:
    verb = Verb("multiple-choice", tmp_path)
    with ChatServer(verb.right) as server:
        verb.check(verb.call(server.url, "--temperature", "0.7", "--seed", "5"))
        assert {(body["temperature"], body["seed"]) for body in server.bodies} == {(0.7, 5)}
        error = verb.call(server.url, "--temperature", "0.2").exception
        assert "another decoding" in str(error)
    (entry,) = read_results(verb.run).find("multiple-choice")
    assert entry.engine["decoding"] == {"max_tokens": 64, "temperature": 0.7, "seed": 5}
    assert "adapted" not in entry.engine
    done = CliRunner().invoke(
        app, ["evaluate", "vqa", "x", "--data", str(verb.data), "--temperature", "1"]
    )
    assert isinstance(done.exception, CommandError)
    for number in ("nan", "inf", "-1"):
        done = CliRunner().invoke(app, ["evaluate", "vqa", "x", "--temperature", number])
        assert isinstance(done.exception, CommandError)


@pytest.mark.parametrize(
    "address",
    [
        "/openai/deployments/dep/chat/completions?api-version=2024-10-21",
        "/openai/deployments/dep/?api-version=2024-10-21",
    ],
)
def test_azure_s_addresses_and_its_header(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-secret")
    verb = Verb("chat", tmp_path)
    with ChatServer(verb.right) as server:
        done = verb.call(server.url.removesuffix("/v1") + address)
    verb.check(done)
    paths = {"/openai/deployments/dep/chat/completions?api-version=2024-10-21"}
    assert set(server.paths) == paths
    assert all(each["api-key"] == "azure-secret" for each in server.headers)
    assert not any("authorization" in each for each in server.headers)
