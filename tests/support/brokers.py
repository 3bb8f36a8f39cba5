"""Message brokers for tests: real servers with one queue each, which can be killed, started again, and looked into."""

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
"""How long a delivery stays with a consumer that is gone, where the broker does not notice by itself."""


class Server:
    """A server as a process group of its own, on a port and a folder that it keeps when it is killed."""

    def __init__(self, port: int, *command: str, env: dict[str, str] | None = None) -> None:
        """Start it."""
        self.port = port
        self._command, self._env = command, os.environ | (env or {})
        self.start()

    def start(self) -> None:
        """Start it anew."""
        self._process = subprocess.Popen(
            self._command, env=self._env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """End it and all its children, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            while True:  # the process that listens may take a moment longer to end than the one that was waited for
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                time.sleep(0.01)

    async def listens(self) -> None:
        """Wait until it takes connections."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    return
                assert self._process.poll() is None, self._command
                await asyncio.sleep(0.05)


class Lab:
    """One broker. ``options`` are what ours takes for the queue of that name; ``url`` leads to it with a password."""

    kind = ""
    server: Server
    url = ""

    def options(self, name: str) -> dict[str, Any]:
        """What ``broker(kind, ...)`` takes."""
        raise NotImplementedError

    async def listens(self) -> None:
        """Wait until it takes connections."""
        await self.server.listens()

    async def set_lease(self, _name: str, seconds: int) -> dict[str, Any]:
        """Set another lease than ``LEASE_SECONDS``; gives what ``options`` need for it."""
        return {"lease_seconds": seconds}

    async def make(self, name: str, *, dead: bool = True) -> None:
        """Make a queue, with or without its dead-letter place."""
        raise NotImplementedError

    async def bury_place(self, name: str) -> None:
        """Make the dead-letter place that was left out."""
        raise NotImplementedError

    async def unmake(self, name: str) -> None:
        """Delete the queue, so that whoever consumes it is cut off."""
        raise NotImplementedError

    async def forget(self, name: str) -> None:
        """Let the queue forget its messages too early, in all the ways there are."""
        raise NotImplementedError

    async def send(self, name: str, *bodies: bytes) -> None:
        """Send messages; they are kept on return."""
        raise NotImplementedError

    async def dead(self, name: str) -> list[tuple[bytes, str]]:
        """Dead letters, with their reasons."""
        raise NotImplementedError

    async def left(self, name: str) -> int:
        """How many messages are in the queue, delivered or not."""
        raise NotImplementedError

    async def let_go(self, name: str) -> None:
        """Give back what a consumer holds that is gone, as if its lease had run out."""

    def break_off(self) -> None:
        """Kill the server."""
        self.server.kill()

    async def mend(self) -> None:
        """Start it again, with what it had kept."""
        self.server.start()
        await self.server.listens()


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


class RabbitMQ(Lab):
    """Debian's RabbitMQ, with an epmd of its own."""

    kind = "rabbitmq"

    def __init__(self, folder: Path, **more: str) -> None:
        """Start both, with ``more`` variables."""
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
        """See ``Lab``."""
        return {"url": lambda: self.url, "queue": name, "dead_letter": None}

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            yield channel

    async def make(self, name: str, *, dead: bool = True) -> None:
        """A quorum queue that gives up after 20 deliveries, as RabbitMQ 4 does by itself."""
        async with self._channel() as channel:
            arguments = {
                "x-queue-type": "quorum", "x-delivery-limit": 20,
                "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.dead",
            }  # fmt: skip
            await channel.declare_queue(name, durable=True, arguments=arguments)
        if dead:
            await self.bury_place(name)

    async def bury_place(self, name: str) -> None:
        """See ``Lab``."""
        async with self._channel() as channel:
            await channel.declare_queue(f"{name}.dead", durable=True, arguments={"x-queue-type": "quorum"})

    async def unmake(self, name: str) -> None:
        """See ``Lab``."""
        async with self._channel() as channel:
            await channel.queue_delete(name)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``Lab``."""
        async with self._channel() as channel:
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, routing_key=name)

    async def dead(self, name: str) -> list[tuple[bytes, str]]:
        """See ``Lab``."""
        found = []
        async with self._channel() as channel:
            queue = await channel.get_queue(f"{name}.dead")
            while (message := await queue.get(fail=False)) is not None:
                found.append((message.body, message.headers["reason"]))
        return found

    async def left(self, name: str) -> int:
        """Those that are ready, which all are once no consumer is connected."""
        async with self._channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
            return queue.declaration_result.message_count

    def close(self) -> None:
        """End both."""
        self.server.kill()
        self._names.kill()


class SQS(Lab):
    """Moto's SQS. It keeps nothing when it is killed, so what breaks is the way there."""

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
        """See ``Lab``."""
        return {"queue_url": self._queue_url(name), "dead_letter": None, "lease_seconds": LEASE_SECONDS}

    def _queue_url(self, name: str) -> str:
        return f"{self.url}/123456789012/{name}"

    async def make(self, name: str, *, dead: bool = True) -> None:
        """See ``Lab``."""
        self._sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": str(14 * DAY_SECONDS)})
        if dead:
            await self.bury_place(name)

    async def bury_place(self, name: str) -> None:
        """A queue that the redrive policy names."""
        self._sqs.create_queue(QueueName=f"{name}-dead")
        policy = f'{{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:{name}-dead", "maxReceiveCount": "20"}}'
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url(name), Attributes={"RedrivePolicy": policy})

    async def forget(self, name: str) -> None:
        """See ``Lab``."""
        days = {"MessageRetentionPeriod": str(4 * DAY_SECONDS)}
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url(name), Attributes=days)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``Lab``."""
        for first in range(0, len(bodies), 10):
            entries = [
                {"Id": str(at), "MessageBody": each.decode()} for at, each in enumerate(bodies[first : first + 10])
            ]
            self._sqs.send_message_batch(QueueUrl=self._queue_url(name), Entries=entries)

    async def dead(self, name: str) -> list[tuple[bytes, str]]:
        """See ``Lab``."""
        found = []
        asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while messages := self._sqs.receive_message(QueueUrl=self._queue_url(f"{name}-dead"), **asked).get("Messages"):
            found += [(each["Body"].encode(), each["MessageAttributes"]["reason"]["StringValue"]) for each in messages]
        return found

    async def left(self, name: str) -> int:
        """See ``Lab``."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url(name), AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))

    async def listens(self) -> None:
        """It does from the beginning."""

    def fate(self, _method: str, _target: str) -> str | None:
        """What becomes of a request on its way, see ``Cutter``."""
        return "before" if self.broken else None

    def break_off(self) -> None:
        """Cut the way there."""
        self.broken = True

    async def mend(self) -> None:
        """Open it again."""
        self.broken = False

    def close(self) -> None:
        """End it."""
        self._stack.close()


