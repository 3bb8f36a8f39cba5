"""Broker servers for tests: real servers that can be killed, restarted and inspected."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import boto3
import nats
from nats.js.api import ConsumerConfig, StreamConfig
from redis.asyncio import Redis

from tests.support.servers import ACCESS_KEY, SECRET_KEY, free_port, moto_server, needed

DAY_SECONDS = 86_400
LEASE_SECONDS = 1
"""How long a delivery stays with a dead consumer, for brokers that do not notice."""


class Server:
    """A server as a process group, on a port and a folder that it keeps when it is killed."""

    def __init__(self, port: int, *command: str, env: dict[str, str] | None = None) -> None:
        """Start it."""
        self.port = port
        self._command, self._env = command, os.environ | (env or {})
        self.start()

    def start(self) -> None:
        """Start it again."""
        self._process = subprocess.Popen(
            self._command, env=self._env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """Kill it and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            while True:  # the listening process may end a moment later than the one that was waited for
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                time.sleep(0.01)

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
        """The options of ``create_broker`` for a queue."""
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
        """Make the queue drop its messages too early, in every way that the broker has."""
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
        """Expire the leases of a dead consumer."""

    def interrupt(self) -> None:
        """Interrupt the service: kill the server."""
        self.server.kill()

    async def restore(self) -> None:
        """Restore the service, with the stored messages."""
        self.server.start()
        await self.server.wait_until_ready()


def _rabbitmq_without_plugins(home: Path) -> str:
    """Link the parts of RabbitMQ except its plugins, and return its program.

    Erlang looks for each module in the folder of every plugin, enabled or not. Without them, RabbitMQ starts in two
    thirds of the time.
    """
    installed = Path("/usr/lib/rabbitmq/bin/rabbitmq-server").resolve().parent.parent
    shutil.copytree(installed / "sbin", home / "sbin")  # copies: a script finds its home through its links
    (home / "plugins").mkdir()
    for part in (installed / "plugins").iterdir():
        if not part.name.startswith("rabbitmq_") or part.name.startswith("rabbitmq_prelaunch"):
            (home / "plugins" / part.name).symlink_to(part)
    return str(home / "sbin/rabbitmq-server")


class RabbitMQ(BrokerServer):
    """Debian's RabbitMQ, with a separate epmd."""

    kind = "rabbitmq"

    def __init__(self, folder: Path, **more: str) -> None:
        """Start both, with ``more`` environment variables."""
        needed("rabbitmq-server")
        port, names = free_port(), free_port()
        folder.mkdir(parents=True)
        program = _rabbitmq_without_plugins(folder / "home")
        (folder / "plugins").write_text("[].")
        env = {
            "HOME": str(folder), "ERL_EPMD_PORT": str(names), "RABBITMQ_NODENAME": f"h{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "flags"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        } | more  # fmt: skip
        self._names = Server(names, needed("epmd"), "-port", str(names), "-address", "127.0.0.1")
        self.server = Server(port, program, env=env)
        self.url = f"amqp://guest:guest@127.0.0.1:{port}"

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        return {"url": lambda: self.url, "queue": name, "dead_letter": None}

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            yield channel

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """Create a quorum queue with a limit of 20 deliveries, which is the default of RabbitMQ 4."""
        async with self._channel() as channel:
            arguments = {
                "x-queue-type": "quorum", "x-delivery-limit": 20,
                "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.dead",
            }  # fmt: skip
            await channel.declare_queue(name, durable=True, arguments=arguments)
        if dead_letters:
            await self.create_dead_letter_queue(name)

    async def create_dead_letter_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            await channel.declare_queue(f"{name}.dead", durable=True, arguments={"x-queue-type": "quorum"})

    async def delete_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            await channel.queue_delete(name)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, routing_key=name)

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        found = []
        async with self._channel() as channel:
            queue = await channel.get_queue(f"{name}.dead")
            while (message := await queue.get(fail=False)) is not None:
                found.append((message.body, message.headers["reason"]))
        return found

    async def count_messages(self, name: str) -> int:
        """Return the ready messages, which are all of them while no consumer is connected."""
        async with self._channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
            return queue.declaration_result.message_count

    def close(self) -> None:
        """Stop both."""
        self.server.kill()
        self._names.kill()


