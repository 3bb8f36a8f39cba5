"""The connections to Braze that the workspaces of a process share.

A response is never returned for another request.
"""

import ssl
from functools import cached_property
from pathlib import Path
from typing import Any

from harvester.braze.aiohttp_import import aiohttp
from harvester.settings import Settings

_CONNECTIONS_PER_SLOT = 4
"""Requests that gave up their slot because they hang keep their connection."""


def count_slots(settings: Settings) -> int:
    """Return how many requests of a process may be in flight: enough for one workspace to reach its own limit."""
    return max(settings.max_in_flight, settings.concurrency)


def count_connections(settings: Settings) -> int:
    """Return how many connections to Braze a process may open."""
    return _CONNECTIONS_PER_SLOT * count_slots(settings)


class _Connector(aiohttp.TCPConnector):
    """Never reuses a connection that received bytes after the end of a response.

    aiohttp would return them as the response to the next request, and every later response to the wrong request.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


class Connections:
    """The kept-alive connections of a process, which the transports of all workspaces share."""

    def __init__(self, limit: int, *, ca_file: Path | None = None) -> None:
        """Hold at most ``limit`` connections, to one host or to many. An event loop must run.

        Trust the authorities in ``ca_file``, a readable file of PEM certificates, besides those of the machine.
        """
        self.connector = _Connector(limit=limit, ttl_dns_cache=60)
        self._ca_file = ca_file

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The context of https connections. Created at the first use: loading the machine's authorities takes 50 ms."""
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        context.set_alpn_protocols(("http/1.1",))
        return context

    async def close(self) -> None:
        """Close all connections."""
        await self.connector.close()
