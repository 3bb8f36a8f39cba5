"""Connections of psycopg that end if the server stays silent, for example behind a proxy that hides its failure."""

from collections.abc import Generator, Mapping
from typing import Any

import psycopg

CONNECT_SECONDS, REPLY_SECONDS = 10, 45.0
"""How long a server may take to accept a connection, and to reply: longer than it may execute a statement."""

STOPPING_CONNECT_SECONDS, STOPPING_REPLY_SECONDS = 2, 10.0
"""The same in a process that is stopping."""

_INTERVAL_SECONDS = 0.1
"""How often psycopg resumes an operation that waits for the server."""


class Connector:
    """Opens the connections of a process, and limits how long they wait for the server."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Connect with the ``arguments`` of psycopg."""
        self._arguments = {"connect_timeout": CONNECT_SECONDS, **arguments}
        self.reply_seconds = REPLY_SECONDS

    def connect(self) -> "WatchedConnection":
        """Open a connection. Raises ``OperationalError``."""
        connection = WatchedConnection.connect(**self._arguments)
        connection.connector = self
        return connection

    def stop_waiting(self) -> None:
        """Wait only seconds from now on, because the process is stopping."""
        self._arguments["connect_timeout"] = STOPPING_CONNECT_SECONDS
        self.reply_seconds = STOPPING_REPLY_SECONDS


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server has not replied in the time that its ``connector`` allows."""

    connector: Connector | None = None
    limited = True
    """Whether there is a limit. A transaction that reads a whole table has none."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """Wait for the server, as psycopg does. Raises ``OperationalError`` if it stays silent."""
        return super().wait(self._watch(gen), *args, **options)

    def _watch(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        silent_seconds = 0.0
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                silent_seconds = 0.0 if ready else silent_seconds + _INTERVAL_SECONDS
                if self.limited and self.connector is not None and silent_seconds >= self.connector.reply_seconds:
                    self.pgconn.finish()  # otherwise SQLAlchemy would wait for a rollback
                    raise psycopg.OperationalError(f"it has not replied for {silent_seconds:.0f} seconds")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
