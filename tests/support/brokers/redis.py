"""Redis for tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import BusyLoadingError

from tests.support.brokers.broker_server import DAY_SECONDS, LEASE_SECONDS, BrokerServer, Server
from tests.support.processes import free_port, require_program


class RedisStreams(BrokerServer):
    """Debian's Redis, which stores each command on disk before it responds."""

    kind = "redis"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        port = free_port()
        program = require_program("redis-server")
        folder.mkdir(parents=True)
        options = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--requirepass", "secret-pass")
        self.server = Server(port, program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *options)
        self.url = f"redis://:secret-pass@127.0.0.1:{port}"

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        lease = {"lease_seconds": LEASE_SECONDS}
        return {"url": lambda: self.url, "stream": name, "group": "harvester", "dead_letter": None} | lease

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Yield a client for the test, which waits while a server that was started again loads its data."""
        retry = Retry(ConstantBackoff(0.1), 300)
        async with Redis.from_url(self.url, retry=retry, retry_on_error=[BusyLoadingError]) as redis:
            yield redis

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """Create nothing, because Redis creates streams itself.

        To prevent the dead-letter stream, write a text under its name.
        """
        if not dead_letters:
            async with self.client() as redis:
                await redis.set(f"{name}.dead", "no stream")

    async def create_dead_letter_queue(self, name: str) -> None:
        """Delete the text that has the name of the dead-letter stream."""
        async with self.client() as redis:
            await redis.delete(f"{name}.dead")

    async def delete_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            await redis.delete(name)

    async def shorten_retention(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            await redis.xgroup_create(name, "others", mkstream=True)
            await redis.expire(name, 4 * DAY_SECONDS)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            for body in bodies:
                await redis.xadd(name, {"body": body, "by": "a test"})

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            entries: Sequence[Any] = await redis.xrange(f"{name}.dead")
        assert all(fields[b"by"] == b"a test" for _, fields in entries)
        return [(fields[b"body"], fields[b"reason"].decode()) for _, fields in entries]

    async def count_messages(self, name: str) -> int:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            return await redis.xlen(name)

    async def expire_leases(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self.client() as redis:
            held = [each["message_id"] for each in await redis.xpending_range(name, "harvester", "-", "+", 1000)]
            if held:
                await redis.xclaim(name, "harvester", "nobody", 0, held, idle=DAY_SECONDS * 1000, justid=True)

    def close(self) -> None:
        """Stop it."""
        self.server.kill()
