"""An OpenAI-compatible server on this machine whose replies a test decides."""

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Said = str | int | dict[str, Any] | tuple[int, Any]
Reply = Callable[[dict[str, Any]], Said]


def not_taken(name: str) -> tuple[int, Any]:
    """The error of OpenAI's reasoning models for a parameter that they do not take."""
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    if name == "max_tokens":
        message += " Use 'max_completion_tokens' instead."
    error = {"message": message, "type": "invalid_request_error", "param": name}
    return 400, {"error": error | {"code": "unsupported_parameter"}}


class ChatServer:
    """Answers each request by `reply(body)`: a text, the number of an error without words, fields
    of the choice or (with `choices` or `error` in it) the whole body, or a status and a body.

    Args:
        refuses: parameters that are an error, one after the other.
    """

    def __init__(
        self, reply: Reply, finish_reason: str = "stop", refuses: Sequence[str] = ()
    ) -> None:
        # The commands that ask it do so with this client, of the extra [llm].
        pytest.importorskip("openai")
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.paths.append(self.path)
                unknown = [name for name in refuses if name in body]
                status, value = whole(not_taken(unknown[0]) if unknown else reply(body))
                raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        def whole(said: Said) -> tuple[int, Any]:
            if isinstance(said, tuple):
                return said
            if isinstance(said, dict) and said.keys() & {"choices", "error"}:
                return 200, said
            choice = {"index": 0, "finish_reason": finish_reason}
            message = {"role": "assistant", "content": said}
            choice |= said if isinstance(said, dict) else {"message": message}
            usage = {"prompt_tokens": 100, "completion_tokens": 20}
            value = {"id": "x", "choices": [choice], "usage": usage}
            return (said, {}) if isinstance(said, int) else (200, value)

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
