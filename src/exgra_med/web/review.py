"""A page on this machine to judge extended answers, one after the other, with the keyboard.

It needs no extra: Python's own server, two static files, and JSON. Only 127.0.0.1 is listened on,
and the address holds a key that no other user of the machine and no other page knows. A judgement
is on the disk before the page says so, so a killed page loses none.

    GET  /KEY/               the page; /KEY/review.css, /KEY/review.js
    GET  /KEY/answers        what is reviewed, and how far it is
    GET  /KEY/answers/N      one answer: texts, differences, signs of faults, judgement
    GET  /KEY/pictures/N/K   a picture of it
    POST /KEY/judgements/N   {"verdict": "accept", "note": ""}
"""

import heapq
import hmac
import json
import random
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from exgra_med.captions.check import CheckedAnswer, checked_records
from exgra_med.captions.difference import differences
from exgra_med.captions.judgements import JudgementFile, text_digest
from exgra_med.captions.records import RecordFile
from exgra_med.data.images import ImageFolder
from exgra_med.errors import DataError, ExgraMedError, ServiceError
from exgra_med.page_style import PAGE_CSS
from exgra_med.reading import decode_json

_FILES = Path(__file__).parent / "templates"
_SIDE_PIXELS = 1000
_QUALITY = 85
"""Of a picture on the page."""
_MAX_BODY_BYTES = 32 * 1024
_TIMEOUT_SECONDS = 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Item:
    """One extended answer with the names of its pictures."""

    answer: CheckedAnswer
    images: list[str]


def choose_items(
    source: RecordFile, only_flagged: bool = False, num_sample: int | None = None, seed: int = 0
) -> list[Item]:
    """What a person looks at: all answers, the worst first; or a sample in the order of its draw.

    Args:
        only_flagged: only answers with a sign of a fault.
        num_sample: draw so many at random; the same seed gives two raters the same ones.

    Raises:
        DataError: a record is malformed, or there is nothing to review.
    """
    items = list(_items(source, only_flagged))
    if not items and only_flagged:
        raise DataError(f"{source.path}: no extended answer has a sign of a fault.")
    if not items:
        raise DataError(
            f"{source.path}: no extended answer is there.",
            "Give the output of `captions generate` or `captions compose`.",
        )
    if num_sample is not None:
        return random.Random(seed).sample(items, min(num_sample, len(items)))
    return heapq.nsmallest(len(items), items, key=lambda item: -item.answer.badness)


def _items(source: RecordFile, only_flagged: bool) -> Iterator[Item]:
    for record, answers in checked_records(source.iterate()):
        for answer in answers:
            if answer.faults or not only_flagged:
                yield Item(answer, record.images)


class Review:
    """What the page shows and stores; every method may run in any thread.

    Args:
        title: name of what is reviewed.
        images: of the pictures; none shows the texts alone.
    """

    def __init__(
        self, title: str, items: list[Item], images: ImageFolder | None, file: JudgementFile
    ) -> None:
        self.title, self.items, self.images, self.file = title, items, images, file
        self._decoding = threading.Lock()

    def overview(self) -> dict[str, Any]:
        """Name, rater, and the verdict on every answer."""
        return {
            "title": self.title,
            "rater": self.file.rater,
            "file": self.file.path.name,
            "verdicts": [self._judgement(item)["verdict"] for item in self.items],
        }

    def answer(self, number: int) -> dict[str, Any]:
        """One answer as the page shows it."""
        item = self.items[number]
        answer, extended = differences(item.answer.answer, item.answer.extended)
        return {
            "id": item.answer.id,
            "turn": item.answer.turn,
            "question": item.answer.question,
            "answer": answer,
            "extended": extended,
            "signs": [[fault.kind, fault.detail] for fault in item.answer.faults],
            "pictures": len(item.images) if self.images else 0,
            "missing": self._why_no_picture(item),
            **self._judgement(item),
        }

    def _why_no_picture(self, item: Item) -> str:
        if not item.images:
            return "This record has no picture."
        return "" if self.images else "Give --data FOLDER to see the pictures."

    def picture(self, number: int, which: int) -> bytes:
        """A picture of an answer as JPEG, without any metadata of its file.

        Raises:
            DataError: it is missing or broken.
        """
        item = self.items[number]
        if self.images is None:
            raise DataError("No folder of pictures was given.")
        with self._decoding:
            image = self.images.open(item.images[which], item.answer.id)
            image.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS))
            image.info.clear()
            stream = BytesIO()
            image.save(stream, format="JPEG", quality=_QUALITY)
            return stream.getvalue()

    def judge(self, number: int, verdict: str, note: str) -> dict[str, Any]:
        """Store a judgement; it is on the disk when this returns.

        Raises:
            DataError: no such verdict.
            WriteError: the disk is full; nothing was added.
        """
        item = self.items[number]
        place = (item.answer.id, item.answer.turn)
        self.file.add(place, item.answer.extended, verdict, note)
        return self._judgement(item)

    def _judgement(self, item: Item) -> dict[str, str]:
        found = self.file.latest.get((item.answer.id, item.answer.turn))
        if found is None or found.text != text_digest(item.answer.extended):
            return {"verdict": "", "note": ""}
        return {"verdict": found.verdict, "note": found.note}


