"""From a message's pairs and files into the ledger: a page at a time, and a file again where its store has trouble.

It tells a file that cannot be had, which is its message's end after a few tries, from a store that is away, for which
messages wait.
"""

import asyncio
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from harvester.clock import BrazeClock
from harvester.errors import SinkError, UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued
from harvester.sources.files import PAGE_PAIRS, Input

MAX_TRIES = 5
"""A message whose file cannot be had, though its store is there, or that meets a bug of ours, is buried after these."""

_TOLD_LINES = 5

log = structlog.get_logger()


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
        self.count += bad.lines
        if len(self.told) < _TOLD_LINES:
            self.told.append(f"line {bad.line}: {bad.field} {bad.problem}")


class Stopped(Exception):  # noqa: N818 - it never leaves the sources
    """We were told to stop in the middle of something that may be left: it is not acknowledged."""


class Importer:
    """Puts pairs into the ledger; counts them by what the ledger said, and times that named no zone."""

    def __init__(
        self, trigger: str, *, workspaces: Sequence[str], enqueue: Enqueue, stopping: asyncio.Event, clock: BrazeClock,
        wait_first_seconds: float,
    ) -> None:  # fmt: skip
        """Take what takes pairs, and what says that a file be left; waits between tries double from the first on."""
        self.pairs_new = 0
        self.pairs_known = 0
        self.naive_times = 0
        self._log = log.bind(trigger=trigger)
        self._workspaces = tuple(workspaces)
        self._enqueue = enqueue
        self._stopping = stopping
        self._clock = clock
        self._wait_first_seconds = wait_first_seconds

    async def add_pairs(self, given: Sequence[Enqueued], *, once: bool) -> None:
        """Enqueue pairs, a page at a time. Raises ``LedgerError``."""
        pairs = iter(given)
        while page := list(islice(pairs, PAGE_PAIRS)):
            await self._add(page, once=once)

    async def _add(self, page: Sequence[Enqueued], *, once: bool) -> None:
        count = await self._enqueue(page, once=once)
        self.pairs_new += count.new
        self.pairs_known += count.known

    def count_naive(self, times: int) -> None:
        """Count times without a zone, and warn of the first."""
        if times and not self.naive_times:
            self._log.warning("times without a zone are taken for UTC", hint="write them as 2026-11-20T08:00:00Z")
        self.naive_times += times

    async def import_file(self, file: str, *, once: bool) -> str | None:
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
            await self.pause(tried)
        return f"{file}: was tried {MAX_TRIES} times: {why}"

    async def pause(self, tried: int) -> None:
        """Wait before the next try. Raises ``Stopped``."""
        if tried < MAX_TRIES - 1:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._wait_first_seconds * 2.0**tried)
                raise Stopped

    async def _import(self, file: str, *, once: bool) -> str | None:
        """Enqueue the pairs of a file, a page at a time, read on another thread; gives what was wrong with it."""
        bad = _Bad()
        try:
            now = self._clock.latest_send() - DAY_SECONDS
            source = Input([file], workspaces=self._workspaces, stdin=io.BytesIO(), now=now)
            pages = source.pages(bad)
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                if self._stopping.is_set():
                    raise Stopped
                if page:
                    await self._add(page, once=once)
        except UsageError as error:
            return str(error)
        self.count_naive(source.naive_times)
        for note in source.notes:
            self._log.warning("list_doubtful", note=note)
        return f"{file}: {bad.count} of {source.lines} lines name no pair: {'; '.join(bad.told)}" if bad.count else None
