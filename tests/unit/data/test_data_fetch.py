"""Fetching from servers that misbehave, and addresses that may never be fetched."""

import errno
import io
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest
from misbehaving_server import Server

from exgra_med.data.download.fetch import FetchError, FetchLimits, check_url, fetch, is_public

LIMITS = FetchLimits(
    max_bytes=100_000,
    read_timeout_seconds=0.3,
    total_seconds=5,
    num_attempts=1,
    backoff_seconds=0.01,
    allow_loopback=True,
)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolved(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


def test_a_file_arrives_also_behind_a_redirect(server: Server) -> None:
    server.routes |= {"/a": b"content", "/b": server.redirect("/a")}
    for path in ("/a", "/b"):
        target = io.BytesIO(b"something longer that was there")
        assert fetch(server.url(path), target, LIMITS) == 7
        assert target.getvalue() == b"content"


@pytest.mark.parametrize(
    "what, message, attempts",
    [
        ("absent", "the server answered 404", 1),
        ("broken", "the server answered 503", 2),
        ("hang", r"no byte for 0\.3 s", 2),
        ("cut", "the connection was cut before the end", 2),
        ("endless", "larger than 100000 bytes", 1),
        ("announced", "larger than 100000 bytes", 1),
        ("loop", "more than 5 redirects", 1),
    ],
)
def test_a_server_that_misbehaves(server: Server, what: str, message: str, attempts: int) -> None:
    server.routes |= {
        "/broken": server.status(503),
        "/hang": server.hang,
        "/cut": server.cut,
        "/endless": server.endless,
        "/announced": server.status(200, **{"Content-Length": "100001"}),
        "/loop": server.redirect("/loop"),
    }
    with pytest.raises(FetchError, match=message) as caught:
        fetch(server.url(f"/{what}"), io.BytesIO(), replace(LIMITS, num_attempts=2))
    assert caught.value.exit_code == 1
    assert len(server.asked) == (6 if what == "loop" else attempts)


def test_a_trickle_ends_at_the_total_time(server: Server) -> None:
    server.routes["/trickle"] = server.trickle
    with pytest.raises(FetchError, match=r"took longer than 0\.4 s"):
        fetch(server.url("/trickle"), io.BytesIO(), replace(LIMITS, total_seconds=0.4))


def test_a_fault_that_passes_is_tried_again(server: Server) -> None:
    server.routes["/flaky"] = server.failing_once(b"content")
    target = io.BytesIO()
    assert fetch(server.url("/flaky"), target, replace(LIMITS, num_attempts=2)) == 7
    assert target.getvalue() == b"content"


def test_a_fetch_can_be_stopped(server: Server) -> None:
    server.routes["/trickle"] = server.trickle
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(FetchError, match="stopped"):
        fetch(server.url("/trickle"), io.BytesIO(), LIMITS, stop)


def test_a_full_disk_is_not_taken_for_a_fault_of_the_connection(server: Server) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    server.routes["/a"] = b"content"
    with pytest.raises(OSError, match="No space left"):
        fetch(server.url("/a"), Full(), LIMITS)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://10.0.0.1/",
        "https://[fd00::1]/",
        "http://8.8.8.8/",
        "ftp://8.8.8.8/x",
        "file:///etc/passwd",
        "//192.168.1.1/",
        "https://user@8.8.8.8/",
        "https://0.0.0.0/",
        "https://2852039166/",
        "https://",
        "https://[",
    ],
)
def test_a_redirect_is_checked_like_the_first_url(server: Server, target: str) -> None:
    server.routes["/away"] = server.redirect(target)
    with pytest.raises(FetchError, match="refused"):
        fetch(server.url("/away"), io.BytesIO(), LIMITS)
    if target[:2] != "//":
        with pytest.raises(FetchError, match="refused"):
            fetch(target, io.BytesIO(), LIMITS)


def test_this_machine_is_refused_unless_allowed(server: Server) -> None:
    server.routes["/a"] = b"content"
    closed = replace(LIMITS, allow_loopback=False)
    for url in (server.url("/a"), "https://127.0.0.1/a", "https://localhost/a", "https://[::1]/a"):
        with pytest.raises(FetchError, match="refused"):
            fetch(url, io.BytesIO(), closed)
    assert not server.asked


def test_a_name_that_points_to_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for addresses in (["127.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "10.1.2.3"]):
        resolve_to(monkeypatch, *addresses)
        with pytest.raises(FetchError, match="not a public one"):
            check_url("https://example.org/x", allow_loopback=True)
    resolve_to(monkeypatch, "8.8.8.8")
    assert check_url("https://example.org/x", False)[1] == ("8.8.8.8", 443)


def test_the_checked_address_is_the_one_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "8.8.8.8")
    seen = []

    def connect(address: tuple[str, int], timeout: float) -> None:
        seen.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError, match=r"connection failed \(ConnectionRefusedError\)"):
        fetch("https://example.org/x", io.BytesIO(), LIMITS)
    assert seen == [("8.8.8.8", 443)]


@pytest.mark.parametrize(
    "address, expected",
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:a9fe:a9fe::1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected
