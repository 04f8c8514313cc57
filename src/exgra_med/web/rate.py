"""How often one address may ask: a bucket that refills evenly."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 4096
"""Addresses that are remembered; the one that was longest silent is forgotten first."""


class ClientRate:
    """A bucket for each address: full at first, one taken by each request, refilled evenly.

    Args:
        per_minute: size of the bucket, and what flows in within a minute.
        clock: seconds; for tests.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, client: str) -> float:
        """Take one from the bucket of an address.

        Returns:
            0 where there was one, else the seconds until there is.
        """
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(client, (float(self.per_minute), now))
            left = min(self.per_minute, left + (now - since) * self.per_minute / 60)
            wait = 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
            self._buckets[client] = (left - 1 if wait == 0 else left, now)
            while len(self._buckets) > _MOST_CLIENTS:
                self._buckets.popitem(last=False)
            return wait
