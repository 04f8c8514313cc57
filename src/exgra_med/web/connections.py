"""Connections to the page: the head of a request in time, and a share for each address.

The server by itself waits for a head without end, and counts who says nothing against the limit of
all. Here such connections make room: for a newer one of their address, then for one of any.
"""

import asyncio
import time
from typing import Any

from exgra_med.web.limits import Limits, visitor

HEAD_SECONDS = 10.0
"""From the opening of a connection, or its last answer, to the end of the head of a request."""
UNREAD_SECONDS = 60.0
"""A visitor who takes nothing of an answer for so long has left."""


def bounded_protocol(limits: Limits, has_shares: bool) -> type[Any]:
    """The protocol of HTTP for uvicorn, within limits.

    Args:
        has_shares: each address has a share of its own; not behind a proxy, which has one address.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol  # pyrefly: ignore

    share = limits.max_address_connections if has_shares else limits.max_connections

    class BoundedProtocol(H11Protocol):
        """One connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.visitor = visitor(self.client[0] if self.client else "")
            self.asked = time.monotonic()
            self.watch: asyncio.TimerHandle | None = None
            self.unread: asyncio.TimerHandle | None = None
            self._wait_for_head()
            connections: list[Any] = list(self.connections)
            same = [each for each in connections if each.visitor == self.visitor]
            if len(same) > share:
                self._make_room(same)
            elif len(connections) > limits.max_connections:
                self._make_room(connections)

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self.watch, self.unread):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.asked = time.monotonic()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.unread = self.loop.call_later(UNREAD_SECONDS, self._drop)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.unread is not None:
                self.unread.cancel()

        @property
        def asks_nothing(self) -> bool:
            """No request is being read or answered, whatever of a head has come."""
            return self.cycle is None or self.cycle.response_complete

        def _wait_for_head(self) -> None:
            left = self.asked + HEAD_SECONDS - time.monotonic() if self.asks_nothing else 0.0
            if self.asks_nothing and left <= 0:
                self._drop()
            else:
                self.watch = self.loop.call_later(max(left, 1.0), self._wait_for_head)

        def _make_room(self, others: list[Any]) -> None:
            """Close the connection that has asked for nothing for longest; else this one."""
            idle = [each for each in others if each.asks_nothing and each is not self]
            min(idle, key=lambda each: each.asked, default=self)._drop()

        def _drop(self) -> None:
            # At once out of the count, which decides about the next one.
            self.connections.discard(self)
            self.transport.abort()

    return BoundedProtocol
