"""Attacks on services, page, uploads and addresses: each is tried, and what stops it is measured.

Every entry of the lists below is one attack. It is stopped where it is refused, bounded or
harmless, and what is asserted says which. At the end it is said how many were tried and stopped.
"""

import asyncio
import base64
import gc
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import (
    DEFLATED,
    PLAIN,
    SLOW_UPLOADS,
    UPLOADS,
    dicom,
    dicom_pixels,
    picture_as,
    png,
    tiff_of,
)
from hostile_server import (
    FAIL,
    GZIP,
    HARMLESS,
    MEGABYTE,
    STREAM_HEAD,
    STREAMS,
    Hostile,
    endless,
    http_answer,
    packed,
)

from exgra_med.data.chat_template import answer_of
from exgra_med.data.download.fetch import FetchError, check_url, is_public
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Prepared
from exgra_med.errors import DataError, ExgraMedError, ServiceError
from exgra_med.llm.budget import Price
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.request import ChatRequest, CompletionError, Sampling
from exgra_med.llm.service import ChatService, ServiceSettings


@pytest.fixture(scope="module", autouse=True)
def tried(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The attacks so far; at the end it is said how many were stopped."""
    names: list[str] = []
    before = request.session.testsfailed
    yield names
    stopped = len(names) - (request.session.testsfailed - before)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nattacks: {len(names)} tried, {stopped} stopped")


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest, tried: list[str]) -> None:
    if "no_attack" not in request.node.name and "every_list" not in request.node.name:
        tried.append(request.node.name)


# Addresses: none of these is a machine of the internet.

NO_ADDRESS = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.168.1.1 192.88.99.1 198.18.0.1 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::10.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:0:127.0.0.1
::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::10.0.0.1 64:ff9b:1::8.8.8.8
64:ff9b::192.168.0.1 100::1 2001::1 2001:0:a9fe:a9fe::1 2001:2::1 2001:10::1 2001:20::1
2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2002:808:808::1 3fff::1 3fff:fff::1 5f00::1
2606:4700::5efe:127.0.0.1 2606:4700::200:5efe:10.0.0.1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
fe80::5efe:10.0.0.1 fec0::1 fec0:0:0:ffff::1 feff::1 ff02::1 ff0e::1 4000::1 8000::1 e000::1
""".split()
SPELLINGS = """
http://8.8.8.8/ ftp://8.8.8.8/ file:///etc/passwd https:///x https://user@8.8.8.8/
https://127.1/ https://2130706433/ https://0x7f000001/ https://0177.0.0.1/ https://0x7f.1/
https://127.0.0.1:443/ https://[::1]/ https://[::ffff:7f00:1]/ https://[::127.0.0.1]/
https://0/ https://0.0.0.0/ https://localhost/ https://169.254.169.254/latest/meta-data
https://[fe80::1%25lo]/ https://8.8.8.8:99999/ https://[::1 https://8.8.8.8\t/ https://192.168.1/
""".strip("\n").replace("\n", " ").split(" ")  # fmt: skip


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_an_address_of_no_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", SPELLINGS)
def test_an_url_that_leads_into_this_network(url: str) -> None:
    with pytest.raises(FetchError):
        check_url(url, allow_loopback=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_an_address_that_is_no_attack_passes(address: str) -> None:
    assert is_public(address)


# Services: one request of three meets the attack. The others are answered, and the run goes on.


def run_of_three(url: str, seconds: float) -> tuple[list[Any], ChatService]:
    settings = ServiceSettings(
        model="m", attempts=1, timeout_seconds=seconds, max_cost=50.0, price=Price(1.0, 1.0)
    )
    made = ChatService(settings, Endpoint(url, "none"))

    async def run() -> list[Any]:
        asks = [[{"role": "user", "content": text}] for text in ("first", "attack", "last")]
        found = [await made.complete(asks[0])]
        found += await asyncio.gather(
            *(made.complete(each) for each in asks[1:]), return_exceptions=True
        )
        await made.close()
        return found

    return asyncio.run(run()), made


@pytest.fixture(scope="module")
def asked_before() -> None:
    """The client was loaded by another question, whose seconds no attack is charged with."""
    pytest.importorskip("openai")
    with Hostile(b"") as server:
        run_of_three(server.url, 60.0)


@pytest.mark.usefixtures("asked_before")
@pytest.mark.parametrize("name", FAIL)
def test_a_service_that_attacks_fails_alone(name: str) -> None:
    pytest.importorskip("openai")
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with Hostile(FAIL[name]) as server:
            (first, attacked, last), made = run_of_three(server.url, 2.0)
        assert tracemalloc.get_traced_memory()[1] < 200 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < 20
    assert first.text == last.text == "good"
    # Told, with a reason, and counted by whoever asks.
    assert isinstance(attacked, CompletionError), attacked
    assert attacked.detail and len(attacked.detail) < 1000
    assert made.usage.requests == 3
    assert made._budget is not None and 0 <= made._budget.spent < 1


@pytest.mark.parametrize("name", HARMLESS)
def test_what_a_service_says_is_bounded(name: str) -> None:
    pytest.importorskip("openai")
    begun = time.monotonic()
    with Hostile(HARMLESS[name]) as server:
        (first, attacked, last), made = run_of_three(server.url, 10.0)
    assert first.text == last.text == "good"
    assert "yes" in answer_of(attacked.text) or "yes" in attacked.text
    attacked.text.encode("utf-8")
    assert 0 <= made.usage.prompt_tokens + made.usage.completion_tokens < 1_000_000
    assert made.usage.cost is not None and 0 <= made.usage.cost < 1
    assert made._budget is not None and 0 <= made._budget.spent < 1
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_packed_reply_of_gigabytes_does_not_end_a_run() -> None:
    """The process may have 600 MB; the reply unpacks to 1.4 GB."""
    pytest.importorskip("openai")
    program = (
        "import resource, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_attacks import run_of_three\n"
        "import openai\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (600 * 2**20, 600 * 2**20))\n"
        "found, made = run_of_three(sys.argv[1], 30)\n"
        "print([getattr(each, 'text', type(each).__name__) for each in found])\n"
    )
    with Hostile(http_answer(packed(1400), "200 OK", GZIP)) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=200,
        )
    assert done.stdout.strip() == "['good', 'CompletionError', 'good']", done.stderr[-2000:]


# Streams: an answer that a person waits for.


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_attacks_ends_in_time(name: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openai")
    from exgra_med.llm.openai_transport import stream_reply

    attack, expected = STREAMS[name]
    request = ChatRequest("m", [{"role": "user", "content": "attack"}], Sampling(5))
    # What lives already is not looked at again below.
    gc.freeze()
    # Most streams that fail would never end.
    seconds = 1.5 if expected is not None else 0.5
    begun, said = time.monotonic(), []
    with Hostile(attack) as server:
        try:
            for text, _ in stream_reply(Endpoint(server.url, "none"), request, seconds):
                said.append(text)
            assert expected is not None, "an error was expected"
        except ServiceError as error:
            assert expected is None, error
    assert time.monotonic() - begun < 15
    text = "".join(said)
    text.encode("utf-8")
    assert expected is None or text == expected
    assert len(text) < 2_000_000
    gc.collect()
    gc.unfreeze()
    assert not [each for each in caplog.records if each.name == "asyncio"]


def test_a_visitor_can_stop_a_server_that_is_silent() -> None:
    pytest.importorskip("openai")
    from exgra_med.data.records import Turn
    from exgra_med.web.chat_models import ServedChatModel
    from exgra_med.web.limits import Limits

    with Hostile(lambda: endless(STREAM_HEAD, b": ping\n\n", 0.05)) as server:
        model = ServedChatModel("m", Endpoint(server.url, "none"), Limits())
        pieces = model.answer([], [Turn(role="user", text="attack")], Sampling(5))
        # A piece without a word: whoever drives the answer may leave now.
        assert next(pieces).text == ""
        pieces.close()  # pyrefly: ignore


def test_an_answer_in_single_characters_is_read_in_time() -> None:
    from exgra_med.web import chat_models

    begun = time.process_time()
    steps = list(chat_models._in_growing_steps(("x", None) for _ in range(20_000)))
    assert "".join(text for text, _ in steps) == "x" * 20_000 and len(steps) < 1000
    assert time.process_time() - begun < 5


# The page on real sockets, with a stub behind its access control.


async def stub(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        got = await receive()
        body += got.get("body", b"")
        if not got.get("more_body"):
            break
    seen = {"client": scope["client"][0], "scheme": scope["scheme"], "size": len(body)}
    seen["headers"] = sorted(name.decode("latin-1") for name, _ in scope["headers"])
    told = json.dumps(seen).encode()
    if scope["path"] == "/theme.css":
        told = bytes(8 * MEGABYTE)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


class Page:
    """A page that runs in a thread."""

    def __init__(self, **settings: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn", reason="the page needs the extra [web]")
        from exgra_med.web.access import AccessControl
        from exgra_med.web.connections import bounded_protocol
        from exgra_med.web.limits import Limits
        from exgra_med.web.server import LOCAL_HOSTS

        limits = settings.pop("limits", Limits(max_upload_megabytes=1, max_request_kilobytes=1))
        shares = not settings.get("proxies")
        control = AccessControl(stub, limits, **{"hosts": LOCAL_HOSTS, **settings})
        config = uvicorn.Config(
            control, http=bounded_protocol(limits, shares), ws="none", log_level="critical",
            lifespan="off", proxy_headers=False, limit_concurrency=limits.max_connections + 1,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        work = self.server.serve(sockets=[self.listener])
        self.thread = threading.Thread(target=lambda: asyncio.run(work), daemon=True)

    def __enter__(self) -> "Page":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)
        self.listener.close()

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10, source_address=(source, 0))

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes | None = None, *,
        source: str = "127.0.0.1", **headers: str,
    ) -> tuple[int, bytes]:  # fmt: skip
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return self.send(method, path, given, body, source)

    def send(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None = None,
        source: str = "127.0.0.1",
    ) -> tuple[int, bytes]:  # fmt: skip
        names = {name.lower() for name, _ in headers}
        lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
        lines += [] if "host" in names else [f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
        with self.connect(source) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
            answer = http.client.HTTPResponse(connection)
            try:
                answer.begin()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError):
                return 0, b""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    from exgra_med.web.limits import Limits

    limits = Limits(max_upload_megabytes=1, max_request_kilobytes=1, requests_per_minute=100_000)
    with Page(limits=limits) as running:
        yield running


JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
PATHS = r"""
/../../etc/passwd /%2e%2e/%2e%2e/etc/passwd /assets/../../../etc/passwd
/assets/%2e%2e/%2e%2e/etc/passwd /assets/..%2f..%2fetc/passwd /assets/%252e%252e/etc/passwd
/assets/..\..\etc\passwd /assets/..%5c..%5cetc /assets//etc/passwd /static/.%2e/x /svelte/../x
/assets/%00 /assets/a%00.js /assets/a%0d%0aset-cookie:%20a=b /assets/%c0%ae%c0%ae/passwd
/assets/%ff /gradio_api/file=/etc/passwd /gradio_api/file=..%2f..%2fetc%2fpasswd /file=/etc/passwd
/gradio_api/file=https://example.org/x.png /gradio_api/proxy=http://169.254.169.254/
/gradio_api/stream/a/b/c/playlist.m3u8 /gradio_api/component_server /gradio_api/info
/gradio_api/queue/status /gradio_api/call/answer /gradio_api/deep_link /gradio_api/mcp/sse
/gradio_api/runs /monitoring /docs /openapi.json /login /token /.env /.git/config /config/../.env
/gradio_api/heartbeat/a/b /gradio_api/heartbeat/..%2f..%2fx /health/../config //health /Health
/custom_component/a /gradio_api/file/etc/passwd /gradio_api/run/a/../../x /gradio_api/upload/../x
""".split()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_elsewhere(page: Page, path: str) -> None:
    for method, body in (("GET", None), ("POST", b"{}")):
        assert page.send(method, path, [], body)[0] in (0, 400, 404)


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("another host", [("Host", "evil.example")]),
        ("a host that begins like ours", [("Host", "127.0.0.1.evil.example")]),
        ("a host with a user", [("Host", "evil.example@localhost")]),
        ("no host", [("Host", "")]),
        ("two hosts", [("Host", "127.0.0.1"), ("Host", "evil.example")]),
        ("two hosts, turned", [("Host", "evil.example"), ("Host", "127.0.0.1")]),
        ("a host of brackets", [("Host", "[::1")]),
        ("a host with a path", [("Host", "localhost/evil")]),
        ("another name for zero", [("Host", "0.0.0.0")]),
        ("a host in digits", [("Host", "2130706433")]),
        ("another origin", [("Origin", "http://evil.example")]),
        ("a null origin", [("Origin", "null")]),
        ("an origin that begins like ours", [("Origin", "http://127.0.0.1.evil.example")]),
        ("an origin of another port", [("Origin", "http://127.0.0.1:1")]),
        ("an empty origin", [("Origin", "")]),
        ("an extension", [("Origin", "chrome-extension://abc")]),
        ("a negative length", [("Content-Length", "-1")]),
        ("a length of words", [("Content-Length", "many")]),
        ("a length of 5000 digits", [("Content-Length", "9" * 5000)]),
        ("two lengths", [("Content-Length", "2"), ("Content-Length", "200")]),
        ("an unknown coding", [("Transfer-Encoding", "gzip")]),
        ("a header of 1 MB", [("X-Long", "a" * MEGABYTE)]),
        ("40,000 headers", [(f"X-{number}", "a") for number in range(40_000)]),
        ("a header with a NUL", [("X-Nul", "a\0b")]),
        ("a space before the colon", [("X-Space ", "a")]),
    ],
)  # fmt: skip
def test_a_request_with_headers_that_attack(
    page: Page, name: str, headers: list[tuple[str, str]]
) -> None:
    assert page.send("POST", JOIN, headers, b"{}")[0] in (0, 400, 403, 413, 431, 501), name


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_a_method_that_is_not_there(page: Page, method: str) -> None:
    assert page.send(method, "/", [])[0] in (0, 400, 404)


