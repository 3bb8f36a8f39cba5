"""A transport that reports the ``Date`` of every response to a clock."""

from harvester.braze.transport import Response, Transport
from harvester.clock import BrazeClock
from harvester.model import Pair


class DatedTransport:
    """Wraps the transport of a workspace. All transports of a process share one clock."""

    def __init__(self, transport: Transport, clock: BrazeClock) -> None:
        """Send requests through ``transport``."""
        self._transport = transport
        self._clock = clock

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Send one request, and report the response's ``Date`` to the clock (see the protocol)."""
        sent = self._clock.monotonic()
        response = await self._transport.send_series(pair, length_days=length_days, ending_at=ending_at)
        self._clock.observe(response.quota.server_time, sent=sent, received=self._clock.monotonic())
        return response

    def use_key(self, api_key: str) -> None:
        """Use this key from now on (see the protocol)."""
        self._transport.use_key(api_key)

    def scrub(self, text: str) -> str:
        """Remove the API key from a text (see the protocol)."""
        return self._transport.scrub(text)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
