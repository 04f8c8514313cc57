"""The control alone: what it lets through, what it refuses, what it says on the way out."""

import asyncio
import base64
from typing import Any

import pytest

from exgra_med.web.access import AccessControl, Login
from exgra_med.web.limits import Limits
from exgra_med.web.server import LOCAL_HOSTS

LIMITS = Limits(max_upload_megabytes=1, max_request_kilobytes=1, requests_per_minute=1000)
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


async def page(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body and answers with its length."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = [(b"content-type", b"text/plain"), (b"X-Frame-Options", b"ALLOWALL")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


def make_control(**settings: Any) -> AccessControl:
    return AccessControl(page, settings.pop("limits", LIMITS), **{"hosts": LOCAL_HOSTS} | settings)


def ask(
    control: AccessControl,
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: tuple[bytes, ...] = (b"",),
    kind: str = "http",
) -> tuple[int, dict[str, str], str]:
    given = {"host": "127.0.0.1:7860"} | (headers or {})
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "client": ("10.0.0.1", 5),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    parts = list(body)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(control(scope, receive, send))
    if kind != "http":
        return sent[0]["code"], {}, sent[0]["type"]
    found = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    assert len(found) == len(sent[0]["headers"]), "a header came twice"
    return sent[0]["status"], found, b"".join(m["body"] for m in sent[1:]).decode()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css",
        "/health",
        "/assets/index-a_b.js",
        "/static/js/a.min.js",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/abc123",
    ],
)
def test_what_the_page_needs_is_open(path: str) -> None:
    assert ask(make_control(), path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=https://example.org/x.png",
        "/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=https://a.hf.space/",
        "/monitoring",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/docs",
        "/gradio_api/mcp/sse",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/custom_component/a",
        "/assets/../../../etc/passwd",
        "/assets/..",
        "/static/.%2e/x",
        "/assets/a\\..\\b",
        "/assets//a",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/login",
        "/token",
        "/gradio_api/call/answer",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_else_is_not_there(path: str, method: str) -> None:
    status, _, text = ask(make_control(), path, method)
    assert (status, text) == (404, "There is nothing here.")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_not_there(method: str) -> None:
    assert ask(make_control(), "/", method)[0] == 404


def test_sockets_are_closed() -> None:
    assert ask(make_control(), kind="websocket") == (1008, {}, "websocket.close")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost", 200),
        ("[::1]:7860", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("localhost.", 403),
        ("[::1", 403),
        ("[localhost]", 403),
        ("evil.example@localhost", 403),
        ("localhost:7860@evil.example", 403),
        ("localhost:7860/", 403),
        ("localhost:", 403),
    ],
)
def test_a_page_of_this_machine_has_no_other_name(host: str, status: int) -> None:
    assert ask(make_control(), headers={"host": host})[0] == status


def test_a_public_page_has_any_name() -> None:
    assert ask(make_control(hosts=None), headers={"host": "demo.example"})[0] == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        ("https://my.example", 200),
    ],
)
def test_other_sites_send_nothing(origin: str, status: int) -> None:
    control = make_control(origins=["https://my.example"])
    got, headers, _ = ask(control, JOIN, "POST", {"origin": origin})
    assert got == status
    assert "access-control-allow-origin" not in headers


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize("path", ["/", "/assets/index.js", "/health", JOIN])
def test_a_login_guards_everything(path: str) -> None:
    control = make_control(login=Login("ana", "sésame:1"))
    method = "POST" if path == JOIN else "GET"
    assert ask(control, path, method, basic("ana:sésame:1"))[0] == 200
    for wrong in ({}, basic("ana:sesame"), basic("ana"), {"authorization": "Basic %"}):
        status, headers, _ = ask(control, path, method, wrong)
        assert status == 401 and headers["www-authenticate"].startswith("Basic")


def test_passwords_cannot_be_tried_fast() -> None:
    control = make_control(login=Login("ana", "x"), limits=Limits(requests_per_minute=5))
    statuses = [ask(control, "/", headers=basic("ana:y"))[0] for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2


def test_too_many_requests_are_refused_and_reading_is_not_counted() -> None:
    control = make_control(limits=Limits(requests_per_minute=3))
    assert [ask(control, "/assets/a.js")[0] for _ in range(9)] == [200] * 9
    assert [ask(control, JOIN, "POST")[0] for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    ("path", "limit"), [(JOIN, 1024), (UPLOAD, 2**20 + 64 * 1024)], ids=["join", "upload"]
)
def test_a_body_ends_at_its_limit_whatever_its_header_says(path: str, limit: int) -> None:
    control = make_control()
    assert ask(control, path, "POST", body=(b"x" * limit,))[2] == str(limit)
    assert ask(control, path, "POST", {"content-length": str(limit + 1)})[0] == 413
    half = b"x" * (limit // 2 + 1)
    assert ask(control, path, "POST", body=(half, half))[0] == 413
    assert ask(control, path, "POST", {"content-length": "many"})[0] == 413


def test_uploads_wait_where_the_disk_is_full_of_them() -> None:
    control = make_control(has_disk_space=lambda: False)
    assert ask(control, UPLOAD, "POST")[0] == 503
    assert ask(control, JOIN, "POST")[0] == 200


def test_headers_close_what_browsers_leave_open() -> None:
    for path in ("/", "/nothing"):
        _, headers, _ = ask(make_control(), path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy
        assert "img-src 'self' data: blob:" in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers and "x-powered-by" not in headers
    assert "cache-control" not in ask(make_control(), "/assets/a.js")[1]


def test_a_frame_is_allowed_by_name() -> None:
    headers = ask(make_control(frames=["https://huggingface.co"]))[1]
    assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "ALLOWALL"  # what the page itself says is left