@pytest.mark.parametrize(
    ("path", "size"), [(JOIN, 2000), (UPLOAD, 2 * MEGABYTE), ("/gradio_api/run/x", 2000)]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_beyond_its_limit(page: Page, path: str, size: int, is_chunked: bool) -> None:
    body, headers = bytes(size), []
    if is_chunked:
        body = f"{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        headers = [("Transfer-Encoding", "chunked")]
    assert page.send("POST", path, headers, body)[0] in (0, 413)


@pytest.mark.parametrize("cookie", ["a=b", "session=" + "x" * 5000, "access-token=admin", "\xff=1"])
def test_a_cookie_opens_nothing(cookie: str) -> None:
    from exgra_med.web.access import Login

    with Page(login=Login("ana", "right")) as locked:
        assert locked.ask(cookie=cookie)[0] == 401


@pytest.mark.parametrize("path", ["/", "/gradio_api/queue/join", "/ws", "/gradio_api/heartbeat/a"])
def test_a_websocket_is_not_opened(page: Page, path: str) -> None:
    headers = [
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Origin", "http://evil.example"),
    ]  # fmt: skip
    assert page.send("GET", path, headers)[0] in (400, 403, 404, 426)


def test_two_requests_in_one_are_checked_both(page: Page) -> None:
    good = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n"
    bad = f"GET /file=/etc/passwd HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
    with page.connect() as connection:
        connection.sendall((good + bad + "Connection: close\r\n\r\n").encode())
        said = b""
        while block := connection.recv(65536):
            said += block
    assert said.count(b"200 OK") == 1 and said.count(b"404 Not Found") == 1


def basic(password: str, name: str = "ana") -> dict[str, str]:
    words = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {words}"}


def client_of(answer: tuple[int, bytes]) -> str:
    return json.loads(answer[1])["client"]


FORWARDED = [
    ("1.2.3.4", "1.2.3.4"), ("9.9.9.9, 1.2.3.4", "1.2.3.4"), ("9.9.9.9,1.2.3.4 ", "1.2.3.4"),
    ("9.9.9.9, 1.2.3.4:5678", "1.2.3.4"), ("[2001:db8::7]:80", "2001:db8::"),
    ("2001:db8::7", "2001:db8::"), ("::ffff:1.2.3.4", "1.2.3.4"), ("", "127.0.0.1"),
    ("unknown", "127.0.0.1"), ("1.2.3.4, ", "127.0.0.1"), ("1.2.3.4, <script>", "127.0.0.1"),
    ("1.2.3.4, " + "9" * 5000, "127.0.0.1"), ("999.1.1.1", "127.0.0.1"), ("1.2.3.4\t", "1.2.3.4"),
]  # fmt: skip


@pytest.fixture(scope="module")
def proxied() -> Iterator[Page]:
    with Page(proxies=1, hosts=None) as running:
        yield running


@pytest.mark.parametrize(("value", "client"), FORWARDED)
def test_only_what_the_proxy_wrote_is_the_client(proxied: Page, value: str, client: str) -> None:
    assert client_of(proxied.ask(X_Forwarded_For=value)) == client


@pytest.mark.parametrize(("value", "_"), FORWARDED)
def test_without_a_proxy_nobody_is_believed(page: Page, value: str, _: str) -> None:
    status, told = page.ask(X_Forwarded_For=value, X_Real_IP=value, Forwarded=f"for={value}",
                            X_Forwarded_Host="evil.example", X_Forwarded_Proto="https")  # fmt: skip
    if status == 200:
        seen = json.loads(told)
        assert seen["client"] == "127.0.0.1" and seen["scheme"] == "http"
        assert not [each for each in seen["headers"] if "forwarded" in each or "real" in each]
    else:
        assert status == 400


def test_a_second_header_of_the_visitor_is_not_believed(proxied: Page) -> None:
    headers = [("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-For", "1.2.3.4")]
    assert client_of(proxied.send("GET", "/", headers)) == "1.2.3.4"


def test_hops_are_counted_from_the_right() -> None:
    with Page(proxies=2, hosts=None) as behind_two:
        assert client_of(behind_two.ask(X_Forwarded_For="9.9.9.9, 1.2.3.4, 10.0.0.1")) == "1.2.3.4"
        # Whoever goes round the proxies has not passed them.
        assert client_of(behind_two.ask(X_Forwarded_For="9.9.9.9")) == "127.0.0.1"


def test_guessing_ends_even_with_the_right_password() -> None:
    from exgra_med.web.access import Login
    from exgra_med.web.limits import WRONG_PASSWORDS

    with Page(login=Login("ana", "right")) as locked:
        assert locked.ask(**basic("right"))[0] == 200
        guesses = [locked.ask(**basic(f"wrong {n}"))[0] for n in range(WRONG_PASSWORDS + 3)]
        assert guesses == [401] * WRONG_PASSWORDS + [429] * 3
        assert [locked.ask(**basic("right"))[0] for _ in range(3)] == [429] * 3
        # Another address is not locked out for it.
        assert locked.ask(source="127.0.0.9", **basic("right"))[0] == 200


def test_guessing_behind_other_addresses_is_counted_as_one() -> None:
    from exgra_med.web.access import Login
    from exgra_med.web.limits import WRONG_PASSWORDS

    with Page(login=Login("ana", "right"), proxies=1, hosts=None) as locked:
        for number in range(WRONG_PASSWORDS):
            answer = locked.ask(X_Forwarded_For=f"9.9.9.{number}, 1.2.3.4", **basic("wrong"))
            assert answer[0] == 401
        last = locked.ask(X_Forwarded_For="8.8.8.8, 1.2.3.4", **basic("right"))
        assert last[0] == 429


def test_one_network_of_ipv6_is_one_visitor() -> None:
    from exgra_med.web.access import Login
    from exgra_med.web.limits import WRONG_PASSWORDS

    with Page(login=Login("ana", "right"), proxies=1, hosts=None) as locked:
        for number in range(WRONG_PASSWORDS):
            locked.ask(X_Forwarded_For=f"2001:db8::{number + 1}", **basic("wrong"))
        assert locked.ask(X_Forwarded_For="2001:db8::ffff", **basic("right"))[0] == 429
        assert locked.ask(X_Forwarded_For="2001:db8:0:1::1", **basic("right"))[0] == 200


def test_a_lock_opens_after_a_while_and_not_before() -> None:
    from exgra_med.web.limits import Lockout

    now = [0.0]
    lockout = Lockout(3, 60, lambda: now[0])
    for _ in range(3):
        assert not lockout.is_locked("a")
        lockout.add("a")
    assert lockout.is_locked("a") and not lockout.is_locked("b")
    now[0] = 59.9
    assert lockout.is_locked("a")
    now[0] = 60.1
    assert not lockout.is_locked("a")
    lockout.add("a")
    assert not lockout.is_locked("a")
    for number in range(10_000):
        lockout.add(str(number))
    assert len(lockout._wrong) == 4096


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic", "Basic ", "Basic %", "Basic YW5hOnJpZ2h1", "Bearer YW5hOnJpZ2h0",
        "Basic " + base64.b64encode(b"ana:right\n").decode(), "Basic " + "A" * 50_000,
        "Basic " + base64.b64encode(b"ana").decode(), "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"ANA:right").decode(), "Digest username=ana",
        "Basic " + base64.b64encode(b"ana:right\0").decode(), "Basic YW5hOnJpZ2h0, Basic a",
    ],
)  # fmt: skip
def test_what_is_no_password_opens_nothing(header: str) -> None:
    from exgra_med.web.access import Login

    assert not Login("ana", "right").matches(header)


