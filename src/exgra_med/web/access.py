"""Middleware in front of the page: login, host, origin, routes, sizes, rates, security headers.

Plain ASGI, so that it is tested without Gradio. Gradio has more routes than the page needs: files
by path, a proxy, remote addresses, an API description. Only the routes of the page are open; every
other one is answered with 404.
"""

import asyncio
import base64
import binascii
import hmac
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from exgra_med.web.limits import (
    MEGABYTE,
    WRONG_PASSWORDS,
    Limits,
    Lockout,
    RateLimiter,
    visitor,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SEGMENT = r"[A-Za-z0-9_.~-]+"
_OPEN = {
    "GET": re.compile(
        rf"/|/(?:config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|health)"
        rf"|/(?:assets|static|svelte)(?:/{_SEGMENT})+"
        rf"|/gradio_api/(?:queue/data|upload_progress|startup-events|app_id|heartbeat/{_SEGMENT})"
    ),
    "POST": re.compile(rf"/gradio_api/(?:queue/join|upload|cancel|reset|run/{_SEGMENT})"),
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]+)?")
"""Name and port of a `Host` header."""
_UPLOAD, _JOIN = "/gradio_api/upload", "/gradio_api/queue/join"
_FORWARDED = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9a-fA-F:.]+)")
"""An address in `X-Forwarded-For`, with or without a port."""
_OF_PROXIES = re.compile(rb"x-forwarded-.*|x-real-ip|forwarded", re.IGNORECASE)
_UPLOAD_SECONDS, _BODY_SECONDS = 300, 20
"""From the head of a request to the end of its body: 20 MB over a slow line, and what is small."""
_MULTIPART_BYTES = 64 * 1024
"""What a form adds to its file."""
_NOTHING_STORED = (b"cache-control", b"no-store")


class _RefusedError(Exception):
    """A request went over a limit while its body was read."""


@dataclass(frozen=True)
class Login:
    """Name and password that every request must send."""

    name: str
    password: str

    def matches(self, header: str) -> bool:
        """Whether an `Authorization` header holds both; takes as long for each that is wrong."""
        kind, _, value = header.partition(" ")
        try:
            given = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        # Digests have one length, which a comparison of the words themselves would tell.
        wanted = f"{self.name}:{self.password}".encode()
        digests = (hmac.digest(_KEY, words, "sha256") for words in (given, wanted))
        return hmac.compare_digest(*digests) and kind.lower() == "basic"


_KEY = secrets.token_bytes(32)
"""Of this process."""


