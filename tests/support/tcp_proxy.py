"""A proxy between harvester and an object store or SQS that cuts, hangs or loses requests."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

Fate = str | None
"""What becomes of a request: None is passed on, see ``TcpProxy``."""


class TcpProxy:
    """Listens on this machine and forwards requests, one per connection.

    ``fate(method, target)`` decides each: ``before`` cuts the connection with nothing sent, ``within`` after half
    of the request, ``after`` loses the response, ``hang`` never answers, ``forbid`` answers 403, ``unconditional``
    removes the precondition, as a store without it does, ``flip`` changes a bit of the body, and ``brief`` lets SQS
    return a message after two seconds instead of a minute.
    """

    def __init__(self, port: int, fate: Callable[[str, str], Fate] = lambda _method, _target: None) -> None:
        """Forward to the server on ``port``."""
        self.fate = fate
        self.requests: list[str] = []
        self._serving: set[asyncio.Task] = set()
        self._upstream = port

    async def __aenter__(self) -> Self:
        """Listen on ``port``."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and close every connection."""
        self._server.close()
        await asyncio.sleep(0)  # connections that were just accepted begin their task
        for each in self._serving:
            each.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._pass_on(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._serving.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.decode("latin-1").split(" ")[:2]
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        self.requests.append(f"{method} {target}")
        fate = self.fate(method, target)
        if fate == "before":
            return
        if fate == "hang":
            await reader.read()
            return
        if fate == "forbid":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if fate == "unconditional":
            head = head.replace(b"if-none-match:", b"x-none-match-:")
        if fate == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fate == "brief":
            body = body.replace(b'"VisibilityTimeout": 60', b'"VisibilityTimeout":  2')
        store_reader, store = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            sent = head[:-2] + b"connection: close\r\n\r\n" + body
            if fate == "within":
                store.write(sent[: len(head) + len(body) // 2])
                await store.drain()
                return
            store.write(sent)
            reply = await store_reader.read(-1)
            if fate != "after":
                writer.write(reply)
                await writer.drain()
        finally:
            store.close()
            with contextlib.suppress(OSError):
                await store.wait_closed()
