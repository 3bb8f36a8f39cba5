"""RabbitMQ, through one connection and one channel. The only module, with ``rabbitmq_messages``, that imports aio-pika.

The server pushes the messages of one batch. AMQP cannot limit the bytes, so a body above ``MAX_MESSAGE_BYTES`` is
dropped while it arrives. The other messages of the batch are handled. Then the channel is reopened without the limit,
and the next messages arrive one at a time. So memory contains either a batch of small messages or one large message.

Dead letters are published to a queue by name, and RabbitMQ confirms each one. AMQP does not report the arguments of a
queue, so its type and limits cannot be checked.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, PublishError

from harvester.errors import BrokerError
from harvester.sources.brokers.broker import BATCH_MESSAGES, WAIT_SECONDS, Delivery
from harvester.sources.brokers.problems import create_broker_error, format_dead_letter_warning
from harvester.sources.brokers.rabbitmq_messages import BODY_LIMITS, DroppedBody
from harvester.sources.messages.message_body import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 10.0
_MAX_HEADERS_CHARACTERS = 32 * 1024
_ROUTING_HEADERS = ("cc", "bcc")
"""Headers that route a message to more queues. A dead letter must not have them."""


class RabbitMQBroker:
    """One queue. ``dead_letter`` is the name of another queue; by default, the queue's name plus ``.dead``."""

    lease_seconds = None

    def __init__(
        self, *, url: Callable[[], str], queue: str, dead_letter: str | None, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Store the options. ``url`` is called for each connection, because its password may change."""
        self._get_url = url
        self._queue = queue
        self._dead_letter_queue = dead_letter or f"{queue}.dead"
        self._wait_seconds = wait_seconds
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._url = ""
        self._consuming = False
        self._single_messages_left = 0
        self._body_dropped = False
        self._arrivals: asyncio.Queue[AbstractIncomingMessage | BrokerError] = asyncio.Queue()

    async def open(self) -> list[str]:
        """Connect and check that both queues exist."""
        self._arrivals = asyncio.Queue()
        self._consuming = False
        self._url = self._get_url()
        with self._translate_errors():
            # Stored before it connects, so that ``close`` also closes a failed connection.
            connection = self._connection = aio_pika.Connection(aio_pika.connection.make_url(self._url))
            await connection.connect(timeout=_TIMEOUT_SECONDS)
            channel = await self._open_channel(connection)
            await channel.declare_queue(self._queue, passive=True, timeout=_TIMEOUT_SECONDS)
            return await self._list_warnings(connection)

    async def _list_warnings(self, connection: AbstractConnection) -> list[str]:
        """Check the dead-letter queue on a separate channel: RabbitMQ closes the channel if the queue is missing."""
        try:
            channel = await connection.channel()
            await channel.declare_queue(self._dead_letter_queue, passive=True, timeout=_TIMEOUT_SECONDS)
            await channel.close()
        except ChannelNotFoundEntity:
            advice = "declare it, or set dead_letter to another queue"
            return [format_dead_letter_warning(f"queue {self._dead_letter_queue}", advice)]
        return []

    async def _open_channel(self, connection: AbstractConnection) -> AbstractChannel:
        """Open a channel for batches of small messages, or for single messages of any size."""
        self._consuming = self._body_dropped = False
        single = self._single_messages_left > 0
        channel = self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(self._on_channel_closed)
        BODY_LIMITS[await channel.get_underlay_channel()] = None if single else MAX_MESSAGE_BYTES
        await channel.set_qos(1 if single else BATCH_MESSAGES)
        return channel

    async def receive(self) -> Sequence[Delivery]:
        """Return the messages that the server has pushed."""
        with self._translate_errors():
            await self._choose_channel()
            await asyncio.shield(self._start_consuming())  # aiormq swallows a cancellation
            arrived = await self._wait_for_arrivals()
        for each in arrived:
            if isinstance(each, BrokerError):
                raise each
        messages = [each for each in arrived if not isinstance(each, BrokerError)]
        self._body_dropped = any(map(_is_dropped, messages))
        return [_create_delivery(each) for each in messages if not _is_dropped(each)]

    async def _choose_channel(self) -> None:
        """Switch to single messages after a dropped body, and back to batches after ``BATCH_MESSAGES`` of them."""
        if self._body_dropped:
            self._single_messages_left = BATCH_MESSAGES
            await asyncio.shield(self._reopen_channel())
        elif self._single_messages_left:
            self._single_messages_left -= 1
            if not self._single_messages_left:
                await asyncio.shield(self._reopen_channel())

    async def _wait_for_arrivals(self) -> list[AbstractIncomingMessage | BrokerError]:
        try:
            arrived = [await asyncio.wait_for(self._arrivals.get(), self._wait_seconds)]
        except TimeoutError:
            return []
        while not self._arrivals.empty() and len(arrived) < BATCH_MESSAGES:
            arrived.append(self._arrivals.get_nowait())
        return arrived

    async def _reopen_channel(self) -> None:
        """Replace the channel. RabbitMQ delivers unacknowledged messages again on the new one."""
        channel, connection = self._get_channel(), self._connection
        assert connection is not None
        channel.close_callbacks.discard(self._on_channel_closed)
        await channel.close()
        self._arrivals = asyncio.Queue()
        await self._open_channel(connection)

    async def _start_consuming(self) -> None:
        if self._consuming:
            return
        channel = self._get_channel()
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)
        queue = await channel.get_queue(self._queue, ensure=False)
        await queue.consume(self._arrivals.put, timeout=_TIMEOUT_SECONDS)
        self._consuming = True

    async def is_empty(self) -> bool:
        """Return whether no message is ready. RabbitMQ does not report messages that another consumer holds."""
        with self._translate_errors():
            queue = await self._get_channel().declare_queue(self._queue, passive=True, timeout=_TIMEOUT_SECONDS)
            ready = queue.declaration_result.message_count
            return not (ready or not self._arrivals.empty() or self._body_dropped)

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: deliveries have no lease. Only the server's ``consumer_timeout`` limits their time."""

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Publish to the dead-letter queue with the headers of the message, or without them if they are invalid."""
        headers = _select_headers(delivery.handle.headers)
        with self._translate_errors():
            try:
                await self._publish(body, headers | {"reason": reason})
            except (TypeError, ValueError, OverflowError, struct.error):
                await self._publish(body, {"reason": reason})

    async def _publish(self, body: bytes, headers: dict[str, Any]) -> None:
        message = aio_pika.Message(body, headers=headers, delivery_mode=DeliveryMode.PERSISTENT)
        try:
            await self._get_channel().default_exchange.publish(
                message, routing_key=self._dead_letter_queue, mandatory=True, timeout=_TIMEOUT_SECONDS
            )
        except PublishError:  # RabbitMQ returned the message, because there is no queue of this name
            raise BrokerError(f"there is no queue {self._dead_letter_queue} for dead letters; declare it") from None

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge all messages up to the last one, or one by one if bodies between them were dropped."""
        with self._translate_errors():
            for each in deliveries if self._body_dropped else deliveries[-1:]:
                await each.handle.ack(multiple=not self._body_dropped)

    async def close(self) -> None:
        """Close the connection. RabbitMQ delivers unacknowledged messages again."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # the connection is closed in any case
                await asyncio.wait_for(connection.close(), _TIMEOUT_SECONDS)

    def _get_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            raise BrokerError(f"the channel to queue {self._queue} is closed")
        return self._channel

    def _on_channel_closed(self, _channel: object, error: BaseException | None) -> None:
        self._arrivals.put_nowait(self._translate_error(error or ConnectionError("closed")))

    def _on_consumer_cancelled(self, _frame: object) -> None:
        problem = f"RabbitMQ cancelled the consumer; check whether queue {self._queue} exists"
        self._arrivals.put_nowait(BrokerError(problem))

    def _translate_error(self, error: BaseException) -> BrokerError:
        return create_broker_error(f"RabbitMQ, queue {self._queue}", error, url=self._url)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
            raise self._translate_error(error) from None


def _is_dropped(message: AbstractIncomingMessage) -> bool:
    return isinstance(message.body, DroppedBody)


def _select_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a message without those that route it; none if they do not fit into a frame."""
    try:
        selected = {name: value for name, value in headers.items() if name.lower() not in _ROUTING_HEADERS}
        return selected if len(repr(selected)) < _MAX_HEADERS_CHARACTERS else {}
    except RecursionError:
        return {}


def _create_delivery(message: AbstractIncomingMessage) -> Delivery:
    """Create a delivery with its count. Quorum queues send the count in a header; other queues only set a flag."""
    redeliveries: Any = message.headers.get("x-delivery-count", int(bool(message.redelivered)))
    return Delivery(message.body, 1 + (redeliveries if isinstance(redeliveries, int) else 0), message)
