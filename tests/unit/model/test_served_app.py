"""The server for chat clients: what it answers, streams, refuses, and when it stops."""

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.records import Turn
from exgra_med.errors import DataError, ServiceError
from exgra_med.llm.fault import read_fault, refused_parameters
from exgra_med.model import served_app
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import generate
from exgra_med.model.served_app import (
    MAX_WAITING,
    ModelAnswers,
    Piece,
    ServedApp,
    cut_at,
    open_port,
)
from exgra_med.model.served_requests import ChatQuestion, RefusedError, read_question

CHAT = "/v1/chat/completions"


class Said:
    """Says given pieces, and what it was asked."""

    pictures_behind = True

    def __init__(self, *pieces: str, pause: float = 0.0, reason: Any = "stop") -> None:
        self.pieces, self.pause, self.reason = pieces or ("Grüße", ", ", "你好", "."), pause, reason
        self.asked: list[ChatQuestion] = []
        self.num_said, self.closed = 0, threading.Event()

    def stream(self, question: ChatQuestion) -> Iterator[Piece]:
        self.asked.append(question)
        try:
            for number, text in enumerate(self.pieces, start=1):
                time.sleep(self.pause)
                self.num_said = number
                yield Piece(text, 7, number, self.reason if number == len(self.pieces) else None)
        finally:
            self.closed.set()


