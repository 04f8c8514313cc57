"""The one place that fetches a URL: https, public addresses, and limits on size and time.

Every host, redirects included, is resolved once; the address that was checked is the one that is
connected to, so a name cannot point elsewhere in between. Proxies of the environment are not used.
"""

import errno
import functools
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO
from urllib.parse import SplitResult, urljoin, urlsplit

from exgra_med import __version__
from exgra_med.errors import ServiceError

BLOCK_BYTES = 2**16
_INTERNET = ipaddress.ip_network("2000::/3")
"""All that IANA has given out of IPv6; what lies outside is this network, or nowhere."""
_NO_INTERNET = tuple(
    ipaddress.ip_network(text)
    for text in (
        "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "192.88.99.0/24",  # relays of 6to4
    )
)
"""Ways into other networks, and made-up addresses. What Python says of them differs by version."""
_IPV4_INSIDE = tuple(ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96"))
"""IPv4 mapped, and NAT64 for machines without IPv4. The last 32 bits are the address."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Bits 64 to 95 of an address behind which an IPv4 address of any network stands."""


@dataclass(frozen=True)
class FetchLimits:
    """What a fetch may cost.

    Args:
        max_bytes: of one file; the largest article package has some hundred megabytes.
        read_timeout_seconds: without a byte, after which an attempt is given up.
        total_seconds: of one attempt.
        num_attempts: where the fault is transient: no answer, cut off, server errors.
        backoff_seconds: before the second attempt; doubled each time.
        max_redirects: followed, each checked anew.
        allow_loopback: also fetch http from this machine, for a mirror of one's own.
    """

    max_bytes: int = 2**30
    read_timeout_seconds: float = 30
    total_seconds: float = 900
    num_attempts: int = 3
    backoff_seconds: float = 1
    max_redirects: int = 5
    allow_loopback: bool = False


class FetchError(ServiceError):
    """A URL could not be fetched; `is_transient`: another attempt could help."""

    def __init__(self, message: str, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


def fetch(
    url: str, target: IO[bytes], limits: FetchLimits, stop: threading.Event | None = None
) -> int:
    """Fetch a file, in several attempts where the fault is transient.

    Args:
        target: an open binary file; what a failed attempt wrote is cut off.
        stop: when set by another thread, the fetch ends as failed.

    Returns:
        The number of bytes.

    Raises:
        FetchError: refused, not found, too large, too slow, or cut off in the last attempt.
    """
    stop = stop or threading.Event()
    for attempt in range(1, limits.num_attempts + 1):
        target.seek(0)
        target.truncate()
        try:
            return _attempt(url, target, limits, stop)
        except FetchError as error:
            if not error.is_transient or attempt == limits.num_attempts or stop.is_set():
                raise
        stop.wait(limits.backoff_seconds * 2 ** (attempt - 1))
    raise FetchError("no attempt was allowed")


def _attempt(url: str, target: IO[bytes], limits: FetchLimits, stop: threading.Event) -> int:
    late = threading.Event()
    for _ in range(limits.max_redirects + 1):
        parts, address = check_url(url, limits.allow_loopback)
        try:
            with _request(parts, address, limits, late) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    try:
                        url = urljoin(url, answer.getheader("Location") or "")
                    except ValueError as error:
                        raise FetchError("refused: a redirect to no URL") from error
                    continue
                if answer.status != 200:
                    is_transient = answer.status >= 500 or answer.status in (408, 429)
                    raise FetchError(f"the server answered {answer.status}", is_transient)
                return _copy(answer, target, limits, late, stop)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                # Of the target, not of the connection.
                raise
            raise _failure(error, late, limits) from error
    raise FetchError(f"more than {limits.max_redirects} redirects")


def _failure(error: Exception, late: threading.Event, limits: FetchLimits) -> FetchError:
    if late.is_set():
        return FetchError(f"took longer than {limits.total_seconds:g} s", is_transient=True)
    if isinstance(error, TimeoutError):
        return FetchError(f"no byte for {limits.read_timeout_seconds:g} s", is_transient=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError("the certificate is not valid")
    return FetchError(f"the connection failed ({type(error).__name__})", is_transient=True)


def check_url(url: str, allow_loopback: bool) -> tuple[SplitResult, tuple[str, int]]:
    """Split a URL and resolve its host to an address that may be connected to.

    Raises:
        FetchError: not https, a user name in it, an unknown host, or an address that is not
            public: private, link-local, this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise FetchError("refused: not a URL") from error
    if not host or parts.username is not None or any(c <= " " or c == "\x7f" for c in url):
        raise FetchError("refused: not a plain https URL")
    is_loopback = False
    if allow_loopback:
        try:
            is_loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_loopback = host == "localhost"
    if parts.scheme != "https" and not (is_loopback and parts.scheme == "http"):
        raise FetchError(f"refused: only https is fetched, not {parts.scheme!r}")
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError("the host is unknown", is_transient=True) from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not (is_public(address) or (is_loopback and ipaddress.ip_address(address).is_loopback)):
            raise FetchError("refused: the address is not a public one")
    return parts, (addresses[0], port)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet; an IPv4 address inside an IPv6 one decides.

    >>> [is_public(each) for each in ("8.8.8.8", "2606:4700::1", "64:ff9b::8.8.8.8")]
    [True, True, True]
    >>> [is_public(each) for each in ("10.0.0.1", "::7f00:1", "64:ff9b::10.0.0.1", "fec0::1")]
    [False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in _IPV4_INSIDE):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _INTERNET or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
            return False
    is_special = any(ip in network for network in _NO_INTERNET if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not is_special


@contextmanager
def _request(
    parts: SplitResult, address: tuple[str, int], limits: FetchLimits, late: threading.Event
) -> Iterator[http.client.HTTPResponse]:
    """One request on one connection, which a timer cuts when it takes too long."""
    host, is_secure = parts.hostname or "", parts.scheme == "https"
    plug: socket.socket | None = None

    def cut() -> None:
        late.set()
        if plug is not None:
            with suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limits.total_seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        plug = socket.create_connection(address, limits.read_timeout_seconds)
        if is_secure:
            plug = _context().wrap_socket(plug, server_hostname=host)
        kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
        connection = kind(host, address[1])
        connection.sock = plug
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        agent = f"exgra-med/{__version__}"
        headers = {"User-Agent": agent, "Accept-Encoding": "identity", "Connection": "close"}
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as answer:
            yield answer
    finally:
        timer.cancel()
        if plug is not None:
            plug.close()


@functools.cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _copy(
    answer: http.client.HTTPResponse,
    target: IO[bytes],
    limits: FetchLimits,
    late: threading.Event,
    stop: threading.Event,
) -> int:
    announced = answer.length
    if announced is not None and announced > limits.max_bytes:
        raise FetchError(f"larger than {limits.max_bytes} bytes")
    size = 0
    while block := answer.read1(BLOCK_BYTES):
        if stop.is_set():
            raise FetchError("stopped")
        size += len(block)
        if size > limits.max_bytes:
            raise FetchError(f"larger than {limits.max_bytes} bytes")
        target.write(block)
    if late.is_set():
        raise FetchError(f"took longer than {limits.total_seconds:g} s", is_transient=True)
    if announced is not None and size != announced:
        raise FetchError("the connection was cut before the end", is_transient=True)
    return size
