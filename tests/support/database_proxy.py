"""A proxy between harvester and a PostgreSQL server that loses a COMMIT, its reply, or the connection around it.

It parses nothing: a client waits for each reply, so what it sends at once is a message or a few.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

from tests.support.postgresql import PostgreSQL


class Fault(Enum):
    """What happens to a message of the client."""

    REQUEST_LOST = "the connection is cut, and the server has not received it"
    REPLY_LOST = "the server has executed it, and the connection is cut before the reply"
    CUT_MEANWHILE = "the connection is cut while the server executes it"
    TERMINATED_BEFORE = "the server ends the connection before it receives it"
    REPLY_WITHHELD = "the server has executed it, and neither its reply nor the end of the connection ever arrives"
    TERMINATED_AFTER = "the server ends the connection after its reply"


class _Cut(Exception):  # noqa: N818 - it ends a connection
    """A connection is cut."""


@dataclass(slots=True)
class _Connection:
    """A connection to the server. ``of_reply`` applies to the next reply."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    of_reply: Fault | None = None


class DatabaseProxy:
    """Forwards bytes both ways. ``fault`` applies to the next COMMIT, and is None afterwards.

    With ``skip``, it applies to the message after so many others, whatever it is.
    """

    def __init__(self, server: PostgreSQL, database: str) -> None:
        """Forward to a database of a server."""
        self.fault: Fault | None = None
        self.skip: int | None = None
        self.messages = 0
        """How many messages clients have sent."""
        self._server, self._database = server, database
        self._serving: set[asyncio.Task] = set()

    async def __aenter__(self) -> Self:
        """Listen, and set ``url``."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = self._server.url(self._database, port=self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and cut every connection."""
        self._listener.close()
        await asyncio.sleep(0)  # connections that were just accepted begin their task
        for each in self._serving:
            each.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = _Connection(*await asyncio.open_connection("127.0.0.1", self._server.port))
        except OSError:  # it is unavailable
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward_requests(reader, server))
                both.create_task(self._forward_replies(server, writer))
        except* (OSError, _Cut):
            pass
        finally:
            for each in (server.writer, writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _forward_requests(self, reader: asyncio.StreamReader, server: _Connection) -> None:
        while data := await reader.read(1 << 20):
            fault = self._choose_fault(data)
            if fault is Fault.REQUEST_LOST:
                raise _Cut
            if fault is Fault.TERMINATED_BEFORE:
                self._server.terminate_connections(self._database, state="idle in transaction%")
                continue  # the client receives the reason
            server.of_reply = fault
            server.writer.write(data)
            await server.writer.drain()
            if fault is Fault.CUT_MEANWHILE:
                raise _Cut
        raise _Cut

    def _choose_fault(self, message: bytes) -> Fault | None:
        self.messages += 1
        if self.skip:
            self.skip -= 1
            return None
        if self.skip is None and b"COMMIT\0" not in message:  # BEGIN may name READ COMMITTED
            return None
        fault, self.fault = self.fault, None
        return fault

    async def _forward_replies(self, server: _Connection, writer: asyncio.StreamWriter) -> None:
        while data := await server.reader.read(1 << 20):
            fault, server.of_reply = server.of_reply, None
            if fault is Fault.REPLY_LOST:
                raise _Cut
            if fault is Fault.REPLY_WITHHELD:
                continue
            writer.write(data)
            await writer.drain()
            if fault is Fault.TERMINATED_AFTER:
                self._server.terminate_connections(self._database, state="idle")
        raise _Cut
