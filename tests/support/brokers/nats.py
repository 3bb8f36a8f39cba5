"""NATS JetStream for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.js.api import ConsumerConfig, StreamConfig

from tests.support.brokers.broker_server import DAY_SECONDS, LEASE_SECONDS, BrokerServer, Server
from tests.support.processes import free_port, require_program


class NATS(BrokerServer):
    """Debian's nats-server with JetStream on disk."""

    kind = "nats"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        port = free_port()
        program = require_program("nats-server")
        options = f"--user me --pass secret-pass -js -a 127.0.0.1 -p {port}"
        self.server = Server(port, program, *options.split(), "-sd", str(folder))
        self.url = f"nats://me:secret-pass@127.0.0.1:{port}"

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        return {"url": lambda: self.url, "stream": name, "consumer": "harvester", "dead_letter": None}

    @asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[Any]:
        client = await nats.connect(self.url, allow_reconnect=False)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_stream(StreamConfig(name=name, subjects=[name], retention="workqueue"))
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", ack_wait=LEASE_SECONDS))
        if dead_letters:
            await self.create_dead_letter_queue(name)

    async def set_lease(self, name: str, seconds: int) -> dict[str, Any]:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", ack_wait=seconds))
        return {}

    async def create_dead_letter_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_stream(StreamConfig(name=f"{name}-dead", subjects=[f"{name}.dead"]))

    async def delete_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            await jetstream.delete_stream(name)
            await jetstream.delete_stream(f"{name}-dead")

    async def shorten_retention(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            await jetstream.delete_stream(name)
            await jetstream.add_stream(
                StreamConfig(name=name, subjects=[name], max_age=4 * DAY_SECONDS, storage="memory")
            )
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", max_deliver=3))

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            for body in bodies:
                await jetstream.publish(name, body)

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            count = (await jetstream.stream_info(f"{name}-dead")).state.messages
            found = [await jetstream.get_msg(f"{name}-dead", at + 1) for at in range(count)]
        return [(each.data, each.headers["reason"]) for each in found]

    async def count_messages(self, name: str) -> int:
        """See ``BrokerServer``."""
        async with self._jetstream() as jetstream:
            return (await jetstream.stream_info(name)).state.messages

    def close(self) -> None:
        """Stop it."""
        self.server.kill()
