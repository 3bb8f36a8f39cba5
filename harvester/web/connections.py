"""Limits the connections to the web server, and chooses which one to close for a new one.

Idle clients must not use up the open files that requests to Braze need, or block the probes of an orchestrator. So a
new connection is always accepted. Above the limit, the connection that has been idle longest is closed.
"""

import asyncio
import itertools
import resource
from collections.abc import Callable

MAX_CONNECTIONS = 64
SHARE_OF_FILES = 8
"""The server holds at most 1 / ``SHARE_OF_FILES`` of the files that the process may open."""


def get_connection_limit() -> int:
    """Return how many connections the server may keep open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(4, min(MAX_CONNECTIONS, allowed // SHARE_OF_FILES))


class Connections:
    """The open connections of one server, the longest idle first."""

    def __init__(self, limit: int) -> None:
        """Keep at most ``limit`` connections open."""
        self._limit = limit
        self._turns = itertools.count()
        self._idle_since: dict[asyncio.BaseTransport, int] = {}
        self._busy: set[asyncio.BaseTransport] = set()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._idle_since)

    def track(self, make_protocol: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Make the protocol of a new connection, and track it."""
        return _TrackedProtocol(make_protocol(), self)

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection; above the limit, close the one that has been idle longest, else the oldest busy one."""
        if len(self._idle_since) >= self._limit:
            idle = (each for each in self._idle_since if each not in self._busy)
            least_active = next(idle, None) or next(iter(self._idle_since))
            self.closed(least_active)
            least_active.abort()  # type: ignore[attr-defined] # a socket transport has it
        self._idle_since[transport] = next(self._turns)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Remove a connection."""
        self._idle_since.pop(transport, None)
        self._busy.discard(transport)

    def request_received(self, transport: asyncio.BaseTransport | None) -> None:
        """Mark the connection as busy: it waits for a response."""
        if transport in self._idle_since:
            self._busy.add(transport)

    def response_sent(self, transport: asyncio.BaseTransport | None) -> None:
        """Mark the connection as idle: it waits for the client."""
        if transport in self._idle_since:
            self._busy.discard(transport)
            del self._idle_since[transport]
            self._idle_since[transport] = next(self._turns)


class _TrackedProtocol(asyncio.Protocol):
    """A protocol that reports when its connection begins and ends."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.opened(transport)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.closed(self._transport)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
