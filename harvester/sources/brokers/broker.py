"""The protocol that every message broker implements, and the limits that all brokers share.

A broker object holds one connection to one queue. It receives, acknowledges and dead-letters messages. It never
interprets a message and never reconnects: it raises ``BrokerError``, and the trigger closes it and opens it again.
The docstring of ``harvester.sources.brokers`` lists the steps to add a broker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

BATCH_MESSAGES = 32
"""Messages that are received, enqueued and acknowledged together; they share one transaction of the ledger."""

PREFETCH_BYTES = 8 << 20
"""The most bytes of unacknowledged messages that a broker holds in memory; a single message may be larger."""

WAIT_SECONDS = 5.0
"""How long ``receive`` waits for a first message."""

CONNECTION_CUT_ERROR = RuntimeError
"""What uvloop raises when it writes to a connection that was just cut; the client libraries do not translate it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received message, which is unacknowledged until ``Broker.acknowledge``.

    ``delivery_count`` is 1 for the first delivery. ``handle`` is what the broker needs to acknowledge the message.
    ``problem`` says why the message cannot be read, if the broker already knows; ``body`` may then be empty.
    """

    body: bytes
    delivery_count: int
    handle: Any
    problem: str = ""


class Broker(Protocol):
    """One queue of one message broker.

    Every method but ``close`` may raise ``BrokerError``. After that, only ``close`` may be called, then ``open``.
    """

    @property
    def lease_seconds(self) -> float | None:
        """How long a delivery stays invisible to other consumers unless it is renewed; None: while connected."""
        ...

    async def open(self) -> list[str]:
        """Connect, check the queue, and return warnings about its configuration. Receives nothing yet."""
        ...

    async def receive(self) -> Sequence[Delivery]:
        """Return the available messages, at most ``BATCH_MESSAGES``, or nothing after a wait of ``WAIT_SECONDS``.

        May be cancelled: the broker delivers the lost messages again.
        """
        ...

    async def is_empty(self) -> bool:
        """Return whether no message is waiting and, as far as the broker reports it, none is in flight."""
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend the lease on deliveries by ``lease_seconds`` from now."""
        ...

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Write a body and a reason (printable ASCII) to the dead-letter queue; both are durable on return."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Remove messages from the queue. Takes exactly what one ``receive`` returned."""
        ...

    async def close(self) -> None:
        """Disconnect; the broker delivers unacknowledged messages again. Raises nothing."""
        ...
