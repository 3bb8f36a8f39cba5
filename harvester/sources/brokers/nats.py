"""NATS JetStream, through a durable pull consumer that exists already. The only door to nats-py.

Dead letters are published to a subject, which a stream must keep: JetStream confirms that it does.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js.api import ConsumerInfo, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from harvester.model import DAY_SECONDS
from harvester.sources.brokers.broker import (
    BATCH_MESSAGES,
    CLOSED,
    PREFETCH_BYTES,
    RETENTION_DAYS,
    WAIT_SECONDS,
    Delivery,
    kept_too_short,
    no_dead_letters,
    trouble,
)

_TIMEOUT_SECONDS = 10
_PING_SECONDS = 20


class Queue:
    """One consumer of one stream; ``dead_letter`` is a subject, by default the stream's name with ``.dead`` behind."""

    def __init__(
        self, *, url: Callable[[], str], stream: str, consumer: str, dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:  # fmt: skip
        """Take where the consumer is; ``url`` is asked at every connection and may name several servers, by commas."""
        self.lease_seconds: float | None = None
        self._url = url
        self._stream = stream
        self._consumer = consumer
        self._dead_letter = dead_letter or f"{stream}.dead"
        self._wait_seconds = wait_seconds
        self._client: Client | None = None
        self._jetstream: Any = None
        self._pulling: Any = None
        self._closed = asyncio.Event()
        self._asked = ""

    async def open(self) -> list[str]:
        """Connect and look at consumer and stream."""
        self._closed = asyncio.Event()
        self._asked = self._url()
        with self._translated():
            self._client = client = Client()  # ours to close where connecting fails half-way
            await client.connect(
                self._asked.split(","), allow_reconnect=False, connect_timeout=_TIMEOUT_SECONDS,
                max_reconnect_attempts=1, reconnect_time_wait=0,  # else it would ask a server that is away for minutes
                ping_interval=_PING_SECONDS, closed_cb=self._lost, error_cb=_told, name="harvester",
            )  # fmt: skip
            jetstream = self._jetstream = client.jetstream(timeout=_TIMEOUT_SECONDS)
            consumer = await jetstream.consumer_info(self._stream, self._consumer)
            self.lease_seconds = consumer.config.ack_wait
            stream = (await jetstream.stream_info(self._stream)).config
            self._pulling = await jetstream.pull_subscribe_bind(self._consumer, self._stream)
            try:
                await jetstream.find_stream_name_by_subject(self._dead_letter)
            except NotFoundError:
                dead = [no_dead_letters(f"stream that keeps subject {self._dead_letter}", "add one")]
            else:
                dead = []
        return dead + _warnings(stream, consumer)

    async def receive(self) -> Sequence[Delivery]:
        """Pull the available messages. Either of two errors means that none came in time, which is not a failure."""
        with self._translated(), contextlib.suppress(TimeoutError):
            fetched = await self._while_open(self._pulling.fetch(self._batch_messages(), timeout=self._wait_seconds))
            return [Delivery(each.data, each.metadata.num_delivered, each) for each in fetched]
        return []

    def _batch_messages(self) -> int:
        """Give how many messages may be on their way at once, if each is as large as the server allows."""
        assert self._client is not None
        return max(1, min(BATCH_MESSAGES, PREFETCH_BYTES // max(1, self._client.max_payload)))

    async def _while_open(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await, but no longer than the connection lives: nats-py would wait for the whole timeout."""
        tasks = asyncio.create_task(work), asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise ConnectionError("closed")
            return tasks[0].result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def empty(self) -> bool:
        """Ask what is neither delivered nor acknowledged."""
        with self._translated():
            info = await self._jetstream.consumer_info(self._stream, self._consumer)
        return not info.num_pending and not info.num_ack_pending

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Tell that work is in progress."""
        with self._translated():
            for each in deliveries:
                await each.handle.in_progress()

    async def bury(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Publish to the dead-letter subject, the reason in a header if both together are not too long for it."""
        with self._translated():
            for headers in (_kept(delivery.handle.headers) | {"reason": reason}, {"reason": reason}, None):
                try:
                    await self._jetstream.publish(self._dead_letter, body, headers=headers)
                except (MaxPayloadError, ValueError):
                    if headers is None:
                        raise
                else:
                    return

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each; an acknowledgement that is lost brings the message again."""
        with self._translated():
            for each in deliveries:
                await each.handle.ack()
            assert self._client is not None
            await self._while_open(self._client.flush(_TIMEOUT_SECONDS))

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection is closed in any case
                await client.close()

    async def _lost(self) -> None:
        self._closed.set()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, Error, OSError, ValueError, CLOSED) as error:
            raise trouble(f"NATS, consumer {self._consumer} of stream {self._stream}", error, url=self._asked) from None


def _kept(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers that a dead letter keeps; JetStream would obey its own headers, so they are left out."""
    return {name: value for name, value in (headers or {}).items() if not name.lower().startswith("nats-")}


def _warnings(stream: StreamConfig, consumer: ConsumerInfo) -> list[str]:
    warnings = []
    days = (stream.max_age or 0) / DAY_SECONDS
    if 0 < days < RETENTION_DAYS:
        warnings.append(kept_too_short(f"NATS stream {stream.name}", days))
    if stream.storage == StorageType.MEMORY:
        warnings.append(
            f"NATS stream {stream.name} is held in memory, and lost with its servers: let it have file storage"
        )
    if (consumer.config.max_deliver or -1) > 0:
        warnings.append(
            f"NATS consumer {consumer.name} forgets a message after {consumer.config.max_deliver} deliveries, "
            "without a trace: set its MaxDeliver to -1"
        )
    return warnings


async def _told(_error: Exception) -> None:
    """Say nothing: whatever fails is told by the call that failed, and nats-py's own words may hold the URL."""
