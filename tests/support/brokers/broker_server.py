"""The interface of every broker server for tests, and a server process."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import Any

DAY_SECONDS = 86_400
LEASE_SECONDS = 1
"""How long a delivery belongs to a dead consumer, for brokers that do not detect its death."""


class Server:
    """A server that runs as a process group. After ``kill``, ``start`` uses the same port and folder."""

    def __init__(self, port: int, *command: str, env: dict[str, str] | None = None) -> None:
        """Start it."""
        self.port = port
        self._command, self._env = command, os.environ | (env or {})
        self.start()

    def start(self) -> None:
        """Start it, the first time or after ``kill``."""
        self._process = subprocess.Popen(
            self._command, env=self._env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """Kill it and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            while True:  # the process that listens may end later than the process that was waited for
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                time.sleep(0.01)

    def suspend(self) -> None:
        """Suspend it and all its children."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it and all its children continue."""
        os.killpg(self._process.pid, signal.SIGCONT)

    async def wait_until_ready(self) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    return
                assert self._process.poll() is None, self._command
                await asyncio.sleep(0.05)


class BrokerServer:
    """One broker server. ``url`` contains a password."""

    kind = ""
    server: Server
    url = ""

    def options(self, name: str) -> dict[str, Any]:
        """Return the options of ``create_broker`` for a queue."""
        raise NotImplementedError

    async def wait_until_ready(self) -> None:
        """Wait until it accepts connections."""
        await self.server.wait_until_ready()

    async def set_lease(self, _name: str, seconds: int) -> dict[str, Any]:
        """Set a lease other than ``LEASE_SECONDS``, and return the options for it."""
        return {"lease_seconds": seconds}

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """Create a queue, with or without its dead-letter queue."""
        raise NotImplementedError

    async def create_dead_letter_queue(self, name: str) -> None:
        """Create the dead-letter queue."""
        raise NotImplementedError

    async def delete_queue(self, name: str) -> None:
        """Delete the queue, which disconnects its consumers."""
        raise NotImplementedError

    async def shorten_retention(self, name: str) -> None:
        """Configure the queue to drop messages too early, in every way that the broker has."""
        raise NotImplementedError

    async def send(self, name: str, *bodies: bytes) -> None:
        """Send messages; they are durable on return."""
        raise NotImplementedError

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """Return the dead letters and their reasons."""
        raise NotImplementedError

    async def count_messages(self, name: str) -> int:
        """Return the number of messages in the queue, delivered or not."""
        raise NotImplementedError

    async def expire_leases(self, name: str) -> None:
        """Expire the leases of a dead consumer, if the broker has leases."""

    def interrupt(self) -> None:
        """Interrupt the service: kill the server."""
        self.server.kill()

    async def restore(self) -> None:
        """Restore the service, with the stored messages."""
        self.server.start()
        await self.server.wait_until_ready()