def asked(content: Any = "What is shown?", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def picture(side: int = 8, colour: str = "red") -> dict[str, Any]:
    stream = BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    made = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{made}"}}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


async def call(app: ServedApp, body: Any, leaves: asyncio.Event | None = None) -> list[Any]:
    """The messages that an app sends to a request."""
    content, sent = [json.dumps(body).encode()], []

    async def receive() -> dict[str, Any]:
        if content:
            return {"type": "http.request", "body": content.pop(), "more_body": False}
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": CHAT}, receive, send)
    return sent


def whole(answers: Any, **more: Any) -> tuple[int, Any]:
    sent = asyncio.run(call(ServedApp(answers, "m"), asked(**more)))
    return sent[0]["status"], json.loads(sent[1]["body"])


def events(answers: Any, **more: Any) -> list[Any]:
    sent = asyncio.run(call(ServedApp(answers, "m"), asked(stream=True, **more)))
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert [each.get("more_body") for each in sent[1:]][-1] is False
    said = b"".join(each["body"] for each in sent[1:]).decode().split("\n\n")
    assert said[-2:] == ["data: [DONE]", ""]
    return [json.loads(each.removeprefix("data: ")) for each in said[:-2]]


def spoken(chunks: list[Any]) -> str:
    choices = [each["choices"][0] for each in chunks if each["choices"]]
    return "".join(each["delta"].get("content", "") for each in choices)


# Answers


def test_an_answer_has_its_text_its_end_and_its_tokens() -> None:
    status, value = whole(Said())
    assert status == 200
    assert (value["object"], value["model"]) == ("chat.completion", "m")
    assert value["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüße, 你好."},
            "finish_reason": "stop",
        }
    ]
    assert value["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert whole(Said(reason="length"))[1]["choices"][0]["finish_reason"] == "length"


def test_a_stream_begins_with_the_role_and_ends_with_a_reason() -> None:
    chunks = events(Said())
    assert {each["object"] for each in chunks} == {"chat.completion.chunk"}
    assert len({each["id"] for each in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert spoken(chunks) == "Grüße, 你好."
    assert not any("usage" in each for each in chunks)


def test_a_stream_counts_its_tokens_where_asked() -> None:
    *chunks, last = events(Said(), stream_options={"include_usage": True})
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 11
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["END", ["never", "END"], ["END", "ND now"]])
def test_both_end_before_a_stop_text_that_comes_in_pieces_and_writing_ends(stop: Any) -> None:
    for answer_of in (
        lambda said: whole(said, stop=stop)[1]["choices"][0]["message"]["content"],
        lambda said: spoken(events(said, stop=stop)),
    ):
        said = Said("It is E", "N", "D now", *["more"] * 50)
        assert answer_of(said) == "It is "
        assert said.closed.wait(5) and said.num_said == 3
    _, value = whole(Said("It is E", "N", "D now", "more"), stop=stop)
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stop", ["", [], [""], None])
def test_an_empty_stop_asks_for_nothing(stop: Any) -> None:
    assert whole(Said("E", "N"), stop=stop)[1]["choices"][0]["message"]["content"] == "EN"


def test_what_was_held_back_for_a_stop_text_is_said_at_the_end() -> None:
    pieces = (each for each in (Piece("a E", 1, 1), Piece("N", 1, 2, "length")))
    assert [each.text for each in cut_at(pieces, ["END"])] == ["a ", "EN"]


# What ends an answer


def test_a_client_that_leaves_ends_its_answer_and_the_next_one_is_answered() -> None:
    said = Said(*["word "] * 500, pause=0.01)

    async def leave(body: Any) -> None:
        app, leaves = ServedApp(said, "m"), asyncio.Event()
        request = asyncio.ensure_future(call(app, body, leaves))
        while not said.num_said:
            await asyncio.sleep(0.01)
        leaves.set()
        await request
        assert await asyncio.to_thread(said.closed.wait, 5)
        assert said.num_said < 100
        app.answers = Said("next")
        assert json.loads((await call(app, asked()))[1]["body"])["usage"]["completion_tokens"] == 1
        assert app._num_waiting == 0

    for body in (asked(), asked(stream=True)):
        said.closed.clear()
        said.num_said = 0
        asyncio.run(leave(body))


def test_a_question_of_a_client_that_left_in_the_queue_is_not_answered() -> None:
    said = Said(*["word "] * 20, pause=0.02)

    async def leave() -> None:
        app, leaves = ServedApp(said, "m"), asyncio.Event()
        first = asyncio.ensure_future(call(app, asked()))
        while not said.num_said:
            await asyncio.sleep(0.01)
        second = asyncio.ensure_future(call(app, asked(), leaves))
        await asyncio.sleep(0.1)
        leaves.set()
        await second
        assert (await first)[0]["status"] == 200

    asyncio.run(leave())
    assert len(said.asked) == 1


def test_a_request_too_many_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_app, "MAX_WAITING", 2)
    said = Said("a", pause=0.3)

    async def ask() -> list[Any]:
        app = ServedApp(said, "m")
        return await asyncio.gather(*(call(app, asked()) for _ in range(3)))

    replies = asyncio.run(ask())
    assert sorted(each[0]["status"] for each in replies) == [200, 200, 429]
    (busy,) = (each for each in replies if each[0]["status"] == 429)
    assert dict(busy[0]["headers"])[b"retry-after"] == b"5"
    error = json.loads(busy[1]["body"])["error"]
    assert error["type"] == "rate_limit_error" and "ask again later" in error["message"]
    assert MAX_WAITING == 16


class Fails:
    pictures_behind = True

    def __init__(self, error: Exception, after: int = 0) -> None:
        self.error, self.after = error, after

    def stream(self, question: ChatQuestion) -> Iterator[Piece]:
        for number in range(self.after):
            yield Piece("word ", 1, number + 1)
        raise self.error


@pytest.mark.parametrize("streams", [False, True])
def test_a_failure_is_said_without_what_was_asked(
    streams: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "Mrs. Secret"
    for error, status in (
        (RuntimeError(secret), 500),
        (DataError("The question is too long."), 400),
        (RefusedError(400, "No."), 400),
    ):
        found, value = whole(Fails(error), stream=streams)
        assert found == status and value["error"]["message"]
        assert secret not in json.dumps(value)
    told = capsys.readouterr()
    assert "RuntimeError in a request" in told.err
    assert secret not in told.err + told.out and "Traceback" not in told.err


def test_a_failure_in_the_middle_ends_the_stream_with_an_error() -> None:
    chunks = events(Fails(RuntimeError("x"), after=2))
    assert spoken(chunks[:-1]) == "word word "
    assert chunks[-1]["error"]["message"] == "The model failed (RuntimeError)."


# Questions


def read(messages: Any, pictures_behind: bool = True, **more: Any) -> ChatQuestion:
    content = json.dumps({"messages": messages, **more}).encode()
    return read_question(content, "m", pictures_behind)


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    ("parts", "behind", "in_order"),
    [
        ([picture(), text("What?")], "What?<image>", "<image>What?"),
        ([picture(), picture(), text("What?")], "What?<image><image>", "<image><image>What?"),
        ([text("What?"), picture()], "What?<image>", "What?<image>"),
        ([text("Is "), picture(), text(" older?"), picture()], *["Is <image> older?<image>"] * 2),
        ([picture(), text("\nWhat?")], "<image>\nWhat?", "<image>\nWhat?"),
        ([picture()], "<image>", "<image>"),
        ([text("One."), text("Two?")], "One.\nTwo?", "One.\nTwo?"),
        ([text("An <image> of <im_patch> mine")], "An  of  mine", "An  of  mine"),
    ],
)
def test_pictures_stand_where_the_parts_place_them(
    parts: list[Any], behind: str, in_order: str
) -> None:
    for pictures_behind, expected in ((True, behind), (False, in_order)):
        found = read([user(*parts)], pictures_behind)
        assert [each.text for each in found.turns] == [expected]
        assert len(found.images) == sum(each["type"] == "image_url" for each in parts)


def test_pictures_of_later_turns_are_read_in_their_order() -> None:
    found = read(
        [
            user(picture(colour="red"), text("What?")),
            {"role": "assistant", "content": ""},
            user(picture(colour="blue"), text("And here?")),
        ]
    )
    assert [each.text for each in found.turns] == ["What?<image>", "-", "And here?<image>"]
    assert [each.getpixel((0, 0)) for each in found.images] == [(255, 0, 0), (0, 0, 255)]


def test_system_messages_and_messages_in_a_row() -> None:
    found = read(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One"},
            {"role": "user", "content": [text("Two")]},
        ]
    )
    assert found.system == "Be brief." and [each.text for each in found.turns] == ["One\nTwo"]


