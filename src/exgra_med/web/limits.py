"""Limits of the page, each with its unit in its name and its reason below; a rate limiter."""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from exgra_med.errors import RecipeError

MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the page; `--option NAME=VALUE` sets one."""

    max_upload_megabytes: int = 20
    """Of one upload, all its files together: a radiograph has up to 20; more is a series or a
    mistake."""
    max_pictures: int = 16
    """Of one conversation: 16 are 4,096 visual tokens, more than most models here can read."""
    max_pixels: int = 16_000_000
    """Width times height, refused before decoding: 4000 x 4000, or 48 MB in memory."""
    max_held_megabytes: int = 256
    """Decoded pictures of all visitors together; the least recently used picture is dropped
    first."""
    forget_after_minutes: int = 60
    """A picture that nobody asked about for so long is deleted."""
    max_waiting_upload_megabytes: int = 128
    """Uploads on disk that are not decoded yet, all visitors together."""
    max_prompt_characters: int = 4000
    """Of one question."""
    max_new_tokens: int = 512
    """Of one answer; a longer one keeps everybody else waiting."""
    max_answer_characters: int = 20_000
    """Of one answer of a server, whose tokens are not counted here."""
    max_turns: int = 20
    """Questions of one conversation."""
    max_seconds_per_answer: int = 300
    """Of one model; a slower answer is cut, and the page says so."""
    max_queue: int = 16
    """Requests that wait; further ones are refused."""
    max_address_queue: int = 8
    """Of these, those of one address: a page that opens has four, and others want to ask, too."""
    answers_at_once: int = 1
    """Answers that are written at the same time: one fills a GPU, or two cores."""
    questions_per_minute: int = 20
    """Of one address."""
    requests_per_minute: int = 240
    """Of one address: uploads, filters and questions together."""
    max_request_kilobytes: int = 256
    """Of a request that is no upload."""
    locked_minutes: int = 15
    """So long an address is locked out that gave `WRONG_PASSWORDS` wrong passwords within that
    time; the right one does not open it sooner."""
    max_connections: int = 256
    """Open at the same time. Where there are more, the oldest that asks for nothing is closed."""
    max_address_connections: int = 64
    """Of these, those of one address: ten browsers behind one."""


WRONG_PASSWORDS = 10
"""A person who forgot a password tries fewer; a machine gets a thousand a day."""


def with_limits(assignments: Sequence[str]) -> Limits:
    """Limits with some of them set, by `name=value` each.

    Raises:
        RecipeError: not an assignment, no limit of that name, or no positive whole number.
    """
    known = [field.name for field in fields(Limits)]
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in known:
            raise RecipeError(f"There is no limit {assignment!r}.", f"Known: {', '.join(known)}.")
        if not value.isdecimal() or len(value) > 18 or int(value) < 1:
            raise RecipeError(f"The limit {name} is a whole number above 0, not {value!r}.")
        values[name] = int(value)
    return Limits(**values)


_MOST_CLIENTS = 4096
"""Addresses that are remembered; the least recent one is dropped first."""


def visitor(address: str) -> str:
    """The address under which limits count a visitor.

    Whoever has one address of IPv6 has a whole network of 64 bits, so that network is counted.

    >>> visitor("192.0.2.1"), visitor("2001:db8::1"), visitor("::ffff:192.0.2.1")
    ('192.0.2.1', '2001:db8::', '192.0.2.1')
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ipaddress.IPv6Address(int(ip) >> 64 << 64)
    return str(ip)


class RateLimiter:
    """A token bucket for each address: full at first, one taken by a request, refilled evenly."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, client: str) -> float:
        """Take one from the bucket of an address; returns the seconds until there is one, or 0."""
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(client, (float(self.per_minute), now))
            left = min(self.per_minute, left + (now - since) * self.per_minute / 60)
            wait = 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
            self._buckets[client] = (left - 1 if wait == 0 else left, now)
            while len(self._buckets) > _MOST_CLIENTS:
                self._buckets.popitem(last=False)
            return wait


class Lockout:
    """Wrong passwords of each address; after a number of them it is locked out for a while."""

    def __init__(
        self,
        most_wrong: int,
        locked_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_wrong, self.locked_seconds = most_wrong, locked_seconds
        self._clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def is_locked(self, client: str) -> bool:
        """Whether an address may not even try."""
        wrong = self._wrong.get(client, [])
        # The last one locks; those before it have grown old together with it.
        return len(wrong) >= self.most_wrong and self._clock() - wrong[-1] < self.locked_seconds

    def add(self, client: str) -> None:
        """Count a wrong password."""
        now = self._clock()
        wrong = self._wrong.pop(client, [])
        if len(wrong) >= self.most_wrong:
            wrong = []
        self._wrong[client] = [*(at for at in wrong if now - at < self.locked_seconds), now]
        while len(self._wrong) > _MOST_CLIENTS:
            self._wrong.popitem(last=False)
