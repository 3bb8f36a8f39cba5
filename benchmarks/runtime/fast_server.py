"""A stand-in that uses as little CPU as possible: it sends one prepared response, and its quota is never reached.

A raw asyncio protocol returns the same bytes for every request (28 variation rows and 14 day totals, about 9 KB of
JSON). Only the ``Date`` and rate-limit headers change. It serves until its standard input ends. It prints its address
at the start, and the time of the first request when it arrives.
"""

import asyncio
import json
import sys
import time
from email.utils import formatdate

import uvloop

DAYS = 14
EMAIL = [
    "sent", "opens", "machine_open", "unique_opens", "clicks", "unique_clicks", "unsubscribes", "bounces",
    "delivered", "reported_spam", "unique_recipients", "conversions", "conversions_by_send_time",
    "conversions1", "conversions1_by_send_time",
]  # fmt: skip
PUSH = [
    "sent", "delivered", "undelivered", "delivery_failed", "direct_opens", "total_opens", "bounces",
    "body_clicks", "unique_recipients", "conversions", "conversions_by_send_time", "conversions1",
    "conversions1_by_send_time",
]  # fmt: skip
TOTALS = ["unique_recipients", "conversions", "conversions_by_send_time"]


def create_body() -> bytes:
    """Return the body of the response: 14 days of email and iOS push, one variation each."""

    def counters(names: list[str], day: int) -> dict[str, object]:
        return {name: (day * 7919 + at * 104729) % 10000 for at, name in enumerate(names)} | {"revenue": day * 12.5}

    data = [
        {
            "time": f"2026-11-{day + 1:02d}",
            "messages": {
                "email": [{"variation_name": "Variant 1"} | counters(EMAIL, day)],
                "ios_push": [{"variation_name": "Variant 1"} | counters(PUSH, day + 3)],
            },
        }
        | counters(TOTALS, day)
        for day in range(DAYS)
    ]
    return json.dumps({"message": "success", "data": data}).encode()


BODY = create_body()
LIMIT = 2_000_000_000


class ResponseProtocol(asyncio.Protocol):
    """Counts requests in the byte stream: a request has no body, so it ends at a blank line."""

    transport: asyncio.Transport
    head = b""
    head_created_at = 0.0
    tail = b""
    requested = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the responses."""
        self.transport = transport  # type: ignore[assignment] # a stream server passes a Transport

    def data_received(self, data: bytes) -> None:
        """Send a response for each request that ends in these bytes."""
        data = self.tail + data
        requests = data.count(b"\r\n\r\n")
        self.tail = data[-3:] if not data.endswith(b"\r\n\r\n") else b""
        now = time.time()
        if requests and not ResponseProtocol.requested:
            ResponseProtocol.requested = True
            print(now, flush=True)
        if now - ResponseProtocol.head_created_at > 0.5:
            ResponseProtocol.head_created_at = now
            reset = (int(now) // 3600 + 1) * 3600
            ResponseProtocol.head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
                f"Date: {formatdate(now, usegmt=True)}\r\nX-RateLimit-Limit: {LIMIT}\r\n"
                f"X-RateLimit-Remaining: {LIMIT - 1}\r\nX-RateLimit-Reset: {reset}\r\n\r\n"
            ).encode()
        self.transport.write((ResponseProtocol.head + BODY) * requests)


async def main() -> None:
    """Serve on loopback until standard input ends."""
    server = await asyncio.get_running_loop().create_server(ResponseProtocol, "127.0.0.1", 0)
    async with server:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
