"""The attack list against the live page and its API."""

import json
import socket
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_page import HOSTILE

pytestmark = pytest.mark.browser
SECRET = "Grandmother's-left-hip-0815"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/static/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%5c..%5cetc/passwd",
        "/custom_component/1/server/component/..%2f..%2fetc%2fpasswd",
        "/theme.css/../../etc/passwd",
    ],
)
def test_no_path_leaves_the_page(live: Any, path: str) -> None:
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert b"404" in answer.split(b"\r\n")[0], answer[:80]
    assert b"root:" not in answer


@pytest.mark.parametrize("kind", ["file=", "proxy=", "stream/"])
def test_no_remote_picture_is_fetched(live: Any, kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        assert live.request(f"/gradio_api/{kind}{url}")[0] == 404
        with pytest.raises(TimeoutError):
            listener.accept()


def call(live: Any, num_inputs: int, outputs: int, data: list[Any], session: str) -> str:
    """Join the queue for the first function with so many inputs and outputs; all its events."""
    config = json.loads(live.request("/config")[2])
    number = next(
        each["id"]
        for each in config["dependencies"]
        if (len(each["inputs"]), len(each["outputs"])) == (num_inputs, outputs)
    )
    body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
    status, _, raw = live.request("/gradio_api/queue/join", body, content_type="application/json")
    if status != 200:
        return raw.decode()
    return live.request(f"/gradio_api/queue/data?session_hash={session}")[2].decode()


SAMPLE = Path(__file__).resolve().parents[2] / "src/exgra_med/data/samples/vqa-rad-sample/images"
PICTURE = str(next(SAMPLE.glob("*.jpg")))
"""Of this machine, and no upload."""


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../etc/passwd", "http://{address}/a.png", PICTURE]
)
def test_an_upload_cannot_be_a_path_or_an_address(live: Any, path: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(2)
        path = path.format(address=f"127.0.0.1:{listener.getsockname()[1]}")
        file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        for files in (file, [file]):
            events = call(live, 2, 8, [None, files], uuid.uuid4().hex)
            assert "root:" not in events and "data:image/jpeg" not in events
        with pytest.raises(TimeoutError):
            listener.accept()
    assert Path("/etc/passwd").exists(), "nothing but uploads is ever deleted"


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "runs/../..", "C:\\x"])
def test_a_run_cannot_be_a_path(live: Any, name: str) -> None:
    events = call(live, 5, 6, [name, "any", "any", "any", "any"], uuid.uuid4().hex)
    assert "root:" not in events
    assert "not in the list of choices" in events or '"success":false' in events.replace(" ", "")
    assert "root:" not in call(live, 2, 1, [name, [name]], uuid.uuid4().hex)


def test_what_a_model_writes_is_text(
    visit: Callable[..., Any], words: Any, keep_picture: Callable[..., None]
) -> None:
    """`visit` fails on any dialog and any request to another machine."""
    words.say(HOSTILE[:40], HOSTILE[40:])
    page = visit()
    page.fill("#question textarea", HOSTILE)
    page.click("#send")
    page.wait_for_selector("#status >> text=The answer is complete")
    page.wait_for_timeout(500)
    assert page.locator("#conversation .reply").nth(1).locator(".text").inner_text() == HOSTILE
    assert page.locator("#conversation .asked").inner_text().endswith(HOSTILE)
    for tag in ("img", "script", "a", "strong", "b", "iframe"):
        assert page.locator(f"#conversation {tag}").count() == 0
    assert page.evaluate("window.stolen") is None
    keep_picture(page, "hostile-answer")


def test_an_upload_over_the_limit_is_refused(live: Any, visit: Callable[..., Any]) -> None:
    big = b"\x89PNG\r\n\x1a\n" + b"0" * (3 * 2**20)
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        kind = "multipart/form-data; boundary=x"
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        connection.sendall(
            f"{head}Content-Length: {len(big)}\r\nContent-Type: {kind}\r\n\r\n".encode()
        )
        assert b" 413 " in connection.recv(100)
    assert not live.uploads()
    page = visit()
    page.set_input_files(
        "#upload input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": big}
    )
    page.get_by_text("maximum allowed size").first.wait_for()
    assert page.locator("#picture img").count() == 0


def test_a_long_body_without_a_length_is_cut(live: Any) -> None:
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(
            b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(64):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            pass  # refused while it was sent
        connection.settimeout(20)
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or b" 413 " in answer


def test_fifty_requests_at_once(live: Any, words: Any) -> None:
    live.ask_over_http("warm", uuid.uuid4().hex)
    words.say("one ", "two ", "three", pause_seconds=0.15)
    before = live.resident_megabytes
    most = [before]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most[0] = max(most[0], live.resident_megabytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(50) as pool:
        found = list(
            pool.map(lambda n: live.ask_over_http(f"question {n}", uuid.uuid4().hex), range(50))
        )
    ended.set()
    watcher.join()
    answered = [events for status, events in found if status == 200]
    refused = [text for status, text in found if status == 503]
    assert len(answered) + len(refused) == 50
    # The queue holds 16 besides those that are being answered.
    assert 16 <= len(answered) < 50 and "Queue is full" in refused[0]
    assert all(
        "one two three" in events and "The answer is complete" in events for events in answered
    )
    assert words.num_asked == len(answered) and words.most_at_once == 1
    assert most[0] - before < 150, "megabytes"
    assert live.request("/health")[0] == 200


def test_nothing_of_what_is_asked_is_in_logs_or_files(
    live: Any, words: Any, visit: Callable[..., Any]
) -> None:
    words.say(f"{SECRET}-answer")
    page = visit()
    page.set_input_files(
        "#upload input[type=file]",
        {"name": f"{SECRET}.png", "mimeType": "image/png", "buffer": b"broken"},
    )
    page.wait_for_selector("#problem [role=alert]")
    page.fill("#question textarea", f"{SECRET}?")
    page.click("#send")
    page.wait_for_selector("#status >> text=The answer is complete")
    live.ask_over_http(f"{SECRET} \x00 over http", uuid.uuid4().hex)
    call(live, 10, 7, [None, SECRET, "words", *[SECRET] * 7], uuid.uuid4().hex)
    call(live, 10, 7, [SECRET], uuid.uuid4().hex)
    assert SECRET not in live.output + live.votes.read_text()
    assert not [p for p in live.uploads() if SECRET in p.name or SECRET.encode() in p.read_bytes()]


def test_headers_and_origins(live: Any) -> None:
    status, headers, _ = live.request("/")
    assert status == 200
    names = {name.lower(): value for name, value in headers.items()}
    assert names["x-frame-options"] == "DENY" and names["x-content-type-options"] == "nosniff"
    assert "server" not in names and "set-cookie" not in names
    assert "access-control-allow-origin" not in names
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        status, headers, _ = live.request("/config", origin=origin)
        assert status == 403
        assert "access-control-allow-origin" not in {name.lower() for name in headers}
    assert live.request("/", host="evil.example")[0] == 403
    assert live.request("/", origin=live.url)[0] == 200


def test_the_page_listens_to_this_machine_alone(live: Any) -> None:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    addresses = {a.split(":")[0] for a in listening if int(a.split(":")[1], 16) == live.port}
    assert addresses == {"0100007F"}


def test_the_api_is_not_described(live: Any) -> None:
    config = json.loads(live.request("/config")[2])
    assert {each["api_visibility"] for each in config["dependencies"]} == {"private"}
    assert not [path for path in ("/gradio_api/info", "/docs", "/openapi.json")
                if live.request(path)[0] != 404]  # fmt: skip


def test_login_and_the_end_of_the_process(
    words: Any, tmp_path: Path, browser: Any, live: Any
) -> None:
    from live_page import LivePage

    secret = {"EXGRA_MED_WEB_PASSWORD": "open-sesame"}
    page = LivePage(tmp_path / "login", words.model, "--login", "ana", **secret)
    try:
        assert page.request("/")[0] == page.request("/config")[0] == 401
        credentials = {"username": "ana", "password": "open-sesame"}
        context = browser.new_context(http_credentials=credentials)
        opened = context.new_page()
        opened.goto(page.url)
        opened.wait_for_selector("#send")
        words.say("fine")
        opened.fill("#question textarea", "What?")
        opened.click("#send")
        opened.wait_for_selector("#status >> text=The answer is complete")
        context.close()
    finally:
        code = page.close()
    assert code == 128 + 15
    assert not list(page.temporary.glob("exgra-med-web-*")), "the private folder is gone"
    assert "open-sesame" not in page.output
