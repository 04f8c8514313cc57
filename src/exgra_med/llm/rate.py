"""Limits of a service in requests and tokens a minute, kept by pacing."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class RateLimit:
    """Lets requests start no faster than both limits allow, evenly spread.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit; counts the estimate made before a request.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self.seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next_request = 0.0
        self._next_token = 0.0

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may start."""
        now = self._clock()
        start = max(now, self._next_request, self._next_token)
        self._next_request = start + self.seconds_per_request
        self._next_token = start + self.seconds_per_token * tokens
        if start > now:
            await self._sleep(start - now)