class NATS(Lab):
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
        """See ``Lab``."""
        return {"url": lambda: self.url, "stream": name, "consumer": "harvester", "dead_letter": None}

    @asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[Any]:
        client = await nats.connect(self.url, allow_reconnect=False)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def make(self, name: str, *, dead: bool = True) -> None:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_stream(StreamConfig(name=name, subjects=[name], retention="workqueue"))
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", ack_wait=LEASE_SECONDS))
        if dead:
            await self.bury_place(name)

    async def set_lease(self, name: str, seconds: int) -> dict[str, Any]:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", ack_wait=seconds))
        return {}

    async def bury_place(self, name: str) -> None:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            await jetstream.add_stream(StreamConfig(name=f"{name}-dead", subjects=[f"{name}.dead"]))

    async def unmake(self, name: str) -> None:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            await jetstream.delete_stream(name)
            await jetstream.delete_stream(f"{name}-dead")

    async def forget(self, name: str) -> None:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            await jetstream.delete_stream(name)
            await jetstream.add_stream(
                StreamConfig(name=name, subjects=[name], max_age=4 * DAY_SECONDS, storage="memory")
            )
            await jetstream.add_consumer(name, ConsumerConfig(durable_name="harvester", max_deliver=3))

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            for body in bodies:
                await jetstream.publish(name, body)

    async def dead(self, name: str) -> list[tuple[bytes, str]]:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            count = (await jetstream.stream_info(f"{name}-dead")).state.messages
            found = [await jetstream.get_msg(f"{name}-dead", at + 1) for at in range(count)]
        return [(each.data, each.headers["reason"]) for each in found]

    async def left(self, name: str) -> int:
        """See ``Lab``."""
        async with self._jetstream() as jetstream:
            return (await jetstream.stream_info(name)).state.messages

    def close(self) -> None:
        """End it."""
        self.server.kill()


class RedisStreams(Lab):
    """Debian's Redis, which keeps each command before it answers."""

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
        """See ``Lab``."""
        lease = {"lease_seconds": LEASE_SECONDS}
        return {"url": lambda: self.url, "stream": name, "group": "harvester", "dead_letter": None} | lease

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A client of our own."""
        async with Redis.from_url(self.url) as redis:
            yield redis

    async def make(self, name: str, *, dead: bool = True) -> None:
        """Make nothing, or something that is no stream where dead letters belong."""
        if not dead:
            async with self.client() as redis:
                await redis.set(f"{name}.dead", "no stream")

    async def bury_place(self, name: str) -> None:
        """Take away what is in the way."""
        async with self.client() as redis:
            await redis.delete(f"{name}.dead")

    async def unmake(self, name: str) -> None:
        """See ``Lab``."""
        async with self.client() as redis:
            await redis.delete(name)

    async def forget(self, name: str) -> None:
        """See ``Lab``."""
        async with self.client() as redis:
            await redis.xgroup_create(name, "others", mkstream=True)
            await redis.expire(name, 4 * DAY_SECONDS)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``Lab``."""
        async with self.client() as redis:
            for body in bodies:
                await redis.xadd(name, {"body": body, "by": "a test"})

    async def dead(self, name: str) -> list[tuple[bytes, str]]:
        """See ``Lab``."""
        async with self.client() as redis:
            entries: Sequence[Any] = await redis.xrange(f"{name}.dead")
        assert all(fields[b"by"] == b"a test" for _, fields in entries)
        return [(fields[b"body"], fields[b"reason"].decode()) for _, fields in entries]

    async def left(self, name: str) -> int:
        """See ``Lab``."""
        async with self.client() as redis:
            return await redis.xlen(name)

    async def let_go(self, name: str) -> None:
        """See ``Lab``."""
        async with self.client() as redis:
            held = [each["message_id"] for each in await redis.xpending_range(name, "harvester", "-", "+", 1000)]
            if held:
                await redis.xclaim(name, "harvester", "nobody", 0, held, idle=DAY_SECONDS * 1000, justid=True)

    def close(self) -> None:
        """End it."""
        self.server.kill()


LABS = {lab.kind: lab for lab in (RabbitMQ, SQS, NATS, RedisStreams)}


def queue_name() -> str:
    """A name that no other test has."""
    return f"q{uuid.uuid4().hex[:12]}"
