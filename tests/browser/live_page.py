"""A real `exgra-med web` in its own process, and a model server whose words a test decides."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
START_SECONDS = 240
HOSTILE = (
    "<script>window.stolen = 1</script><img src=http://evil.example/x.png onerror=alert(1)>"
    "![a](http://evil.example/y.png) [b](javascript:alert(1)) **bold** ${alert(2)} {{value}}"
)


class WordServer:
    """Streams `words`, one every `pause_seconds`, whatever it is asked."""

    def __init__(self) -> None:
        self.words: list[str] = ["fine"]
        self.pause_seconds = 0.0
        self.num_asked = self.now = self.most_at_once = 0
        self.bodies: list[dict[str, Any]] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.bodies = [*outer.bodies[-3:], body]
                    outer.num_asked += 1
                    outer.now += 1
                    outer.most_at_once = max(outer.most_at_once, outer.now)
                try:
                    self.send_response(200)
                    self.send_header("content-type", "text/event-stream")
                    self.end_headers()
                    for word in outer.words:
                        self.event({"delta": {"content": word}, "finish_reason": None})
                        time.sleep(outer.pause_seconds)
                    self.event({"delta": {}, "finish_reason": "stop"})
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    pass  # whoever asked has left
                finally:
                    with lock:
                        outer.now -= 1

            def event(self, choice: dict[str, Any]) -> None:
                value = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
                choice["index"] = 0
                self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.model = f"words@http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def say(self, *words: str, pause_seconds: float = 0.0) -> None:
        self.words, self.pause_seconds = list(words), pause_seconds
        self.num_asked = self.most_at_once = 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class LivePage:
    """`exgra-med web ARGUMENTS` on a free port, with a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(parents=True)
        self.told = folder / "told.txt"
        paths = [str(SOURCE), *(path for path in sys.path if path)]
        with self.told.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exgra_med", "web", *arguments, "--port", "0"],
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self.temporary)}
                | {"OMP_NUM_THREADS": "1"}
                | environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        begun = time.monotonic()
        self.url = self._wait()
        assert self.request("/")[0] in (200, 401)
        self.opened = {
            "seconds": time.monotonic() - begun,
            "processor_seconds": self.processor_seconds,
        }
        """From starting the process to its first page."""

    def _wait(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in self.output.splitlines():
                if line.startswith("The page is open: "):
                    return line.removeprefix("The page is open: ")
            assert self.process.poll() is None, self.output
            time.sleep(0.2)
        raise AssertionError(f"the page did not open: {self.output}")

    @property
    def output(self) -> str:
        return self.told.read_text(encoding="utf-8", errors="replace")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def resident_megabytes(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def uploads(self) -> list[Path]:
        """Files with anything in them; Gradio leaves empty ones for a while."""
        files = [path for path in self.temporary.rglob("*") if path.is_file()]
        return [path for path in files if path.stat().st_size]

    def request(
        self, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request; the path is sent as it is."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, names)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers.items()), error.read()

    def ask_over_http(self, question: str, session: str, model: str = "words") -> tuple[int, str]:
        """What the page does on "Ask", without the page: join the queue, read its events.

        Returns:
            Status of joining, and all events as text.
        """
        config = json.loads(self.request("/config")[2])
        (number,) = [
            each["id"]
            for each in config["dependencies"]
            if (len(each["inputs"]), len(each["outputs"])) == (10, 7)
        ]
        data = [None, question, model, "no other model", False, False, 16, 0, 1, 0]
        body = json.dumps(
            {"data": data, "fn_index": number, "session_hash": session, "trigger_id": None}
        ).encode()
        kind = {"content_type": "application/json"}
        status, _, raw = self.request("/gradio_api/queue/join", body, **kind)
        if status != 200:
            return status, raw.decode()
        _, _, events = self.request(f"/gradio_api/queue/data?session_hash={session}")
        return status, events.decode()

    def close(self) -> int:
        self.process.terminate()
        return self.process.wait(60)
