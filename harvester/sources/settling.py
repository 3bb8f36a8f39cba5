"""What becomes of messages: good pairs go into the ledger, what is bad to the dead letters, each with its reason.

Whatever it does may be done again, and is when a message comes again. It acknowledges nothing: that is for the trigger,
once all of this returned.
"""

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from harvester.clock import Clock
from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued
from harvester.sources.brokers import Delivery
from harvester.sources.fields import Unusable
from harvester.sources.files import PAGE_PAIRS, Input
from harvester.sources.message import Message, Reader, reason

MAX_DELIVERIES = 15
"""A message that came this often without being settled is buried: fewer than the 20 after which RabbitMQ drops it."""

_REASON_CHARACTERS = 500
_TOLD_LINES = 5

log = structlog.get_logger()

Bury = Callable[[Delivery, bytes, str], Awaitable[None]]


class Count(Protocol):
    """Of the pairs handed over: how many the ledger did not know, and how many it did."""

    @property
    def new(self) -> int:
        """Those that it did not."""
        ...

    @property
    def known(self) -> int:
        """Those that it did."""
        ...


class Enqueue(Protocol):
    """How pairs get into the ledger: committed, durably, on return. ``once`` asks for a historical capture."""

    async def __call__(self, arrivals: Sequence[Enqueued], *, once: bool) -> Count:
        """Enqueue. Raises ``LedgerError``."""
        ...


@dataclass(slots=True)
class _Bad:
    """Bad lines of a file: how many, and what the first of them said."""

    count: int = 0
    told: list[str] = field(default_factory=list)

    def add(self, bad: BadLine) -> None:
        """Take one."""
        self.count += 1
        if self.count <= _TOLD_LINES:
            self.told.append(f"line {bad.line}: {bad.field} {bad.problem}")


class Stopped(Exception):  # noqa: N818 - it never leaves the sources
    """We were told to stop in the middle of something that may be left: it is not acknowledged."""


class Settling:
    """Settles the messages of one trigger; counts pairs by what the ledger said, and times that named no zone."""

    def __init__(
        self, trigger: str, *, reader: Reader, enqueue: Enqueue, bury: Bury, stopping: asyncio.Event, clock: Clock
    ) -> None:
        """Take what understands, what takes pairs, what takes dead letters, and what says that a file be left."""
        self.pairs_new = 0
        self.pairs_known = 0
        self.naive_times = 0
        self._log = log.bind(trigger=trigger)
        self._reader = reader
        self._enqueue = enqueue
        self._bury = bury
        self._stopping = stopping
        self._clock = clock

    async def settle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Settle all that messages ask for, the pairs of all of them first and together; gives the outcomes' counts.

        Raises ``StorageError`` and ``BrokerError`` where something is away for now, ``Stopped``.
        """
        read = [(delivery, self._read(delivery)) for delivery in deliveries]
        for once in (False, True):
            messages = (each for _, each in read if isinstance(each, Message) and each.once == once)
            pairs = iter([pair for message in messages for pair in message.pairs])
            while page := list(islice(pairs, PAGE_PAIRS)):
                await self._add(page, once=once)
        outcomes: Counter[str] = Counter()
        for delivery, message in read:
            if isinstance(message, Message):
                outcomes[await self._finish(delivery, message)] += 1
            else:
                await self._buried(delivery, delivery.body, message)
                outcomes["dead_lettered"] += 1
        return outcomes

    def _read(self, delivery: Delivery) -> Message | str:
        """Understand a message, or say why not."""
        if delivery.times > MAX_DELIVERIES:
            return f"was delivered {delivery.times} times and never settled"
        if delivery.flaw:
            return delivery.flaw
        try:
            return self._reader.read(delivery.body, latest=self._clock.wall() + DAY_SECONDS)
        except Unusable as error:
            return reason(error)

    async def _finish(self, delivery: Delivery, message: Message) -> str:
        """Import the files of a message, and bury what was bad in it; gives the outcome."""
        self._count_naive(message.naive_times)
        before = self.pairs_new + self.pairs_known
        problems = [problem for file in message.files if (problem := await self._import(file, once=message.once))]
        if problems:
            await self._buried(delivery, delivery.body, "; ".join(problems))
        elif message.bad:
            await self._buried(delivery, *message.leftover())
        elif not message.pairs and not message.files:
            self._log.info("message_ignored", why="a store's test event")
            return "ignored"
        if not problems and not message.bad:
            return "enqueued"
        return "partly" if message.pairs or self.pairs_new + self.pairs_known > before else "dead_lettered"

    async def _import(self, file: str, *, once: bool) -> str | None:
        """Enqueue the pairs of a file, a page at a time, read on another thread; gives what was wrong with it."""
        bad = _Bad()
        try:
            source = Input([file], workspaces=self._reader.workspaces, stdin=io.BytesIO(), now=self._clock.wall())
            pages = source.pages(bad)
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                if self._stopping.is_set():
                    raise Stopped
                if page:
                    await self._add(page, once=once)
        except UsageError as error:
            return str(error)
        self._count_naive(source.naive_times)
        return f"{file}: {bad.count} of {source.lines} lines name no pair: {'; '.join(bad.told)}" if bad.count else None

    def _count_naive(self, times: int) -> None:
        if times and not self.naive_times:
            self._log.warning("times without a zone are taken for UTC", hint="write them as 2026-11-20T08:00:00Z")
        self.naive_times += times

    async def _add(self, page: Sequence[Enqueued], *, once: bool) -> None:
        count = await self._enqueue(page, once=once)
        self.pairs_new += count.new
        self.pairs_known += count.known

    async def _buried(self, delivery: Delivery, body: bytes, why: str) -> None:
        told = why.encode("ascii", "backslashreplace").decode()
        told = "".join(mark if mark.isprintable() else " " for mark in told)[:_REASON_CHARACTERS]
        await self._bury(delivery, body, told)
        self._log.warning("message_dead_lettered", reason=told)
