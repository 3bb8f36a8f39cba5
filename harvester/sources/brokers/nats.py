"""NATS JetStream, through an existing durable pull consumer. The only module that imports nats-py.

Dead letters are published to a subject that a stream must store; JetStream confirms each one.
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
    CONNECTION_CUT_ERROR,
    PREFETCH_BYTES,
    WAIT_SECONDS,
    Delivery,
)
from harvester.sources.brokers.problems import (
    RETENTION_DAYS,
    broker_error,
    dead_letter_warning,
    retention_warning,
)

_TIMEOUT_SECONDS = 10
_PING_SECONDS = 20


class NATSBroker:
    """One consumer of one stream. ``dead_letter`` is a subject; by default, the stream's name plus ``.dead``."""

    def __init__(
        self,
        *,
        url: Callable[[], str],
        stream: str,
        consumer: str,
        dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Keep the options. ``url`` is called for each connection; it may return several servers, with commas."""
        self.lease_seconds: float | None = None
        self._get_url = url
        self._stream = stream
        self._consumer = consumer
        self._dead_letter_subject = dead_letter or f"{stream}.dead"
        self._wait_seconds = wait_seconds
        self._client: Client | None = None
        self._jetstream: Any = None
        self._subscription: Any = None
        self._closed = asyncio.Event()
        self._url = ""

    async def open(self) -> list[str]:
        """Connect and check the consumer and its stream."""
        self._closed = asyncio.Event()
        self._url = self._get_url()
        with self._translated_errors():
            await self._connect()
            consumer = await self._jetstream.consumer_info(self._stream, self._consumer)
            self.lease_seconds = consumer.config.ack_wait
            stream = (await self._jetstream.stream_info(self._stream)).config
            self._subscription = await self._jetstream.pull_subscribe_bind(self._consumer, self._stream)
            return await self._list_dead_letter_warnings() + _list_warnings(stream, consumer)

    async def _connect(self) -> None:
        self._client = client = Client()  # kept first, so that a failed connection is closed too
        await client.connect(
            self._url.split(","),
            allow_reconnect=False,
            connect_timeout=_TIMEOUT_SECONDS,
            max_reconnect_attempts=1,  # by default, it tries an unavailable server for minutes
            reconnect_time_wait=0,
            ping_interval=_PING_SECONDS,
            closed_cb=self._on_closed,
            error_cb=_ignore_error,
            name="harvester",
        )
        self._jetstream = client.jetstream(timeout=_TIMEOUT_SECONDS)

    async def _list_dead_letter_warnings(self) -> list[str]:
        try:
            await self._jetstream.find_stream_name_by_subject(self._dead_letter_subject)
        except NotFoundError:
            return [dead_letter_warning(f"stream that keeps subject {self._dead_letter_subject}", "add one")]
        return []

    async def receive(self) -> Sequence[Delivery]:
        """Pull the available messages. A timeout of the pull means that there were none."""
        with self._translated_errors(), contextlib.suppress(TimeoutError):
            pull = self._subscription.fetch(self._batch_messages(), timeout=self._wait_seconds)
            messages = await self._await_while_connected(pull)
            return [Delivery(each.data, each.metadata.num_delivered, each) for each in messages]
        return []

    def _batch_messages(self) -> int:
        """Return how many messages fit into ``PREFETCH_BYTES`` if each is as large as the server allows."""
        assert self._client is not None
        return max(1, min(BATCH_MESSAGES, PREFETCH_BYTES // max(1, self._client.max_payload)))

    async def _await_while_connected(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await, and fail at once if the connection closes; nats-py would wait for its timeout."""
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

    async def is_empty(self) -> bool:
        """Return whether the consumer has neither pending nor unacknowledged messages."""
        with self._translated_errors():
            consumer = await self._jetstream.consumer_info(self._stream, self._consumer)
        return not consumer.num_pending and not consumer.num_ack_pending

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Report work in progress, which restarts the consumer's acknowledgement timeout."""
        with self._translated_errors():
            for each in deliveries:
                await each.handle.in_progress()

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Publish to the dead-letter subject, with as many headers as fit beside the body."""
        with self._translated_errors():
            original = _dead_letter_headers(delivery.handle.headers)
            for headers in (original | {"reason": reason}, {"reason": reason}, None):
                try:
                    await self._jetstream.publish(self._dead_letter_subject, body, headers=headers)
                except (MaxPayloadError, ValueError):
                    if headers is None:
                        raise
                else:
                    return

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each message; if an acknowledgement is lost, JetStream delivers its message again."""
        with self._translated_errors():
            for each in deliveries:
                await each.handle.ack()
            assert self._client is not None
            await self._await_while_connected(self._client.flush(_TIMEOUT_SECONDS))

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection is closed in any case
                await client.close()

    async def _on_closed(self) -> None:
        self._closed.set()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, Error, OSError, ValueError, CONNECTION_CUT_ERROR) as error:
            queue = f"NATS, consumer {self._consumer} of stream {self._stream}"
            raise broker_error(queue, error, url=self._url) from None


def _dead_letter_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return a message's own headers without those of JetStream, which it would apply to the dead letter."""
    return {name: value for name, value in (headers or {}).items() if not name.lower().startswith("nats-")}


def _list_warnings(stream: StreamConfig, consumer: ConsumerInfo) -> list[str]:
    warnings = []
    days = (stream.max_age or 0) / DAY_SECONDS
    if 0 < days < RETENTION_DAYS:
        warnings.append(retention_warning(f"NATS stream {stream.name}", days))
    if stream.storage == StorageType.MEMORY:
        warnings.append(f"NATS stream {stream.name} is held in memory and lost with its servers: use file storage")
    if (consumer.config.max_deliver or -1) > 0:
        warnings.append(
            f"NATS consumer {consumer.name} drops a message after {consumer.config.max_deliver} deliveries, "
            "without a trace: set its MaxDeliver to -1"
        )
    return warnings


async def _ignore_error(_error: Exception) -> None:
    """Ignore an error that the failed call raises anyway; nats-py would print it, perhaps with the URL."""
