"""From a broker's messages to pairs in the ledger: receive, settle, acknowledge, and connect again.

It owns one broker's connection and the order of these steps. It must never acknowledge before the ledger has
committed, nor drop a message that it does not understand, nor turn in a circle: while the ledger, a store or the
dead-letter place is away nothing is received, so that no message uses up its deliveries.
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
from harvester.errors import HarvesterError
from harvester.health import Failing
from harvester.observability.traces import begin
from harvester.sources.brokers import Broker, Delivery
from harvester.sources.bugs import bug_of
from harvester.sources.importing import Enqueue, Stopped
from harvester.sources.message import Reader
from harvester.sources.message_handler import Settling

log = structlog.get_logger()
T = TypeVar("T")


class Trigger:
    """One broker's queue, read until ``stop``.

    ``outcomes`` counts messages that were settled: ``enqueued``, ``partly`` (its bad pairs were dead-lettered),
    ``dead_lettered``, ``ignored``. ``problem`` says why nothing is received, None while all is well. ``empty`` tells
    whether the queue was seen empty since the last message.
    """

    def __init__(
        self, name: str, broker: Broker, *, reader: Reader, enqueue: Enqueue, clock: BrazeClock,
        jitter: random.Random, wait_first_seconds: float = 1.0, wait_max_seconds: float = 60.0,
    ) -> None:  # fmt: skip
        """Take a broker that is not connected; after failures in a row the waits grow from the first to the longest."""
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self.connected = False
        self.empty = False
        self.problem: str | None = "not connected yet"
        self.failing: Failing | None = None
        """Since when nothing could be received although it was tried, and why."""
        self.warnings: list[str] = []
        self._broker = broker
        self._clock = clock
        self._jitter = jitter
        self._wait_first_seconds = wait_first_seconds
        self._wait_max_seconds = wait_max_seconds
        self._failures = 0
        self._in_hand: Sequence[Delivery] = ()
        self._stopping = asyncio.Event()
        self._log = log.bind(trigger=name)
        self.settling = Settling(
            name, reader=reader, enqueue=enqueue, bury=broker.bury, stopping=self._stopping, clock=clock,
            wait_first_seconds=wait_first_seconds,
        )  # fmt: skip

    def stop(self) -> None:
        """Receive no more; what is being settled is settled, but a file is left at its next page."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop``; whatever of the outside world fails is waited for, and told by ``problem``."""
        while not self._stopping.is_set():
            try:
                await self._session()
            except Stopped:
                return
            except HarvesterError as error:
                self._failures += 1
                self.problem = str(error)
                self._fail(error.cause)
                self._log.debug("trigger_waiting", error=self.problem, failures=self._failures)
            except Exception as error:  # noqa: BLE001 - what comes from a broker never ends the process
                self._failures += 1
                kind, at = bug_of(error)
                self.problem = f"an unexpected error, {kind} at {at}; please report it"
                self._fail("bug")
                self._log.error(
                    "bug_found", error=kind, location=at, failures=self._failures, hint="please report this line"
                )
            finally:
                self.connected = self.empty = False
                await self._broker.close()
            with contextlib.suppress(Stopped):
                await self._unless_stopped(asyncio.sleep(self._pause_seconds()))

    def _fail(self, cause: str) -> None:
        since = self.failing.since if self.failing else self._clock.monotonic()
        self.failing = Failing(since, cause, self.problem or "")

    def _pause_seconds(self) -> float:
        """Grow with every failure in a row, with jitter, so that replicas don't come back all at once."""
        longest = min(self._wait_max_seconds, self._wait_first_seconds * 2.0 ** min(self._failures - 1, 10))
        return self._jitter.uniform(longest / 2, longest)

    async def _session(self) -> None:
        """Work over one connection."""
        warnings = [*await self._unless_stopped(self._broker.open()), *self.settling.warnings()]
        for warning in warnings:
            if warning not in self.warnings:
                self._log.warning("trigger_unsafe", reason=warning)
        self.warnings = warnings
        self.connected = True
        if self._in_hand:
            # Taken over a connection that is gone. Nothing is received until they can be settled; then they come again.
            await self._settle(self._in_hand)
            self._in_hand = ()
        while not self._stopping.is_set():
            deliveries = await self._unless_stopped(self._broker.receive())
            self.problem = self.failing = None
            if deliveries:
                self.empty = False
                await self._take(deliveries)
            else:
                self.empty = await self._unless_stopped(self._broker.empty())
            self._failures = 0

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        self._in_hand = deliveries
        async with self._kept(deliveries):
            outcomes = await self._settle(deliveries)
        self._in_hand = ()
        await self._broker.ack(deliveries)
        self.outcomes += outcomes

    async def _settle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        span, outcomes = begin("settle", trigger=self.name, messages=len(deliveries)), Counter[str]()
        try:
            outcomes = await self.settling.settle(deliveries)
        finally:
            span.end(**outcomes)
        return outcomes

    @asynccontextmanager
    async def _kept(self, deliveries: Sequence[Delivery]) -> AsyncIterator[None]:
        """Keep the lease on deliveries for as long as they take; a lease that is lost costs a redelivery, no more."""
        lease = self._broker.lease_seconds

        async def keep() -> None:
            while lease is not None:
                await asyncio.sleep(lease / 3)
                try:
                    await self._broker.keep(deliveries)
                except HarvesterError as error:
                    self._log.warning("lease_renewal_failed", error=str(error))

        keeper = asyncio.create_task(keep(), name=f"lease of {self.name}")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """Await, but no longer than until ``stop``. Raises ``Stopped``."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