def serve_review(review: Review, port: int, on_open: Callable[[str], None]) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C.

    Raises:
        ServiceError: the port is taken.
    """
    key = secrets.token_urlsafe(16)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(review, key))
    except OSError as error:
        raise ServiceError(
            f"127.0.0.1:{port} cannot be listened on ({error.strerror}).", "Choose another --port."
        ) from error
    server.daemon_threads = True
    with server:
        on_open(f"http://127.0.0.1:{server.server_port}/{key}/")
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return


class _RefusedError(Exception):
    """A request that is not the page's own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _handler(review: Review, key: str) -> type[BaseHTTPRequestHandler]:
    static = {
        "": ("text/html", (_FILES / "review.html").read_bytes()),
        "review.js": ("text/javascript", (_FILES / "review.js").read_bytes()),
        "review.css": ("text/css", PAGE_CSS.encode() + (_FILES / "review.css").read_bytes()),
    }

    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        timeout = _TIMEOUT_SECONDS
        server_version, sys_version = "exgra-med", ""

        def do_GET(self) -> None:
            self._guarded(self._get)

        def do_POST(self) -> None:
            self._guarded(self._post)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing of what is looked at is written down."""

        def _guarded(self, answer: Callable[[str], tuple[str, bytes]]) -> None:
            try:
                kind, body = answer(self._own_path())
                self._send(200, kind, body)
            except _RefusedError as error:
                self._send(error.status, "text/plain", str(error).encode())
            except ExgraMedError as error:
                self._send(400, "text/plain", str(error).encode("utf-8", "replace"))
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                pass  # whoever asked has left

        def _own_path(self) -> str:
            """The path behind the key, of a request that this page sent."""
            # Another site can have its name lead here (DNS rebinding), but not change this header.
            port = self.connection.getsockname()[1]
            hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
            host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
            if host not in hosts:
                raise _RefusedError(403, "This page is not served under that name.")
            if origin is not None and origin != f"http://{host}":
                raise _RefusedError(403, "Other sites may not use this page.")
            given, slash, path = self.path.removeprefix("/").partition("/")
            if not slash or not hmac.compare_digest(given.encode(), key.encode()):
                raise _RefusedError(404, "There is nothing here. Open the address that was shown.")
            return path

        def _get(self, path: str) -> tuple[str, bytes]:
            if path in static:
                return static[path]
            if path == "answers":
                return _json(review.overview())
            if match := re.fullmatch(r"answers/(\d{1,9})", path):
                return _json(review.answer(self._number(match[1])))
            if match := re.fullmatch(r"pictures/(\d{1,9})/(\d{1,4})", path):
                number, which = self._number(match[1]), int(match[2])
                if which < len(review.items[number].images):
                    return "image/jpeg", review.picture(number, which)
            raise _RefusedError(404, "There is nothing here.")

        def _post(self, path: str) -> tuple[str, bytes]:
            match = re.fullmatch(r"judgements/(\d{1,9})", path)
            length = self.headers.get("Content-Length", "")
            if not match:
                raise _RefusedError(404, "There is nothing here.")
            # A form of another site cannot send this kind without being asked for leave first.
            if self.headers.get("Content-Type") != "application/json":
                raise _RefusedError(415, "Send JSON.")
            if not length.isdecimal() or len(length) > 6 or int(length) > _MAX_BODY_BYTES:
                raise _RefusedError(413, "The request is too large.")
            text = self.rfile.read(int(length)).decode("utf-8", "replace")
            given = decode_json(text, "the request")
            verdict, note = (
                given.get(name) if isinstance(given, dict) else None for name in ("verdict", "note")
            )
            if not isinstance(verdict, str) or not isinstance(note, str):
                raise _RefusedError(400, "Send verdict and note.")
            return _json(review.judge(self._number(match[1]), verdict, note))

        def _number(self, text: str) -> int:
            if int(text) >= len(review.items):
                raise _RefusedError(404, "There is no such answer.")
            return int(text)

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header(
                "Content-Type", kind if kind == "image/jpeg" else f"{kind}; charset=utf-8"
            )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _json(value: Any) -> tuple[str, bytes]:
    text = json.dumps(value, ensure_ascii=False)
    return "application/json", text.encode("utf-8", "replace")
