"""RabbitMQ, through one connection and one channel. The only door to aio-pika.

The queue pushes as many messages as one batch holds. AMQP has no limit by bytes, so a body above what a message may
have is dropped while it arrives; what is left of the batch is settled, and the next messages come one at a time, whole.
So no more is held than a batch of small messages, or one large one. Dead letters are published to a queue by name and
confirmed. AMQP does not show a queue's arguments, so its type and limits cannot be checked.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

import aio_pika
import aiormq.channel
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, PublishError
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from harvester.errors import BrokerError
from harvester.sources.brokers.broker import BATCH_MESSAGES, WAIT_SECONDS, Delivery, no_dead_letters, trouble
from harvester.sources.message import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 10.0
_HEADERS_CHARACTERS = 32 * 1024
_ROUTING_HEADERS = ("cc", "bcc")
"""Headers by which a message would be sent to further queues; a dead letter does not keep them."""

_unmarshal = ContentHeader.unmarshal


def _unmarshal_leniently(header: ContentHeader, data: bytes) -> None:
    """Read a message's size and properties; properties that cannot be read are dropped.

    A date beyond the year 9999 (milliseconds, taken for seconds), a name that is no UTF-8 or tables nested too deep
    would end the connection, each time that the message comes.
    """
    try:
        _unmarshal(header, data)
        DeliveryMode(header.properties.delivery_mode or DeliveryMode.NOT_PERSISTENT)
        float(header.properties.expiration or 0)
    except Exception:  # noqa: BLE001 - the message must be settled in any case
        header.properties = Basic.Properties()


class _Dropped(bytes):
    """A placeholder for a body that was dropped while it arrived."""


_BODY_LIMITS: WeakKeyDictionary[Any, int | None] = WeakKeyDictionary()
"""Channels, with the size above which they drop a body while it arrives."""

_read_content = aiormq.channel.Channel._read_content  # noqa: SLF001 - as below


async def _read_bounded(channel: aiormq.channel.Channel, frame: Any, header: ContentHeader) -> DeliveredMessage:
    """Read a message's body; one that is larger than the channel's limit is read and dropped."""
    limit = _BODY_LIMITS.get(channel)
    if limit is None or header.body_size <= limit:
        return await _read_content(channel, frame, header)
    left = header.body_size
    while left > 0:
        left -= len(cast("Any", await channel._get_frame()).value)  # noqa: SLF001 - as below
    return DeliveredMessage(delivery=frame, header=header, body=_Dropped(), channel=channel)


# The library has no other hook for a message while it arrives.
ContentHeader.unmarshal = _unmarshal_leniently  # type: ignore[assignment, method-assign]
aiormq.channel.Channel._read_content = _read_bounded  # type: ignore[assignment, method-assign]  # noqa: SLF001

logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)  # it says past our log what it raises anyway


class Queue:
    """One queue; ``dead_letter`` is the name of another, by default the queue's with ``.dead`` behind it."""

    lease_seconds = None

    def __init__(
        self, *, url: Callable[[], str], queue: str, dead_letter: str | None, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Take where the queue is; ``url`` is asked at every connection, so that a password may be changed."""
        self._url = url
        self._queue = queue
        self._dead_letter = dead_letter or f"{queue}.dead"
        self._wait_seconds = wait_seconds
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._asked = ""
        self._consuming = False
        self._alone = 0
        self._dropped = False
        self._arrived: asyncio.Queue[AbstractIncomingMessage | BrokerError] = asyncio.Queue()

    async def open(self) -> list[str]:
        """Connect and look for both queues."""
        self._arrived = asyncio.Queue()
        self._consuming = False
        self._asked = self._url()
        with self._translated():
            # Ours before it is connected, so that one that never was is closed like any other.
            connection = self._connection = aio_pika.Connection(aio_pika.connection.make_url(self._asked))
            await connection.connect(timeout=_TIMEOUT_SECONDS)
            channel = await self._open_channel(connection)
            await channel.declare_queue(self._queue, passive=True, timeout=_TIMEOUT_SECONDS)
            return await self._warnings(connection)

    async def _warnings(self, connection: AbstractConnection) -> list[str]:
        """Look for the dead-letter queue on a channel of its own: RabbitMQ closes it if there is none."""
        try:
            channel = await connection.channel()
            await channel.declare_queue(self._dead_letter, passive=True, timeout=_TIMEOUT_SECONDS)
            await channel.close()
        except ChannelNotFoundEntity:
            return [no_dead_letters(f"queue {self._dead_letter}", "declare it, or name another as dead_letter")]
        return []

    async def _open_channel(self, connection: AbstractConnection) -> AbstractChannel:
        """Open the channel to work over: for batches of small messages, or for the next few alone and whole."""
        self._consuming = self._dropped = False
        channel = self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(self._lost)
        _BODY_LIMITS[await channel.get_underlay_channel()] = None if self._alone else MAX_MESSAGE_BYTES
        await channel.set_qos(1 if self._alone else BATCH_MESSAGES)
        return channel

    async def receive(self) -> Sequence[Delivery]:
        """Give what has been pushed to us."""
        with self._translated():
            if self._dropped:
                self._alone = BATCH_MESSAGES
                await asyncio.shield(self._reopen())
            elif self._alone:
                self._alone -= 1
                if not self._alone:
                    await asyncio.shield(self._reopen())
            await asyncio.shield(self._consume())  # aiormq would swallow a cancellation in the middle
            try:
                found = [await asyncio.wait_for(self._arrived.get(), self._wait_seconds)]
            except TimeoutError:
                return []
            while not self._arrived.empty() and len(found) < BATCH_MESSAGES:
                found.append(self._arrived.get_nowait())
        for each in found:
            if isinstance(each, BrokerError):
                raise each
        messages = [each for each in found if not isinstance(each, BrokerError)]
        self._dropped = any(map(_is_dropped, messages))
        return [_delivery(each) for each in messages if not _is_dropped(each)]

    async def _reopen(self) -> None:
        """Give back what was not acknowledged, so that it comes again over another channel."""
        channel, connection = self._opened(), self._connection
        assert connection is not None
        channel.close_callbacks.discard(self._lost)
        await channel.close()
        self._arrived = asyncio.Queue()
        await self._open_channel(connection)

    async def _consume(self) -> None:
        if self._consuming:
            return
        channel = self._opened()
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._cancelled)
        queue = await channel.get_queue(self._queue, ensure=False)
        await queue.consume(self._arrived.put, timeout=_TIMEOUT_SECONDS)
        self._consuming = True

    async def empty(self) -> bool:
        """Ask how many messages are ready; those that another consumer holds are not told of."""
        with self._translated():
            queue = await self._opened().declare_queue(self._queue, passive=True, timeout=_TIMEOUT_SECONDS)
            left = bool(queue.declaration_result.message_count) or not self._arrived.empty() or self._dropped
            return not left

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: a delivery is ours while the channel is open, at most for the server's consumer_timeout."""

    async def bury(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Publish to the dead-letter queue; RabbitMQ returns what no queue takes, and confirms the rest."""
        headers = _kept(delivery.handle.headers)
        with self._translated():
            try:
                await self._publish(body, headers | {"reason": reason})
            except (TypeError, ValueError, OverflowError, struct.error):
                await self._publish(body, {"reason": reason})  # without headers that can be read but not written

    async def _publish(self, body: bytes, headers: dict[str, Any]) -> None:
        message = aio_pika.Message(body, headers=headers, delivery_mode=DeliveryMode.PERSISTENT)
        try:
            await self._opened().default_exchange.publish(
                message, routing_key=self._dead_letter, mandatory=True, timeout=_TIMEOUT_SECONDS
            )
        except PublishError:
            raise BrokerError(f"there is no queue {self._dead_letter} for dead letters; declare it") from None

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge up to the last one, or each, where bodies were dropped in between."""
        with self._translated():
            for each in deliveries if self._dropped else deliveries[-1:]:
                await each.handle.ack(multiple=not self._dropped)

    async def close(self) -> None:
        """Close the connection, which gives back what was not acknowledged."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # whatever it says, nothing is left to be done about it
                await asyncio.wait_for(connection.close(), _TIMEOUT_SECONDS)

    def _opened(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            raise BrokerError(f"the channel to queue {self._queue} is closed")
        return self._channel

    def _lost(self, _channel: object, error: BaseException | None) -> None:
        self._arrived.put_nowait(self._trouble(error or ConnectionError("closed")))

    def _cancelled(self, _frame: object) -> None:
        self._arrived.put_nowait(BrokerError(f"RabbitMQ cancelled our consumer: was queue {self._queue} deleted?"))

    def _trouble(self, error: BaseException) -> BrokerError:
        return trouble(f"RabbitMQ, queue {self._queue}", error, url=self._asked)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
            raise self._trouble(error) from None


def _is_dropped(message: AbstractIncomingMessage) -> bool:
    return isinstance(message.body, _Dropped)


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Give the headers that a dead letter keeps: none that route, and none at all where they would not fit a frame."""
    try:
        kept = {name: value for name, value in headers.items() if name.lower() not in _ROUTING_HEADERS}
        return kept if len(repr(kept)) < _HEADERS_CHARACTERS else {}
    except RecursionError:
        return {}


def _delivery(message: AbstractIncomingMessage) -> Delivery:
    """Quorum queues count in a header how often a message came back; other queues only tell that it did."""
    returned: Any = message.headers.get("x-delivery-count", int(bool(message.redelivered)))
    return Delivery(message.body, 1 + (returned if isinstance(returned, int) else 0), message)