# Connections.


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        while connection.recv(65536):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HT"])
def test_half_open_connections_keep_nobody_out(begin: bytes) -> None:
    with Page() as crowded:
        half = [crowded.connect() for _ in range(300)]
        for each in half:
            each.sendall(begin)
        # The address of the attack, and another one.
        assert crowded.ask("/health")[0] == 200
        assert crowded.ask("/health", source="127.0.0.7")[0] == 200
        assert len(crowded.server.server_state.connections) <= 64 + 2
        for each in half:
            each.close()


def test_half_open_connections_of_many_addresses_keep_nobody_out() -> None:
    with Page() as crowded:
        half = [crowded.connect(f"127.0.1.{n % 200 + 1}") for n in range(600)]
        assert crowded.ask("/health", source="127.0.0.7")[0] == 200
        assert len(crowded.server.server_state.connections) <= 257
        for each in half:
            each.close()


def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exgra_med.web.connections.HEAD_SECONDS", 0.5)
    with Page() as slow, slow.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        time.sleep(2.5)
        assert is_closed(connection)


def test_a_second_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exgra_med.web.connections.HEAD_SECONDS", 0.5)
    with Page() as slow, slow.connect() as connection:
        whole = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{slow.port}\r\n\r\n".encode()
        connection.sendall(whole)
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(whole[:20])
        time.sleep(2.5)
        assert is_closed(connection)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exgra_med.web.access._BODY_SECONDS", 0.5)
    with Page() as slow:
        headers = [("Content-Length", "100")]
        assert slow.send("POST", JOIN, headers, b"{")[0] == 408


