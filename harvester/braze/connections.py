"""The connections to Braze that the workspaces of a process share.

A response is never returned for another request.
"""

from typing import Any

import aiohttp


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

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` connections, to one host or to many. An event loop must run."""
        self.connector = _Connector(limit=limit, ttl_dns_cache=60)

    async def close(self) -> None:
        """Close all connections."""
        await self.connector.close()
