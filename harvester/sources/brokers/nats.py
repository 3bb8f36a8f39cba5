"""NATS JetStream, through a durable pull consumer that exists already. The only door to nats-py.

Dead letters are published to a subject, which a stream must keep: JetStream confirms that it does.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nats
from nats.errors import Error, MaxPayloadError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerInfo, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from harvester.model import DAY_SECONDS
from harvester.sources.brokers.broker import (
    BATCH_MESSAGES,
    RETENTION_DAYS,
    WAIT_SECONDS,
    Delivery,
    kept_too_short,
    no_dead_letters,
    trouble,
)

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

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
            self._client = client = await nats.connect(
                self._asked.split(","), allow_reconnect=False, connect_timeout=_TIMEOUT_SECONDS,
                ping_interval=_PING_SECONDS, closed_cb=self._lost, error_cb=_told, name="harvester",
            )  # fmt: skip
            jetstream: JetStreamContext = client.jetstream(timeout=_TIMEOUT_SECONDS)
            self._jetstream = jetstream
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
        """Pull what there is."""
        fetching = asyncio.ensure_future(self._pulling.fetch(BATCH_MESSAGES, timeout=self._wait_seconds))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            with self._translated():
                await asyncio.wait({fetching, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done():
                    raise ConnectionError("closed")
                return [Delivery(each.data, each.metadata.num_delivered, each) for each in fetching.result()]
        except NatsTimeout:
            return []
        finally:
            for each in (fetching, closed):
                each.cancel()
            await asyncio.gather(fetching, closed, return_exceptions=True)

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
        headers = dict(delivery.handle.headers or {}) | {"reason": reason}
        with self._translated():
            try:
                await self._jetstream.publish(self._dead_letter, body, headers=headers)
            except MaxPayloadError:
                await self._jetstream.publish(self._dead_letter, body)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each; an acknowledgement that is lost brings the message again."""
        with self._translated():
            for each in deliveries:
                await each.handle.ack()
            assert self._client is not None
            await self._client.flush(_TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Error, OSError, asyncio.TimeoutError):
                await client.close()

    async def _lost(self) -> None:
        self._closed.set()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, Error, OSError, ValueError) as error:
            raise trouble(f"NATS, consumer {self._consumer} of stream {self._stream}", error, url=self._asked) from None


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