def test_the_settings_of_a_request() -> None:
    found = read(
        [user(text("?"))], max_tokens=3, max_completion_tokens=5, temperature=0.7, top_p=0.9,
        seed=-4, stop="###", stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    assert (found.max_tokens, found.temperature, found.top_p, found.seed) == (5, 0.7, 0.9, -4)
    assert found.stops == ["###"] and found.streams and found.with_usage
    least = read([user(text("?"))])
    assert (least.max_tokens, least.temperature, least.seed) == (None, 0.0, None)


CLIENTS: list[dict[str, Any]] = [
    # As Open WebUI sends it.
    {
        "stream": True, "model": "m", "stream_options": {"include_usage": True},
        "messages": [user(text("What is shown?"), picture())], "stop": [],
    },
    # As LibreChat sends it, with its own settings left alone.
    {
        "model": "m", "user": "abc", "temperature": 1, "top_p": 1, "presence_penalty": 0,
        "frequency_penalty": 0, "stream": True, "max_tokens": None, "stop": "",
        "messages": [
            {"role": "system", "content": "You help."},
            user(text("What?"), {"type": "image_url", "image_url": {
                **picture()["image_url"], "detail": "auto"}}),
        ],
    },
    {"messages": [{"role": "user", "content": "?"}], "n": 1, "logprobs": False, "tools": [],
     "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": None},
]  # fmt: skip


@pytest.mark.parametrize("body", CLIENTS, ids=["open-webui", "librechat", "neutral"])
def test_what_chat_clients_send_is_taken(body: dict[str, Any]) -> None:
    sent = asyncio.run(call(ServedApp(Said(), "m"), body))
    assert sent[0]["status"] == 200


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"generation_config": "{}"}, "generation_config"),
    ({"top_k": 5}, "top_k"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": [1]}, "stream_options"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ["a" * 1001]}, "stop"),
    ({"messages": [{"role": "system", "content": "Only this."}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "Hello"}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "1", "tool_call_id": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": [picture()]}]}, "messages"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "param"), REFUSED, ids=[str(each)[:40] for each, _ in REFUSED])
def test_what_is_not_done_here_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    status, value = whole(Said(), **more)
    assert status == 400
    assert value["error"]["param"] == param and value["error"]["message"].endswith(".")
    assert value["error"]["type"] == "invalid_request_error"


def test_the_client_of_this_project_leaves_out_what_is_refused() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
    _, value = whole(Said(), response_format=schema)
    assert value["error"]["message"] == "response_format is not supported here; leave it out."
    sent = asked(response_format=schema)
    assert refused_parameters(read_fault(value), sent, []) == ["response_format"]


def test_the_pictures_of_a_request_have_one_limit_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exgra_med.model.served_requests.MAX_PIXELS", 150)
    assert len(read([user(picture(), picture(), text("?"))]).images) == 2
    with pytest.raises(RefusedError, match="pixels"):
        read([user(picture(), picture(), picture(), text("?"))])


# A model


@pytest.fixture(scope="module")
def model(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle("none", seed=3)


def answered(bundle: Bundle, question: ChatQuestion) -> list[Piece]:
    return list(ModelAnswers(bundle, "exgra").stream(question))


def test_the_answer_is_that_of_the_model(model: Bundle, pictures: list[Image.Image]) -> None:
    turns = [Turn(role="user", text="Where is it?<image>")]
    # As in training, where the picture is behind the question without a sign for it.
    prompt = model.prompt([Turn(role="user", text="Where is it?")], 1)
    own = generate(model, [prompt], [pictures[:1]], 12)[0]
    pieces = answered(model, ChatQuestion(turns, pictures[:1], max_tokens=12))
    assert "".join(each.text for each in pieces) == own.text
    assert (pieces[-1].num_tokens, pieces[-1].finish_reason) == (own.num_tokens, own.finish_reason)
    assert pieces[-1].num_prompt_tokens == len(prompt)
    # A native model knows one system text, its own.
    with_system = ChatQuestion(turns, pictures[:1], "Be brief.", max_tokens=12)
    assert answered(model, with_system)[-1].num_prompt_tokens == len(prompt)


def test_a_seed_decides_what_is_drawn_and_without_one_draws_differ(model: Bundle) -> None:
    turns = [Turn(role="user", text="Where?")]

    def drawn(seed: int | None) -> str:
        asked = ChatQuestion(turns, [], max_tokens=8, temperature=1.0, seed=seed)
        return "".join(each.text for each in answered(model, asked))

    assert drawn(-5) == drawn(-5)
    assert len({drawn(None) for _ in range(5)}) > 1


def test_an_answer_ends_where_the_model_can_read_no_further(
    model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [Turn(role="user", text="Where?")]
    num_prompt = len(model.prompt(turns, 0))
    for room in (3, 0):
        monkeypatch.setattr(type(model), "context_length", num_prompt + room)
        asked = ChatQuestion(turns, [], max_tokens=10**6)
        if room:
            last = answered(model, asked)[-1]
            assert (last.num_tokens, last.finish_reason) == (room, "length")
        else:
            with pytest.raises(RefusedError, match=f"has {num_prompt} tokens"):
                answered(model, asked)


# Over a port


@contextmanager
def served(app: ServedApp) -> Iterator[int]:
    uvicorn = pytest.importorskip("uvicorn", reason="serving needs the extra [serve]")
    listener = open_port("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def test_raw_http_over_a_port() -> None:
    said = Said(*["word "] * 300, pause=0.02)
    app = ServedApp(said, "m")
    with served(app) as port:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        link.request("GET", "/v1/models")
        assert json.loads(link.getresponse().read())["data"][0]["id"] == "m"
        link.request("POST", CHAT, b"{oh", {"Content-Type": "application/json"})
        reply = link.getresponse()
        assert reply.status == 400 and json.loads(reply.read())["error"]["message"]
        link.request("POST", CHAT, json.dumps(asked(stream=True)).encode())
        reply = link.getresponse()
        assert reply.status == 200 and reply.readline().startswith(b"data: {")
        # A client that goes away: its connection, not a word.
        reply.close()
        link.close()
        assert said.closed.wait(5) and said.num_said < 200


def test_a_port_that_is_taken_is_said() -> None:
    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"Port {port} of 127.0.0.1 cannot be opened"):
            open_port("127.0.0.1", port)


def test_the_openai_client() -> None:
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    said = Said("Is it E", "N", "D? Grüße")
    with served(ServedApp(said, "m")) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0)
        assert [each.id for each in client.models.list()] == ["m"]
        assert client.models.retrieve("m").owned_by == "exgra-med"
        messages: Any = [user(text("What?"), picture())]
        reply = client.chat.completions.create(model="m", messages=messages, stop="END")
        assert reply.choices[0].message.content == "Is it " and reply.usage.total_tokens == 10
        chunks = list(
            client.chat.completions.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        spoken = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert spoken == "Is it END? Grüße" and chunks[-1].usage.prompt_tokens == 7
        with pytest.raises(openai.NotFoundError, match="The model here is 'm'"):
            client.chat.completions.create(model="other", messages=messages)
        with pytest.raises(openai.BadRequestError, match="n is 1"):
            client.chat.completions.create(model="m", messages=messages, n=2)
        far: Any = [user({"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}})]
        with pytest.raises(openai.BadRequestError, match="Pictures are not fetched"):
            client.chat.completions.create(model="m", messages=far)
