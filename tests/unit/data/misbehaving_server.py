"""A server on this machine that does what servers of the internet do."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Answers by `routes`: path -> bytes to send, or a function of the handler."""

    daemon_threads = True

    def __init__(self) -> None:
        self.routes: dict[str, bytes | Callable[[Any], None]] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def status(self, number: int, **headers: str) -> Callable[[Any], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(number)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()

        return answer

    def redirect(self, target: str) -> Callable[[Any], None]:
        return self.status(302, Location=target)

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        self.closing.wait(20)

    def trickle(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not self.closing.wait(0.02):
            handler.wfile.write(b"x")

    def cut(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 400)

    def endless(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x" * 10_000)

    def failing_once(self, content: bytes) -> Callable[[Any], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            if self.asked.count(handler.path) == 1:
                self.cut(handler)
            else:
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write(content)

        return answer


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.routes.get(self.path, self.server.status(404))
        try:
            if isinstance(answer, bytes):
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            else:
                answer(self)
        except OSError:
            # The client has hung up, as it should.
            return

    def log_message(self, *_: Any) -> None:
        return
