"""A trigger: receives messages from one broker, handles and acknowledges them, and reconnects after failures.

It owns the connection to the broker. It acknowledges a message only after the ledger has committed its pairs, or the
dead-letter queue has stored it. While the ledger, a store or the dead-letter queue is unavailable, it receives nothing,
so that no message reaches the broker's delivery limit.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from harvester.clock import BrazeClock
from harvester.condition import Failing
from harvester.errors import HarvesterError
from harvester.observability.traces import begin_span
from harvester.sources.brokers import Broker, Delivery
from harvester.sources.importer import EnqueuePairs, TriggerStopped
from harvester.sources.messages.error_location import locate_error
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.message_handler import MessageHandler

_MAX_DOUBLINGS = 10

log = structlog.get_logger()
T = TypeVar("T")


class Trigger:
    """Consumes the queue of one broker until ``stop``.

    ``outcomes`` counts acknowledged messages: ``enqueued``, ``partly_enqueued`` (invalid pairs were dead-lettered),
    ``dead_lettered`` and ``ignored``. ``problem`` says why nothing is received; it is None while the trigger works.
    ``failing`` also has the cause and the start time. ``empty`` is whether the queue was empty at the last check.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        *,
        parser: MessageParser,
        enqueue: EnqueuePairs,
        clock: BrazeClock,
        jitter: random.Random,
        wait_first_seconds: float = 1.0,
        wait_max_seconds: float = 60.0,
    ) -> None:
        """Create a trigger for a broker that is not connected. Waits double, from the first to the maximum."""
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self.connected = False
        self.empty = False
        self.problem: str | None = "not connected yet"
        self.failing: Failing | None = None
        self.warnings: list[str] = []
        self._broker = broker
        self._clock = clock
        self._jitter = jitter
        self._wait_first_seconds = wait_first_seconds
        self._wait_max_seconds = wait_max_seconds
        self._failures = 0
        self._unacknowledged: Sequence[Delivery] = ()
        self._stopping = asyncio.Event()
        self._log = log.bind(trigger=name)
        self.handler = MessageHandler(
            name,
            parser=parser,
            enqueue=enqueue,
            dead_letter=broker.dead_letter,
            stopping=self._stopping,
            clock=clock,
            wait_first_seconds=wait_first_seconds,
        )

    def stop(self) -> None:
        """Receive no more messages. The current messages are finished, but the import of a file ends after its page."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until ``stop``, and reconnect after every failure. Never raises."""
        while not self._stopping.is_set():
            try:
                await self._consume()
            except TriggerStopped:
                return
            except HarvesterError as error:
                self._record_failure(str(error), error.cause)
                self._log.debug("trigger_waiting", error=self.problem, failures=self._failures)
            except Exception as error:  # noqa: BLE001 - an error of one broker must not end the process
                kind, location = locate_error(error)
                self._record_failure(f"an unexpected error, {kind} at {location}; please report it", "bug")
                self._log.error(
                    "bug_found",
                    error=kind,
                    location=location,
                    failures=self._failures,
                    hint="please report this line",
                )
            finally:
                self.connected = self.empty = False
                await self._broker.close()
            with contextlib.suppress(TriggerStopped):
                await self._run_until_stopped(asyncio.sleep(self._backoff_seconds()))

    def _record_failure(self, problem: str, cause: str) -> None:
        self._failures += 1
        self.problem = problem
        since = self.failing.since if self.failing else self._clock.monotonic()
        self.failing = Failing(since, cause, problem)

    def _backoff_seconds(self) -> float:
        """Return the wait before the next connection, with jitter, so that replicas do not all reconnect together."""
        doublings = min(self._failures - 1, _MAX_DOUBLINGS)
        max_seconds = min(self._wait_max_seconds, self._wait_first_seconds * 2.0**doublings)
        return self._jitter.uniform(max_seconds / 2, max_seconds)

    async def _consume(self) -> None:
        """Consume over one connection. Raises ``TriggerStopped``, or the error that ended the connection."""
        await self._connect()
        if self._unacknowledged:
            # They were received over an earlier connection. Nothing new is received until they are handled. The broker
            # delivers them again later.
            await self._handle(self._unacknowledged)
            self._unacknowledged = ()
        while not self._stopping.is_set():
            deliveries = await self._run_until_stopped(self._broker.receive())
            self.problem = self.failing = None
            if deliveries:
                self.empty = False
                await self._process(deliveries)
            else:
                self.empty = await self._run_until_stopped(self._broker.is_empty())
            self._failures = 0

    async def _connect(self) -> None:
        warnings = [*await self._run_until_stopped(self._broker.open()), *self.handler.list_warnings()]
        for warning in warnings:
            if warning not in self.warnings:
                self._log.warning("trigger_unsafe", reason=warning)
        self.warnings = warnings
        self.connected = True

    async def _process(self, deliveries: Sequence[Delivery]) -> None:
        """Handle deliveries, then acknowledge them."""
        self._unacknowledged = deliveries
        async with self._renewing_lease(deliveries):
            outcomes = await self._handle(deliveries)
        self._unacknowledged = ()
        await self._broker.acknowledge(deliveries)
        self.outcomes += outcomes

    async def _handle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        span, outcomes = begin_span("handle_messages", trigger=self.name, messages=len(deliveries)), Counter[str]()
        try:
            outcomes = await self.handler.handle(deliveries)
        finally:
            span.end(**outcomes)
        return outcomes

    @asynccontextmanager
    async def _renewing_lease(self, deliveries: Sequence[Delivery]) -> AsyncIterator[None]:
        """Renew the lease on deliveries until the block ends. If a lease is lost, its message is delivered again."""
        lease_seconds = self._broker.lease_seconds

        async def renew_repeatedly() -> None:
            while lease_seconds is not None:
                await asyncio.sleep(lease_seconds / 3)
                try:
                    await self._broker.renew(deliveries)
                except HarvesterError as error:
                    self._log.warning("message_lease_renewal_failed", error=str(error))

        renewal = asyncio.create_task(renew_repeatedly(), name=f"lease of {self.name}")
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def _run_until_stopped(self, work: Awaitable[T]) -> T:
        """Await ``work``, but cancel it at ``stop``. Raises ``TriggerStopped``."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise TriggerStopped
            return task.result()
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