class SQS(BrokerServer):
    """Moto's SQS, which forgets everything when it is killed; so only the connection is interrupted."""

    kind = "sqs"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        del folder
        self.broken = False
        self._stack = contextlib.ExitStack()
        port = self.port = self._stack.enter_context(moto_server())
        self.url = f"http://127.0.0.1:{port}"
        self._sqs = boto3.client(
            "sqs", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        return {"queue_url": self._queue_url(name), "dead_letter": None, "lease_seconds": LEASE_SECONDS}

    def _queue_url(self, name: str) -> str:
        return f"{self.url}/123456789012/{name}"

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """See ``BrokerServer``."""
        self._sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": str(14 * DAY_SECONDS)})
        if dead_letters:
            await self.create_dead_letter_queue(name)

    async def create_dead_letter_queue(self, name: str) -> None:
        """Create the queue and name it in the redrive policy."""
        self._sqs.create_queue(QueueName=f"{name}-dead")
        policy = f'{{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:{name}-dead", "maxReceiveCount": "20"}}'
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url(name), Attributes={"RedrivePolicy": policy})

    async def shorten_retention(self, name: str) -> None:
        """See ``BrokerServer``."""
        days = {"MessageRetentionPeriod": str(4 * DAY_SECONDS)}
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url(name), Attributes=days)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        for first in range(0, len(bodies), 10):
            entries = [
                {"Id": str(at), "MessageBody": each.decode()} for at, each in enumerate(bodies[first : first + 10])
            ]
            self._sqs.send_message_batch(QueueUrl=self._queue_url(name), Entries=entries)

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        found = []
        asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while messages := self._sqs.receive_message(QueueUrl=self._queue_url(f"{name}-dead"), **asked).get("Messages"):
            found += [(each["Body"].encode(), each["MessageAttributes"]["reason"]["StringValue"]) for each in messages]
        return found

    async def count_messages(self, name: str) -> int:
        """See ``BrokerServer``."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url(name), AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))

    async def wait_until_ready(self) -> None:
        """It accepts them from the start."""

    def fate(self, _method: str, _target: str) -> str | None:
        """What happens to a request, see ``Cutter``."""
        return "before" if self.broken else None

    def interrupt(self) -> None:
        """Interrupt the connection."""
        self.broken = True

    async def restore(self) -> None:
        """Restore the connection."""
        self.broken = False

    def close(self) -> None:
        """Stop it."""
        self._stack.close()


class NATS(BrokerServer):
    """Debian's nats-server with JetStream on disk."""

    kind = "nats"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        port = free_port()
        program = needed("nats-server")
        options = (
            "--user",
            "me",
            "--pass",
            "secret-pass",
            "-js",
            "-a",
            "127.0.0.1",
            "-p",
            str(port),
            "-sd",
            str(folder),
        )
        self.server = Server(port, program, *options)
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


class RedisStreams(BrokerServer):
    """Debian's Redis, which stores each command before it answers."""

    kind = "redis"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        port = free_port()
        program = needed("redis-server")
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
        """A client for the test."""
        async with Redis.from_url(self.url) as redis:
            yield redis

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """Create nothing: Redis creates streams. Without a dead-letter queue, a text takes the stream's name."""
        if not dead_letters:
            async with self.client() as redis:
                await redis.set(f"{name}.dead", "no stream")

    async def create_dead_letter_queue(self, name: str) -> None:
        """Delete the text that takes the stream's name."""
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


BROKER_SERVERS = {broker_server.kind: broker_server for broker_server in (RabbitMQ, SQS, NATS, RedisStreams)}


def queue_name() -> str:
    """A name that no other test uses."""
    return f"q{uuid.uuid4().hex[:12]}"
