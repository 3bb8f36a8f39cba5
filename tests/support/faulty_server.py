"""A scripted server: it sends raw bytes completely, partly, slowly or never, and counts requests."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "FaultyServer"], Awaitable[None]]


class FaultyServer:
    """The requests so far, and the server's address."""

    def __init__(self) -> None:
        """Start without requests."""
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""


@asynccontextmanager
async def serve_script(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultyServer]:
    """Serve each connection with a script, on loopback."""
    server = FaultyServer()
    tasks: set[asyncio.Task] = set()
    transports: set[asyncio.BaseTransport] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        tasks.add(asyncio.current_task())
        transports.add(writer.transport)
        try:
            await script(reader, writer, server)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0)  # connections that were just accepted begin their task
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in transports:
            transport.abort()  # a client that does not read would delay the end of its connection
        await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader, server: FaultyServer) -> bytes:
    """Read one request's head."""
    head = await reader.readuntil(b"\r\n\r\n")
    server.requests.append(head)
    return head


def answer_with(data: bytes, *, then: str = "close") -> Script:
    """Answer every request with these bytes, then close, reset or keep the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: FaultyServer) -> None:
        while True:
            await read_request(reader, server)
            writer.write(data)
            await writer.drain()
            if then == "reset":
                # Without this an abort is an orderly end on the wire.
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return
            if then == "close":
                return
            if then == "silence":
                await asyncio.Event().wait()

    return script


def answer_slowly(data: bytes, seconds: float) -> Script:
    """Send a response byte by byte."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: FaultyServer) -> None:
        await read_request(reader, server)
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await writer.drain()
            await asyncio.sleep(seconds)

    return script


def build_response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a well-formed response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