def test_an_answer_that_is_not_taken_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exgra_med.web.connections.UNREAD_SECONDS", 0.5)
    with Page() as slow, slow.connect() as connection:
        connection.sendall(
            f"GET /theme.css HTTP/1.1\r\nHost: 127.0.0.1:{slow.port}\r\n\r\n".encode()
        )
        deadline = time.monotonic() + 10
        while slow.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not slow.server.server_state.connections


# Uploads, in the process that decodes them.


@pytest.fixture(scope="module")
def decoder() -> Iterator[Any]:
    from exgra_med.web.isolated_pictures import PictureProcess

    process = PictureProcess(16_000_000)
    # Started by a picture that is none, so that no attack is charged with it.
    with pytest.raises(DataError):
        process.read(b"")
    yield process
    process.close()


def grown_megabytes(process: Any) -> int:
    """The most that a process ever held; of one that was ended, nothing."""
    running = process._process
    if running is None or sys.platform != "linux":
        return 0
    status = Path(f"/proc/{running.pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if "VmHWM" in line)


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_that_attacks_is_refused(decoder: Any, name: str) -> None:
    content = UPLOADS[name]()
    before = grown_megabytes(decoder)
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with pytest.raises(DataError) as caught:
            decoder.read(content)
        assert tracemalloc.get_traced_memory()[1] < 40 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < 60
    assert grown_megabytes(decoder) - before < 500
    assert len(str(caught.value)) < 500


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_UPLOADS)
def test_an_upload_that_costs_much_is_bounded(decoder: Any, name: str) -> None:
    content = SLOW_UPLOADS[name]()
    begun = time.monotonic()
    # A fast machine decodes some of them within the seconds that a picture may take.
    with suppress(DataError):
        decoder.read(content)
    assert time.monotonic() - begun < 60
    assert grown_megabytes(decoder) < 1600
    # The next visitor is served.
    assert decoder.read(picture_as("PNG")).size == (8, 8)


