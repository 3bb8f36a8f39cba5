"""Imports a message's pairs and files into the ledger, a page at a time.

A file that cannot be read makes its message a dead letter after a few tries. While the whole store is unavailable,
messages wait instead.
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
"""Tries for a message whose file cannot be read though its store answers, or that triggers a bug; then it is buried."""

_SHOWN_REASONS = 5

log = structlog.get_logger()


class Count(Protocol):
    """How many of the enqueued pairs were new to the ledger, and how many it knew."""

    @property
    def new(self) -> int:
        """Pairs that were new to the ledger."""
        ...

    @property
    def known(self) -> int:
        """Pairs that the ledger knew."""
        ...


class Enqueue(Protocol):
    """Puts pairs into the ledger, durably on return. ``once`` asks for a historical capture."""

    async def __call__(self, arrivals: Sequence[Enqueued], *, once: bool) -> Count:
        """Enqueue. Raises ``LedgerError``."""
        ...


@dataclass(slots=True)
class _Bad:
    """The bad lines of a file: their number, and the first reasons."""

    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, bad: BadLine) -> None:
        """Take one."""
        self.count += bad.lines
        if len(self.reasons) < _SHOWN_REASONS:
            self.reasons.append(f"line {bad.line}: {bad.field} {bad.problem}")


class Stopped(Exception):  # noqa: N818 - it never leaves the sources
    """The service is stopping. The message is not acknowledged, so it comes again."""


class Importer:
    """Puts pairs into the ledger, and counts new pairs, known pairs, and times without a zone."""

    def __init__(
        self, trigger: str, *, workspaces: Sequence[str], enqueue: Enqueue, stopping: asyncio.Event, clock: BrazeClock,
        wait_first_seconds: float,
    ) -> None:  # fmt: skip
        """Enqueue by ``enqueue``, and stop importing once ``stopping`` is set. Waits between tries double."""
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
        """Count times without a zone, and log a warning for the first."""
        if times and not self.naive_times:
            self._log.warning("time_zone_missing", hint="read as UTC; write times as 2026-11-20T08:00:00Z")
        self.naive_times += times

    async def import_file(self, file: str, *, once: bool) -> str | None:
        """Import a file, in several tries if its store refuses it; returns what was wrong with the file.

        Raises ``SinkError`` if the store itself is unavailable: then the message waits.
        """
        from harvester.storage.object_store import RequestRefused, is_available  # noqa: PLC0415 - only those who use a store wait for it

        for tried in range(MAX_TRIES):
            try:
                return await self._import(file, once=once)
            except SinkError as error:
                if not isinstance(error, RequestRefused) and not await asyncio.to_thread(is_available, file):
                    raise
                why = str(error)
                self._log.warning("file_failed", error=why, attempts=tried + 1)
            await self.pause(tried)
        return f"{file}: could not be read in {MAX_TRIES} tries: {why}"

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
            self._log.warning("list_doubtful", reason=note)
        return (
            f"{file}: {bad.count} of {source.lines} lines name no pair: {'; '.join(bad.reasons)}" if bad.count else None
        )
