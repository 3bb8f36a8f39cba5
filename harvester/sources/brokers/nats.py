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
    create_broker_error,
    format_dead_letter_warning,
    format_retention_warning,
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
        """Store the options. ``url`` is called for each connection; it may return several URLs, separated by commas."""
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
        with self._translate_errors():
            await self._connect()
            consumer = await self._jetstream.consumer_info(self._stream, self._consumer)
            self.lease_seconds = consumer.config.ack_wait
            stream = (await self._jetstream.stream_info(self._stream)).config
            self._subscription = await self._jetstream.pull_subscribe_bind(self._consumer, self._stream)
            return await self._list_dead_letter_warnings() + _list_warnings(stream, consumer)

    async def _connect(self) -> None:
        self._client = client = Client()  # stored before it connects, so that ``close`` also closes a failed connection
        await client.connect(
            self._url.split(","),
            allow_reconnect=False,
            connect_timeout=_TIMEOUT_SECONDS,
            max_reconnect_attempts=1,  # the default retries for minutes
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
            return [format_dead_letter_warning(f"stream that stores subject {self._dead_letter_subject}", "add one")]
        return []

    async def receive(self) -> Sequence[Delivery]:
        """Pull the available messages. If the pull times out, there are none."""
        with self._translate_errors(), contextlib.suppress(TimeoutError):
            pull = self._subscription.fetch(self._get_batch_size(), timeout=self._wait_seconds)
            messages = await self._await_while_connected(pull)
            return [Delivery(each.data, each.metadata.num_delivered, each) for each in messages]
        return []

    def _get_batch_size(self) -> int:
        """Return how many messages of the largest size that the server allows fit into ``PREFETCH_BYTES``."""
        assert self._client is not None
        return max(1, min(BATCH_MESSAGES, PREFETCH_BYTES // max(1, self._client.max_payload)))

    async def _await_while_connected(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await ``work``, but raise ``ConnectionError`` if the connection closes; nats-py would wait for a timeout."""
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
        with self._translate_errors():
            consumer = await self._jetstream.consumer_info(self._stream, self._consumer)
        return not consumer.num_pending and not consumer.num_ack_pending

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Restart the acknowledgement timeout of each message."""
        with self._translate_errors():
            for each in deliveries:
                await each.handle.in_progress()

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Publish to the dead-letter subject with the headers of the message and the reason.

        If they do not fit beside the body, the headers are left out, and then the reason too.
        """
        with self._translate_errors():
            message_headers = _select_headers(delivery.handle.headers)
            for headers in (message_headers | {"reason": reason}, {"reason": reason}, None):
                try:
                    await self._jetstream.publish(self._dead_letter_subject, body, headers=headers)
                except (MaxPayloadError, ValueError):
                    if headers is None:
                        raise
                else:
                    return

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each message. If an acknowledgement is lost, JetStream delivers the message again."""
        with self._translate_errors():
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
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, Error, OSError, ValueError, CONNECTION_CUT_ERROR) as error:
            queue = f"NATS, consumer {self._consumer} of stream {self._stream}"
            raise create_broker_error(queue, error, url=self._url) from None


def _select_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of a message without those of JetStream, which would also affect the dead letter."""
    return {name: value for name, value in (headers or {}).items() if not name.lower().startswith("nats-")}


def _list_warnings(stream: StreamConfig, consumer: ConsumerInfo) -> list[str]:
    warnings = []
    days = (stream.max_age or 0) / DAY_SECONDS
    if 0 < days < RETENTION_DAYS:
        warnings.append(format_retention_warning(f"NATS stream {stream.name}", days))
    if stream.storage == StorageType.MEMORY:
        warnings.append(f"NATS stream {stream.name} is stored in memory, so restarts lose messages; use file storage")
    if (consumer.config.max_deliver or -1) > 0:
        warnings.append(
            f"NATS consumer {consumer.name} drops a message after {consumer.config.max_deliver} deliveries without a "
            "dead letter; set its MaxDeliver to -1"
        )
    return warnings


async def _ignore_error(_error: Exception) -> None:
    """Ignore an error that the failed call raises too. By default, nats-py prints it, perhaps with the URL."""
