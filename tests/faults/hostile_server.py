"""A server that attacks whoever asks it, on real sockets, and what it sends."""

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from exgra_med.llm.exchange import MAX_REPLY_BYTES

MEGABYTE = 2**20


def message(content: Any, **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": content}}
    return json.dumps({"choices": [choice], **more}).encode()


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    if not any(each.startswith("content-type") for each in headers):
        head.insert(1, "content-type: application/json")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Iterator[bytes]:
    yield head
    while True:
        yield piece
        if pause:
            time.sleep(pause)


@cache
def packed(plain_megabytes: int) -> bytes:
    pack = zlib.compressobj(1, wbits=31)
    parts = [pack.compress(bytes(MEGABYTE)) for _ in range(plain_megabytes)]
    return b"".join(parts) + pack.flush()


def usage(text: str) -> bytes:
    return http_answer(message("yes")[:-1] + b', "usage": ' + text.encode() + b"}")


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
OPEN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
GZIP = "content-encoding: gzip"
Bytes = bytes | Callable[[], Iterator[bytes]]

FAIL: dict[str, Bytes] = {
    "a gzip bomb": lambda: iter([http_answer(packed(64), "200 OK", GZIP)]),
    "a gzip bomb as an error": lambda: iter([http_answer(packed(64), "500 Oh", GZIP)]),
    "a gzip bomb as a refusal": lambda: iter([http_answer(packed(64), "400 Bad", GZIP)]),
    "a gzip bomb in x-gzip": lambda: iter(
        [http_answer(packed(64), "200 OK", "content-encoding: x-gzip")]
    ),
    "packed twice": lambda: iter([http_answer(gzip.compress(packed(64)), "200 OK", GZIP)]),
    "packed twice by name": http_answer(b"\x1f\x8b", "200 OK", "content-encoding: gzip, gzip"),
    "brotli": http_answer(b"\x0b\x02\x80", "200 OK", "content-encoding: br"),
    "zstd": http_answer(b"(\xb5/\xfd", "200 OK", "content-encoding: zstd"),
    "broken gzip": http_answer(b"\x1f\x8b\x08\0nothing at all", "200 OK", GZIP),
    "gzip that is cut": http_answer(gzip.compress(message("yes"))[:-20], "200 OK", GZIP),
    "unpacked by its charset": http_answer(
        zlib.compress(bytes(MEGABYTE)), "200 OK", "content-type: application/json; charset=zlib"
    ),
    "a body beyond the limit": http_answer(b" " * (MAX_REPLY_BYTES + 1)),
    "a body without end": lambda: endless(OPEN_HEAD, b" " * 65536),
    "a drip without end": lambda: endless(OPEN_HEAD, b" ", 0.05),
    "a head without end": lambda: endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", 0.01),
    "a header without end": lambda: endless(b"HTTP/1.1 200 OK\r\na: ", b"b" * 65536),
    "interim answers without end": lambda: endless(b"", b"HTTP/1.1 102 Wait\r\n\r\n", 0.01),
    "silence": lambda: endless(b"", b"", 0.1),
    "a closed connection": b"",
    "half a status": b"HTTP/1.",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "a length that lies": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + message("yes"),
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n" + message("yes"),
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\n12345",
    "broken chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "no content": b"HTTP/1.1 204 No\r\n\r\n",
    "a redirect": http_answer(b"", "302 Found", "location: http://169.254.169.254/"),
    "a web page": http_answer(b"<html>log in</html>", "200 OK", "content-type: text/html"),
    "UTF-16": http_answer(message("yes").decode().encode("utf-16")),
    "deep brackets": http_answer(b"[" * 1_000_000),
    "deep objects": http_answer(b'{"a":' * 200_000),
    "deep in the answer": http_answer(b'{"choices": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "a number of 5000 digits": http_answer(b'{"choices": ' + b"9" * 5000 + b"}"),
    "not JSON": http_answer(b"\xff\xfe\xfd"),
    "choices of another kind": http_answer(b'{"choices": {"0": 1}}'),
    "a message of another kind": http_answer(b'{"choices": [{"message": [1]}]}'),
    "an answer of another kind": http_answer(message({"a": 1})),
    "two million characters": http_answer(message("x" * 2_000_000)),
    "thoughts of two million": http_answer(
        b'{"choices": [{"message": {"content": "a", "reasoning": "' + b"b" * 2_000_000 + b'"}}]}'
    ),
    "an error of many words": http_answer(
        json.dumps({"error": [[f"e{n}" for n in range(20)]] * 20_000}).encode(), "500 Oh"
    ),
    "an error of long words": http_answer(b'{"error": "' + b"a" * MEGABYTE + b'"}', "400 Bad"),
    "a wait of no number": http_answer(b"{}", "503 Wait", "retry-after: nan"),
    "a wait without end": http_answer(b"{}", "503 Wait", "retry-after: inf"),
    "a wait of 400 digits": http_answer(b"{}", "503 Wait", "retry-after: " + "9" * 400),
    "a wait before time": http_answer(b"{}", "503 Wait", "retry-after: Mon, 01 Jan 0001 00:00:00"),
    "a wait in 5000 digits": http_answer(
        b'{"error": "try again in ' + b"9" * 5000 + b'm1s"}', "500 Oh"
    ),
}  # fmt: skip
BILLION = "0" * 20
HARMLESS: dict[str, bytes] = {
    "1e20 tokens": usage(f'{{"prompt_tokens": 1{BILLION}, "completion_tokens": 1{BILLION}}}'),
    "1e400 tokens": usage('{"prompt_tokens": 1' + "0" * 400 + "}"),
    "1e400 as a float": usage('{"completion_tokens": 1e400}'),
    "NaN tokens": usage('{"prompt_tokens": NaN, "completion_tokens": NaN}'),
    "endless tokens": usage('{"prompt_tokens": Infinity, "completion_tokens": -Infinity}'),
    "-1000 tokens": usage('{"prompt_tokens": -1000, "completion_tokens": -1000}'),
    "tokens in words": usage('{"prompt_tokens": "many", "completion_tokens": [1]}'),
    "true tokens": usage('{"prompt_tokens": true, "completion_tokens": {}}'),
    "usage in words": usage('"much"'),
    "a cost of 1e400": usage('{"cost": 1' + "0" * 400 + "}"),
    "a cost of NaN": usage('{"cost": NaN}'),
    "a cost below nothing": usage('{"cost": -1000}'),
    "a cost of 1e308": usage('{"cost": 1e308}'),
    "a cost of 1e20": usage('{"cost": 100000000000000000000}'),
    "a cost in words": usage('{"cost": "1e9"}'),
    "half a surrogate": http_answer(rb'{"choices": [{"message": {"content": "yes \ud83d"}}]}'),
    "the other half": http_answer(rb'{"choices": [{"message": {"content": "\ude00 yes"}}]}'),
    "half a byte sequence": http_answer(b'{"choices": [{"message": {"content": "yes \xe2\x82"}}]}'),
    "bytes of no encoding": http_answer(b'{"choices": [{"message": {"content": "\xff\xc0 yes"}}]}'),
    "a mark of byte order": http_answer(b"\xef\xbb\xbf" + message("yes")),
    "another charset": http_answer(
        message("yes"), "200 OK", "content-type: application/json; charset=bz2"
    ),
    "NUL and bells": http_answer(message("yes\0\7\x1b[2J")),
    "gzip that was not asked for": http_answer(gzip.compress(message("yes")), "200 OK", GZIP),
    "thoughts without end": http_answer(message("<think>" * 100_000 + "</think>yes")),
    "details without end": http_answer(message("yes" + "<details reasoning>" * 40_000)),
}


class Hostile:
    """A server that answers what it is told, byte by byte, on real sockets.

    A question with `attack` in it gets the attack, any other one a good answer.
    """

    def __init__(self, attack: Bytes) -> None:
        self.attack = attack
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "Hostile":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.listener.close()

    def _serve(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            read = b""
            while b"\r\n\r\n" not in read:
                if not (block := connection.recv(65536)):
                    return
                read += block
            head, _, body = read.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            while len(body) < length:
                body += connection.recv(65536)
            said = self.attack if b"attack" in body else http_answer(message("good"))
            try:
                for piece in [said] if isinstance(said, bytes) else said():
                    if self.ended.is_set():
                        return
                    connection.sendall(piece)
            except OSError:
                return


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def piece(content: Any, **more: Any) -> bytes:
    return event({"choices": [{"delta": {"content": content}, "finish_reason": None, **more}]})


def raw_piece(content: bytes) -> bytes:
    return event(b'{"choices": [{"delta": {"content": "' + content + b'"}}]}')


END = piece("", finish_reason="stop") + b"data: [DONE]\n\n"
STREAMS: dict[str, tuple[Bytes, str | None]] = {
    # What is left of the text; None where the stream is an error.
    "an endless line": (lambda: endless(STREAM_HEAD, b"data: " + b"x" * 65536), None),
    "a line that drips": (lambda: endless(STREAM_HEAD + b"data: ", b"x", 0.02), None),
    "pings without end": (lambda: endless(STREAM_HEAD, b": ping\n\n", 0.01), None),
    "a storm of pings": (lambda: endless(STREAM_HEAD, b": ping\n\n" * 4096), None),
    "empty lines": (lambda: endless(STREAM_HEAD, b"\n" * 65536), None),
    "empty words": (lambda: endless(STREAM_HEAD, piece("")), None),
    "words without end": (lambda: endless(STREAM_HEAD, piece("word ")), None),
    "thoughts without end": (lambda: endless(STREAM_HEAD, piece("<think>")), None),
    "silence behind a word": (lambda: endless(STREAM_HEAD + piece("a"), b"", 0.1), None),
    "a packed storm": (lambda: iter([http_answer(packed(64), "200 OK", GZIP)]), None),
    "no JSON": (STREAM_HEAD + event(b"{oh"), None),
    "deep JSON": (STREAM_HEAD + event(b"[" * 500_000), None),
    "an error": (STREAM_HEAD + event({"error": {"message": "oh"}}), None),
    "a redirect": (http_answer(b"", "307 Go", "location: http://169.254.169.254/"), None),
    "choices of another kind": (STREAM_HEAD + event({"choices": 5}) + END, ""),
    "a choice of another kind": (STREAM_HEAD + event({"choices": [[1]]}) + END, ""),
    "no object": (STREAM_HEAD + event([1, 2]) + event(7) + END, ""),
    "words of another kind": (STREAM_HEAD + piece({"a": 1}) + piece(5) + END, ""),
    "a surrogate in halves": (
        STREAM_HEAD + raw_piece(rb"a\ud83d") + raw_piece(rb"\ude00b") + END, "a😀b",
    ),
    "half a surrogate": (STREAM_HEAD + raw_piece(rb"a\ud83d") + piece("b") + END, "a\ufffdb"),
    "half a surrogate at the end": (STREAM_HEAD + raw_piece(rb"a\ud83d") + END, "a\ufffd"),
    "bytes in halves": (STREAM_HEAD + raw_piece(b"\xe2\x82") + raw_piece(b"\xac!") + END, "€!"),
    "half the bytes": (STREAM_HEAD + raw_piece(b"a\xe2\x82") + piece("b") + END, "a\ufffdb"),
    "bytes of no encoding": (STREAM_HEAD + raw_piece(b"a\xff\xc0") + END, "a\ufffd\ufffd"),
    "words behind the end": (STREAM_HEAD + piece("a") + END + piece("b"), "a"),
    "other fields": (STREAM_HEAD + b"id: 1\nretry: 9\nevent: x\n" + piece("a") + END, "a"),
    "old line ends": (STREAM_HEAD + (piece("a") + END).replace(b"\n", b"\r\n"), "a"),
}  # fmt: skip
