"""A stand-in for the hub on 127.0.0.1: the file layout, the headers, and faults on demand."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Files of one repository, what was asked for, and which faults to make."""

    name: str
    folder: Path
    url: str = ""
    break_off: dict[str, int] = field(default_factory=dict)
    """File name to how often its download ends in the middle."""
    corrupt: set[str] = field(default_factory=set)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def etag(self, name: str) -> str:
        content = self.content(name)
        if name.endswith((".safetensors", ".bin", ".model")):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{hub.name}"):
                names = sorted(each.name for each in hub.folder.iterdir())
                body = {
                    "id": hub.name,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": n} for n in names],
                }
                if "/tree/" in path:
                    body = [
                        {"type": "file", "path": n, "size": len(hub.content(n)), "oid": hub.etag(n)}
                        for n in names
                    ]
                self.send(
                    json.dumps(body).encode(), {"Content-Type": "application/json"}, with_body
                )
                return
            name = path.rpartition("/")[2]
            if not path.startswith(f"/{hub.name}/resolve/") or not (hub.folder / name).is_file():
                self.send(b"", {"X-Error-Code": "RepoNotFound"}, with_body, status=404)
                return
            content = hub.content(name)
            headers = {
                "ETag": f'"{hub.etag(name)}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            wanted = self.headers.get("Range")
            status, start = 200, 0
            if wanted and with_body:
                hub.ranges.append((name, wanted))
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status = 206
            if name in hub.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.send(content[start:], headers, with_body, status, name)

        def send(
            self,
            body: bytes,
            headers: dict[str, str],
            with_body: bool,
            status: int = 200,
            name: str = "",
        ) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if not with_body:
                return
            hub.sent += [name] if name else []
            if hub.break_off.get(name, 0) > 0:
                hub.break_off[name] -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
