"""The protocol that every message broker implements, and the limits that all brokers share.

A broker object has one connection to one queue. It receives, acknowledges and dead-letters messages. It never
interprets a message and never reconnects: it raises ``BrokerError``, and the trigger closes it and opens it again.
The docstring of ``harvester.sources.brokers`` lists the steps to add a broker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

BATCH_MESSAGES = 32
"""The most messages that are received, enqueued and acknowledged together."""

PREFETCH_BYTES = 8 << 20
"""The most bytes of unacknowledged messages that a broker holds in memory; a single message may be larger."""

WAIT_SECONDS = 5.0
"""How long ``receive`` waits for the first message."""

CONNECTION_CUT_ERROR = RuntimeError
"""uvloop raises this error if a connection is cut while it writes. The client libraries do not translate it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received message, which is unacknowledged until ``Broker.acknowledge``.

    ``delivery_count`` is 1 for the first delivery. ``handle`` is the broker's reference to the message.
    ``problem`` is not empty if the broker finds that the message is invalid; ``body`` may then be empty.
    """

    body: bytes
    delivery_count: int
    handle: Any
    problem: str = ""


class Broker(Protocol):
    """One queue of one message broker.

    Every method except ``close`` may raise ``BrokerError``. After an error, call ``close`` and then ``open``.
    """

    @property
    def lease_seconds(self) -> float | None:
        """How long other consumers do not receive a delivery unless it is renewed; None: until ``close``."""
        ...

    async def open(self) -> list[str]:
        """Connect, check the queue, and return warnings about its configuration. Receives nothing yet."""
        ...

    async def receive(self) -> Sequence[Delivery]:
        """Return the available messages, at most ``BATCH_MESSAGES``. Returns none if none arrives in ``WAIT_SECONDS``.

        It may be cancelled: the broker then delivers the messages again.
        """
        ...

    async def is_empty(self) -> bool:
        """Return whether no message waits in the queue and, if the broker reports this, none is unacknowledged."""
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend the lease on deliveries by ``lease_seconds`` from now."""
        ...

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Write a body and a reason (printable ASCII) to the dead-letter queue. Both are durable on return."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Remove messages from the queue. ``deliveries`` are all messages that one ``receive`` returned."""
        ...

    async def close(self) -> None:
        """Disconnect. The broker delivers unacknowledged messages again. Never raises."""
        ...
