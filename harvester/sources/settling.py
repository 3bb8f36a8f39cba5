"""What becomes of messages: good pairs go into the ledger, what is bad to the dead letters, each with its reason.

Whatever it does may be done again, and is when a message comes again. It acknowledges nothing: that is for the trigger,
once all of this returned. Whatever a single message raises is the end of that message, after a few tries, and of
nothing else; only the ledger, a store or the dead-letter place may hold up the others while they are away.
"""

import asyncio
import contextlib
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from harvester.clock import Clock
from harvester.errors import HarvesterError, SinkError, UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued
from harvester.sources.brokers import Delivery
from harvester.sources.fields import Unusable
from harvester.sources.files import PAGE_PAIRS, Input
from harvester.sources.message import MAX_MESSAGE_BYTES, Message, Reader, reason
from harvester.sources.temporary import temporary_problem

MAX_DELIVERIES = 15
"""A message that came this often without being settled is buried: fewer than the 20 after which RabbitMQ drops it."""

MAX_TRIES = 5
"""A message whose file cannot be had, though its store is there, or that meets a bug of ours, is buried after these."""

_INLINE_BYTES = 64 * 1024
"""Messages that are larger together are parsed on another thread."""

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


class _Hopeless(Exception):  # noqa: N818 - it never leaves this file
    """A message that was tried often enough; its text is the reason."""


class Stopped(Exception):  # noqa: N818 - it never leaves the sources
    """We were told to stop in the middle of something that may be left: it is not acknowledged."""