class AccessControl:
    """ASGI middleware around the page.

    Args:
        hosts: names the page may be asked by; None for any. Keeps other sites from reaching a page
            on this machine under a name of theirs (DNS rebinding).
        origins: sites that may send requests beside the page's own, as `https://NAME`.
        frames: sites that may show the page in a frame.
        login: required of every request; None lets everybody in.
        proxies: how many stand before the page, each of which adds the address that it saw to
            `X-Forwarded-For`. Further to the left in that header stands what a visitor wrote.
        has_disk_space: whether another upload may be written to disk.
        num_waiting: how many questions of an address wait.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        *,
        hosts: Sequence[str] | None,
        origins: Sequence[str] = (),
        frames: Sequence[str] = (),
        login: Login | None = None,
        proxies: int = 0,
        has_disk_space: Callable[[], bool] = lambda: True,
        num_waiting: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self.app, self.limits = app, limits
        self.hosts, self.origins, self.login = hosts, origins, login
        self.proxies, self.has_disk_space, self.num_waiting = proxies, has_disk_space, num_waiting
        self._rate = RateLimiter(limits.requests_per_minute)
        most_wrong = min(WRONG_PASSWORDS, limits.requests_per_minute)
        self._lockout = Lockout(most_wrong, 60 * limits.locked_minutes)
        self._under_way: Counter[str] = Counter()
        self._headers = list(_security_headers(frames).items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page, or refuse it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        client, kept = self._client(scope), list(scope["headers"])
        if not self.proxies:
            # Written by the visitor, and Gradio would believe them.
            kept = [each for each in kept if not _OF_PROXIES.fullmatch(each[0])]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in kept}
        # Behind a proxy with TLS, the addresses in the page begin with https, too.
        is_secure = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"
        scheme = "https" if is_secure else scope.get("scheme", "http")
        scope = {**scope, "client": (client, 0), "headers": kept, "scheme": scheme}
        answered = self._with_headers(send, str(scope["path"]))
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(answered, *refusal)
            return
        self._under_way[client] += 1
        try:
            await self._pass_on(scope, receive, answered)
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    async def _pass_on(self, scope: Scope, receive: Receive, answered: Send) -> None:
        """Let the page answer, while size and time of the body are watched."""
        left, started, ended = self._body_bytes(scope), False, False
        refusal: tuple[int, str] | None = None
        until = time.monotonic() + (_UPLOAD_SECONDS if scope["path"] == _UPLOAD else _BODY_SECONDS)

        async def limited() -> Message:
            # Read no further than the limit, whatever the Content-Length said.
            nonlocal left, ended, refusal
            if ended:
                # Nothing but the end of the connection may come now, and that may take its time.
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                refusal = 408, "The request took too long."
                raise _RefusedError from None
            left -= len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if left < 0:
                refusal = 413, "The request is too large."
                raise _RefusedError
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if refusal and not started:
                # The form parser would turn the error into an answer of its own.
                raise _RefusedError
            started = True
            await answered(message)

        try:
            await self.app(scope, limited, watched)
        except _RefusedError:
            if refusal and not started:
                await _answer(answered, *refusal)

    def _client(self, scope: Scope) -> str:
        """The address of a visitor, as the nearest machine that can be believed saw it."""
        seen = scope["client"][0] if scope.get("client") else ""
        values = [
            value.decode("latin-1")
            for name, value in scope["headers"]
            if name.lower() == b"x-forwarded-for"
        ]
        hops = ",".join(values).split(",")
        if 0 < self.proxies <= len(hops):
            found = _FORWARDED.fullmatch(hops[-self.proxies].strip())
            written = next(filter(None, found.groups()), "") if found else ""
            return visitor(written) or visitor(seen)
        return visitor(seen)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        method, path = scope["method"], str(scope["path"])
        client = scope["client"][0]
        host = headers.get("host", "")
        # Not starlette's TrustedHostMiddleware: versions that Gradio 6 allows cut `[::1]:7860` at
        # its first colon, and it knows no Origin, which is checked against the same header below.
        found = _HOST.fullmatch(host)
        name = found[1].strip("[]").lower() if found else ""
        if self.hosts is not None and name not in self.hosts:
            return 403, "This page is not served under that name."
        if method == "HEAD":
            method = "GET"
        origin = headers.get("origin")
        own = {f"http://{host}", f"https://{host}", *self.origins}
        if origin is not None and origin not in own:
            return 403, "Other sites may not use this page."
        if self.login is not None:
            # Before the password is looked at: who is locked out learns nothing of the right one.
            if self._lockout.is_locked(client):
                return 429, "Too many wrong passwords. Try again later."
            given = headers.get("authorization", "")
            if not self.login.matches(given):
                # A browser asks once without a password.
                if given:
                    self._lockout.add(client)
                return 401, "Name and password, please."
        if self._under_way[client] >= self.limits.max_address_connections:
            return 429, "Too many requests at once."
        if method not in _OPEN or not _OPEN[method].fullmatch(path) or ".." in path:
            return 404, "There is nothing here."
        if method == "POST" and self._rate.wait_seconds(client):
            return 429, "Too many requests. Wait a little."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._body_bytes(scope):
            return 413, "The request is too large."
        if path == _JOIN and self.num_waiting(client) >= self.limits.max_address_queue:
            return 429, "Too many questions of this address wait. Wait a little."
        if path == _UPLOAD and not self.has_disk_space():
            return 503, "Too many uploads wait. Try again in a minute."
        return None

    def _body_bytes(self, scope: Scope) -> int:
        if scope["path"] == _UPLOAD:
            return self.limits.max_upload_megabytes * MEGABYTE + _MULTIPART_BYTES
        return self.limits.max_request_kilobytes * 1024

    def _with_headers(self, send: Send, path: str) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = list(self._headers)
                if not path.startswith(("/assets/", "/static/")):
                    ours.append(_NOTHING_STORED)
                names = {name for name, _ in ours}
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if name.lower() not in names
                ]
                message["headers"] = [*kept, *ours]
            await send(message)

        return wrapped


def _security_headers(frames: Sequence[str]) -> dict[bytes, bytes]:
    ancestors = " ".join(["'self'", *frames]) if frames else "'none'"
    policy = "; ".join(
        (
            "default-src 'none'",
            # Gradio's page has inline scripts, and evaluates the fixed template of its HTML part.
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "manifest-src 'self'",
            "worker-src 'self' blob:",
            "base-uri 'self'",
            "form-action 'self'",
            f"frame-ancestors {ancestors}",
        )
    )
    headers = {
        b"content-security-policy": policy.encode(),
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
        b"permissions-policy": b"camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
    }
    if not frames:
        headers[b"x-frame-options"] = b"DENY"
    return headers


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="exgra-med", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
