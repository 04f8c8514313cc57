"""An OpenAI-compatible server on this machine whose replies a test decides."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = Callable[[dict[str, Any]], str | int]


class ChatServer:
    """Answers each request by `reply(body)`: a text, or the number of an error."""

    def __init__(self, reply: Reply, finish_reason: str = "stop") -> None:
        # The commands that ask it do so with this client, of the extra [llm].
        pytest.importorskip("openai")
        self.bodies: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                said = reply(body)
                message = {"role": "assistant", "content": said}
                choice = {"index": 0, "finish_reason": finish_reason, "message": message}
                usage = {"prompt_tokens": 100, "completion_tokens": 20}
                raw = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """What a judge was given."""
    return json.loads(body["messages"][1]["content"])


def graded(first: float, second: float) -> str:
    return json.dumps({"reason": "so it is", "score_1": first, "score_2": second})