def test_a_picture_that_is_no_attack_is_decoded(decoder: Any) -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        assert decoder.read(picture_as(kind)).size == (8, 8)
    # Its pages go in a circle; it has one.
    assert decoder.read(tiff_of(8, 8, after=8)).size == (8, 8)
    for syntax in (PLAIN, DEFLATED):
        content = dicom(dicom_pixels(4, 2, bytes(range(0, 160, 20))), syntax)
        assert np.asarray(decoder.read(content))[3, 1].tolist() == [140] * 3
    # Metadata and what follows the pixels are not kept.
    assert decoder.read(picture_as("PNG") + b"<script>1</script>").info == {}


def test_a_decoder_that_is_ended_is_started_anew(decoder: Any) -> None:
    decoder._process.kill()
    decoder._process.wait()
    assert decoder.read(picture_as("PNG")).size == (8, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_that_nobody_thought_of_is_not_given() -> None:
    program = (
        "from exgra_med.web.isolated_pictures import limit_process\n"
        "limit_process(1_000_000)\n"
        "try: bytearray(2**30)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == "refused\n"


# Names and links of pictures.

NAMES = [
    "../secret.png", "a/../../secret.png", "/etc/passwd", "..", "", "a\0.png", "..\\secret.png",
    "C:\\secret.png", "file:///etc/passwd", "http://169.254.169.254/a.png", "\\\\host\\a.png",
    "data:image/png;base64,AA", "./../secret.png", "a/./../../secret.png", "x" * 5000,
    "link.png", "folder/secret.png", "circle.png", "folder/../link.png", "device.png",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "images"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture_as("PNG"))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "circle.png").symlink_to("circle.png")
    (root / "device.png").symlink_to("/dev/zero")
    with pytest.raises(DataError):
        ImageFolder(root, 1000).open(name)


@pytest.mark.parametrize("link", ["absolute", "relative", "of a link", "to the root"])
def test_an_image_folder_that_is_a_link(tmp_path: Path, link: str) -> None:
    inside, outside = tmp_path / "data", tmp_path / "private"
    for folder in (inside, outside):
        folder.mkdir()
    (outside / "a.png").write_bytes(picture_as("PNG"))
    (tmp_path / "other").symlink_to(outside)
    target = {
        "absolute": outside, "relative": Path("../private"), "of a link": tmp_path / "other",
        "to the root": Path("/"),
    }[link]  # fmt: skip
    (inside / "images").symlink_to(target)
    name = str(outside / "a.png").lstrip("/") if link == "to the root" else "a.png"
    with pytest.raises(DataError, match="is a link that leaves its folder"):
        Prepared(inside, {}, "").image_folder(1000).open(name)


def test_a_data_folder_that_is_a_link_itself_is_no_attack(tmp_path: Path) -> None:
    (tmp_path / "data" / "real").mkdir(parents=True)
    (tmp_path / "data" / "real" / "a.png").write_bytes(picture_as("PNG"))
    (tmp_path / "data" / "images").symlink_to("real")
    (tmp_path / "mine").symlink_to(tmp_path / "data")
    folder = Prepared(tmp_path / "mine", {}, "").image_folder(1000)
    assert folder.open("a.png").size == (8, 8)


# Requests to `serve`.


class Echo:
    """Stands for the model: says what it was asked, or fails as that does."""

    pictures_behind = True

    def stream(self, question: Any) -> Iterator[Any]:
        from exgra_med.model.served_app import Piece

        said = question.turns[-1].text
        if "fail" in said:
            raise DataError("The question is too long.")
        yield Piece(f"{said} {len(question.images)}", 1, 1, "length")


def served(body: Any, path: str = "/v1/chat/completions", method: str = "POST") -> tuple[int, Any]:
    from exgra_med.model.served_app import ServedApp

    sent: list[dict[str, Any]] = []
    content = [body if isinstance(body, bytes) else json.dumps(body).encode()]

    async def receive() -> dict[str, Any]:
        if not content:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": content.pop(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(ServedApp(Echo(), "m")(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def chat(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def shown(url: Any) -> dict[str, Any]:
    return chat([{"type": "image_url", "image_url": {"url": url}}])


def as_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


REQUESTS: list[tuple[str, Callable[[], Any]]] = [
    ("a picture by http", lambda: shown("http://127.0.0.1/a.png")),
    ("a picture by https", lambda: shown("https://example.org/a.png")),
    ("a picture by path", lambda: shown("/etc/passwd")),
    ("a picture by file", lambda: shown("file:///etc/passwd")),
    ("a picture by a relative path", lambda: shown("../a.png")),
    ("a picture of no text", lambda: shown(5)),
    ("a picture of text", lambda: shown("data:text/html;base64,PGI+")),
    ("a picture without base64", lambda: shown("data:image/png,abc")),
    ("a picture of wrong base64", lambda: shown("data:image/png;base64,%%%")),
    ("a picture of a gigapixel", lambda: shown(as_url(png(65_000, 65_000)))),
    ("a picture that is an SVG", lambda: shown(as_url(b"<svg/>", "svg+xml"))),
    ("a picture that is a GIF", lambda: shown(as_url(picture_as("GIF"), "gif"))),
    ("a picture that is cut", lambda: shown(as_url(picture_as("PNG")[:40]))),
    ("a video", lambda: chat([{"type": "video_url", "video_url": {"url": "/etc/passwd"}}])),
    ("an unknown part", lambda: chat([{"type": "file", "file": "/etc/passwd"}])),
    ("a part of another kind", lambda: chat([7])),
    ("content of another kind", lambda: chat({"a": 1})),
    ("no messages", lambda: {"model": "m"}),
    ("empty messages", lambda: {"model": "m", "messages": []}),
    ("messages of another kind", lambda: {"model": "m", "messages": "hello"}),
    ("a role that is none", lambda: {"messages": [{"role": "root", "content": "a"}]}),
    ("no JSON", lambda: b"{oh"),
    ("a list", lambda: b"[1]"),
    ("deep JSON", lambda: b"[" * 500_000),
    ("a body beyond the limit", lambda: b" " * (65 * MEGABYTE)),
    ("another model", lambda: chat() | {"model": "other"}),
    ("a model of another kind", lambda: chat() | {"model": {"a": 1}}),
    ("no tokens", lambda: chat(max_tokens=0)),
    ("1e400 tokens", lambda: chat(max_tokens=10**400)),
    ("tokens in words", lambda: chat(max_tokens="many")),
    ("true tokens", lambda: chat(max_tokens=True)),
    ("a temperature of NaN", lambda: chat(temperature=float("nan"))),
    ("a temperature below zero", lambda: chat(temperature=-1)),
    ("top_p of two", lambda: chat(top_p=2)),
    ("a thousand answers", lambda: chat(n=1000)),
    ("stop of another kind", lambda: chat(stop=5)),
    ("a thousand stops", lambda: chat(stop=["a"] * 1000)),
    ("stops of another kind", lambda: chat(stop=[["a"]])),
    ("what the model cannot read", lambda: chat("fail")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "request_of"), REQUESTS, ids=[name for name, _ in REQUESTS])
def test_a_request_that_cannot_be_answered_says_why(
    name: str, request_of: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    status, value = served(request_of())
    assert status in (400, 404, 413), name
    assert 5 < len(value["error"]["message"]) < 300
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    "/load_model /reset /v1/completions /v1/responses /v1/systemone /v1/audio/transcriptions"
    " /docs /openapi.json / /v1 /v1/models/../../etc/passwd /v1/files".split(),
)
def test_an_address_that_other_servers_have_is_closed(path: str) -> None:
    for method in ("GET", "POST"):
        assert served(chat(), path, method)[0] == 404


def test_a_request_that_is_no_attack_is_answered() -> None:
    status, value = served(chat("hello END more", stop="END"))
    assert (status, value["model"]) == (200, "m")
    assert value["choices"][0]["message"]["content"] == "hello "
    assert value["choices"][0]["finish_reason"] == "stop"
    status, value = served(shown(as_url(picture_as("JPEG"), "jpeg")))
    assert status == 200 and value["choices"][0]["message"]["content"] == "<image> 1"
    assert served(None, "/v1/models", "GET")[1]["data"][0]["id"] == "m"
    assert served(None, "/v1/models/m", "GET")[1]["id"] == "m"
    assert served(None, "/v1/models/n", "GET")[0] == 404


def test_every_list_is_long_enough() -> None:
    lists = (NO_ADDRESS, SPELLINGS, FAIL, HARMLESS, STREAMS, PATHS, UPLOADS, NAMES, REQUESTS)
    assert sum(map(len, lists)) > 300
    assert issubclass(CompletionError, ExgraMedError)
