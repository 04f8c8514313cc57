"""Replies of a server that writes word by word, and of servers that misbehave."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from exgra_med.errors import ServiceError
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.openai_transport import stream_reply
from exgra_med.llm.request import ChatRequest, Sampling

pytest.importorskip("openai")
SECRET = "the question of a patient"


class Server(BaseHTTPRequestHandler):
    behaviour = "words"
    bodies: ClassVar[list[dict]] = []
    left = threading.Event()

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Server.bodies.append(body)
        if Server.behaviour == "redirect":
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:9/v1/chat/completions")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if Server.behaviour == "refuse":
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.end_headers()
            message = f"bad role: {SECRET}"
            self.wfile.write(json.dumps({"error": {"message": message}}).encode())
            return
        unknown = [name for name in ("max_tokens", "temperature") if name in body]
        if Server.behaviour == "picky" and unknown:
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.end_headers()
            message = f"Unsupported parameter: '{unknown[0]}' is not supported with this model."
            self.wfile.write(json.dumps({"error": {"message": message}}).encode())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for number in range(1000 if Server.behaviour == "endless" else 3):
                self.event({"delta": {"content": f"w{number} "}, "finish_reason": None})
                time.sleep(0.01)
            if Server.behaviour == "error":
                error = {"message": f"out of memory at {SECRET}", "code": 500}
                self.wfile.write(f"data: {json.dumps({'error': error})}\n\n".encode())
                return
            if Server.behaviour == "picky":
                self.event({"delta": {"reasoning_content": "hm"}, "finish_reason": None})
            self.event({"delta": {}, "finish_reason": "length"})
            self.wfile.write(b'data: {"choices": []}\n\ndata: [DONE]\n\n')
        except OSError:
            Server.left.set()

    def event(self, choice: dict) -> None:
        value = {"id": "1", "object": "chat.completion.chunk", "choices": [choice | {"index": 0}]}
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Server.bodies.clear()
    Server.left.clear()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "none")
    server.shutdown()
    server.server_close()


def ask(endpoint: Endpoint, timeout_seconds: float = 20) -> Iterator[tuple[str, str | None]]:
    messages = [{"role": "user", "content": SECRET}]
    request = ChatRequest("toy", messages, Sampling(max_tokens=5, temperature=0.0))
    return stream_reply(endpoint, request, timeout_seconds)


def test_words_come_one_by_one(endpoint: Endpoint) -> None:
    Server.behaviour = "words"
    chunks = list(ask(endpoint))
    assert "".join(text for text, _ in chunks) == "w0 w1 w2 "
    assert [reason for _, reason in chunks] == [None, None, None, "length"]
    (body,) = Server.bodies
    assert body["stream"] is True and body["max_tokens"] == 5 and body["temperature"] == 0.0


def test_leaving_closes_the_connection(endpoint: Endpoint) -> None:
    Server.behaviour = "endless"
    chunks = ask(endpoint)
    assert next(chunks)[0] == "w0 "
    chunks.close()
    assert Server.left.wait(20)


def test_a_reply_without_end_is_given_up(endpoint: Endpoint) -> None:
    Server.behaviour = "endless"
    with pytest.raises(ServiceError, match=r"longer than 0\.2 s"):
        list(ask(endpoint, timeout_seconds=0.2))


def test_a_refusal_is_a_sentence_without_the_question(endpoint: Endpoint) -> None:
    Server.behaviour = "refuse"
    with pytest.raises(ServiceError, match="HTTP 400: bad role") as caught:
        list(ask(endpoint))
    assert SECRET not in str(caught.value)


def test_an_error_in_the_middle_is_told(endpoint: Endpoint) -> None:
    Server.behaviour = "error"
    chunks = ask(endpoint)
    assert [next(chunks)[0] for _ in range(3)] == ["w0 ", "w1 ", "w2 "]
    with pytest.raises(ServiceError, match="out of memory") as caught:
        next(chunks)
    assert SECRET not in str(caught.value)


def test_what_a_model_does_not_take_is_left_out_from_then_on(endpoint: Endpoint) -> None:
    Server.behaviour = "picky"
    request = ChatRequest("toy", [{"role": "user", "content": SECRET}], Sampling(5, 0.0, seed=1))
    names: dict[str, str | None] = {}
    for _ in range(2):
        text = "".join(text for text, _ in stream_reply(endpoint, request, 20, names))
        assert text == "w0 w1 w2 "
    assert names == {"max_tokens": "max_completion_tokens", "temperature": None}
    assert len(Server.bodies) == 4 and Server.bodies[-1]["max_completion_tokens"] == 5
    assert Server.bodies[-1]["seed"] == 1 and "temperature" not in Server.bodies[-1]


def test_a_redirect_is_not_followed(endpoint: Endpoint) -> None:
    Server.behaviour = "redirect"
    with pytest.raises(ServiceError, match="HTTP 307"):
        list(ask(endpoint))
    assert len(Server.bodies) == 1


def test_nobody_there_is_a_sentence() -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1 gave no complete answer: there is no"):
        list(ask(Endpoint("http://127.0.0.1:9/v1", "none")))