class Settling:
    """Settles the messages of one trigger; counts pairs by what the ledger said, and times that named no zone."""

    def __init__(
        self, trigger: str, *, reader: Reader, enqueue: Enqueue, bury: Bury, stopping: asyncio.Event, clock: Clock,
        wait_first_seconds: float = 1.0,
    ) -> None:  # fmt: skip
        """Take what understands, what takes pairs, what takes dead letters, and what says that a file be left.

        Between the tries of one message the waits double, from the first on.
        """
        self.pairs_new = 0
        self.pairs_known = 0
        self.naive_times = 0
        self._log = log.bind(trigger=trigger)
        self._reader = reader
        self._enqueue = enqueue
        self._bury = bury
        self._stopping = stopping
        self._clock = clock
        self._wait_first_seconds = wait_first_seconds

    def warnings(self) -> list[str]:
        """Say what will keep files of messages from being read."""
        problem = temporary_problem() if self._reader.prefixes else None
        return [] if problem is None else [f"{problem}; messages that name files go to the dead letters"]

    async def settle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Settle all that messages ask for, a few at a time where they are large; gives the outcomes' counts.

        Raises ``StorageError`` and ``BrokerError`` where something is away for now, ``Stopped``.
        """
        outcomes: Counter[str] = Counter()
        for group in _groups(deliveries):
            outcomes += await self._settle_group(group)
        return outcomes

    async def _settle_group(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Settle messages, the pairs of all of them first and together."""
        if sum(len(each.body) for each in deliveries) > _INLINE_BYTES:
            read = await asyncio.to_thread(lambda: [self._read(each) for each in deliveries])
        else:
            read = [self._read(each) for each in deliveries]
        added = await self._add_together([each for each in read if isinstance(each, Message)])
        outcomes: Counter[str] = Counter()
        for delivery, message in zip(deliveries, read, strict=True):
            if isinstance(message, Message):
                outcomes[await self._finish(delivery, message, added=added)] += 1
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
        except Exception as error:  # noqa: BLE001 - whatever a body raises is that message's end, not the process's
            return self._report_bug(error)

    async def _add_together(self, messages: Sequence[Message]) -> bool:
        """Enqueue the pairs of all messages; where that fails in an unexpected way, each is to be tried alone."""
        try:
            for once in (False, True):
                await self._add_pairs([each for each in messages if each.once == once], once=once)
        except (HarvesterError, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - one of them is the cause, and the others shall not suffer
            self._report_bug(error)
            return False
        return True

    async def _finish(self, delivery: Delivery, message: Message, *, added: bool) -> str:
        """Import the files of a message, and bury what was bad in it; gives the outcome."""
        self._count_naive(message.naive_times)
        before = self.pairs_new + self.pairs_known
        try:
            failed = await self._work(message, added=added)
        except _Hopeless as why:
            await self._buried(delivery, delivery.body, str(why))
            return "dead_lettered"
        for what in message.skipped:
            self._log.info("object_skipped", what=what)
        if failed or message.bad:
            good = bool(message.pairs) or len(failed) < len(message.files)
            await self._bury_rest(delivery, message, failed, good=good)
            return "partly" if good or self.pairs_new + self.pairs_known > before else "dead_lettered"
        if not message.pairs and not message.files:
            self._log.info("message_ignored", why="it names nothing to read")
            return "ignored"
        return "enqueued"

    async def _work(self, message: Message, *, added: bool) -> dict[str, str]:
        """Do what a message asks for; gives what was wrong with its files. Raises ``_Hopeless`` after many tries."""
        for tried in range(MAX_TRIES):
            try:
                if not added:
                    await self._add_pairs([message], once=message.once)
                problems = {each: await self._try_import(each, once=message.once) for each in message.files}
                return {file: problem for file, problem in problems.items() if problem}
            except (HarvesterError, Stopped):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a message raises is that message's end
                why = self._report_bug(error)
            await self._pause(tried)
        raise _Hopeless(why)

    async def _try_import(self, file: str, *, once: bool) -> str | None:
        """Import a file, again and again where its store has trouble with it; gives what was wrong with it.

        Raises ``SinkError`` where the store itself is away: then the message waits.
        """
        from harvester.stores import Unwilling, answers  # noqa: PLC0415 - only those who use a store wait for it

        for tried in range(MAX_TRIES):
            try:
                return await self._import(file, once=once)
            except SinkError as error:
                if not isinstance(error, Unwilling) and not await asyncio.to_thread(answers, file):
                    raise
                why = str(error)
                self._log.warning("file_failed", problem=why, tries=tried + 1)
            await self._pause(tried)
        return f"{file}: was tried {MAX_TRIES} times: {why}"

    async def _pause(self, tried: int) -> None:
        """Wait before the next try. Raises ``Stopped``."""
        if tried < MAX_TRIES - 1:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._wait_first_seconds * 2.0**tried)
                raise Stopped

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
        if not source.lines:
            self._log.warning("list_empty", file=file)
        return f"{file}: {bad.count} of {source.lines} lines name no pair: {'; '.join(bad.told)}" if bad.count else None

    async def _bury_rest(self, delivery: Delivery, message: Message, failed: dict[str, str], *, good: bool) -> None:
        """Bury what was bad of a message, as a message of its own where something was good and it can be written."""
        rest, why = delivery.body, "; ".join([*(each for _, each in message.bad if each), *failed.values()])
        if good:
            with contextlib.suppress(TypeError):
                rest, why = message.leftover(failed)
        await self._buried(delivery, rest, why)

    def _report_bug(self, error: Exception) -> str:
        """Log an error that nobody expects, without its text, which may hold anything; gives it as a reason."""
        kind, at = bug_of(error)
        self._log.error("bug_found", error=kind, at=at, hint="please report this line; only this message is affected")
        return f"an unexpected error, {kind} at {at}; please report it"

    def _count_naive(self, times: int) -> None:
        if times and not self.naive_times:
            self._log.warning("times without a zone are taken for UTC", hint="write them as 2026-11-20T08:00:00Z")
        self.naive_times += times

    async def _add_pairs(self, messages: Sequence[Message], *, once: bool) -> None:
        pairs = iter([pair for message in messages for pair in message.pairs])
        while page := list(islice(pairs, PAGE_PAIRS)):
            await self._add(page, once=once)

    async def _add(self, page: Sequence[Enqueued], *, once: bool) -> None:
        count = await self._enqueue(page, once=once)
        self.pairs_new += count.new
        self.pairs_known += count.known

    async def _buried(self, delivery: Delivery, body: bytes, why: str) -> None:
        told = why.encode("ascii", "backslashreplace").decode()
        told = "".join(mark if mark.isprintable() else " " for mark in told)[:_REASON_CHARACTERS]
        await self._bury(delivery, body, told)
        self._log.warning("message_dead_lettered", reason=told)


def bug_of(error: BaseException) -> tuple[str, str]:
    """Give an error's type, and the last place of our own that it passed, such as ``files.py:12``."""
    at, step = "an unknown place", error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if "harvester" in file.parts:
            at = f"{file.name}:{step.tb_lineno}"
        step = step.tb_next
    return type(error).__name__, at


def _groups(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Part messages into groups of bounded size: parsed, a message takes many times its own."""
    group: list[Delivery] = []
    for each in deliveries:
        if group and sum(len(other.body) for other in group) + len(each.body) > MAX_MESSAGE_BYTES:
            yield group
            group = []
        group.append(each)
    if group:
        yield group
