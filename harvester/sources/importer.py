"""Imports the pairs and files of messages into the ledger, one page at a time.

If a file cannot be read, its message becomes a dead letter after a few attempts. While the whole store is unavailable,
the message waits instead.
"""

import asyncio
import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from harvester.clock import BrazeClock
from harvester.errors import SinkError, UsageError
from harvester.model import DAY_SECONDS, BadLine, SentPair
from harvester.sources.fields import format_problem
from harvester.sources.input import PAGE_PAIRS, Input

MAX_ATTEMPTS = 5
"""Attempts for a message that causes an unexpected error, or whose file cannot be read while its store responds."""

_FIRST_REASONS = 5

log = structlog.get_logger()


class EnqueueCount(Protocol):
    """The result of an ``EnqueuePairs``: how many pairs were new to the ledger, and how many were known."""

    @property
    def new(self) -> int:
        """Pairs that were new to the ledger."""
        ...

    @property
    def known(self) -> int:
        """Pairs that were already in the ledger."""
        ...


class EnqueuePairs(Protocol):
    """Writes pairs to the ledger; they are durable on return. ``once`` requests one immediate reading of each pair."""

    async def __call__(self, arrivals: Sequence[SentPair], *, once: bool) -> EnqueueCount:
        """Enqueue pairs. Raises ``LedgerError``."""
        ...


class TriggerStopped(Exception):  # noqa: N818 - it never leaves the sources
    """The service is stopping. The message is not acknowledged, so the broker delivers it again."""


@dataclass(slots=True)
class _BadLines:
    """Counts the bad lines of a file, and stores the first reasons."""

    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, bad: BadLine) -> None:
        """Add one bad line."""
        self.count += bad.lines
        if len(self.reasons) < _FIRST_REASONS:
            self.reasons.append(f"line {bad.line}: {format_problem(bad.field, bad.problem)}")


class Importer:
    """Enqueues pairs, and counts new pairs, known pairs, and times without a zone."""

    def __init__(
        self,
        trigger: str,
        *,
        workspaces: Collection[str],
        enqueue: EnqueuePairs,
        stopping: asyncio.Event,
        clock: BrazeClock,
        wait_first_seconds: float,
    ) -> None:
        """Stop imports when ``stopping`` is set. Waits between attempts double, from ``wait_first_seconds``."""
        self.pairs_new = 0
        self.pairs_known = 0
        self.naive_times = 0
        self._log = log.bind(trigger=trigger)
        self._workspaces = workspaces
        self._enqueue = enqueue
        self._stopping = stopping
        self._clock = clock
        self._wait_first_seconds = wait_first_seconds

    async def add_pairs(self, arrivals: Sequence[SentPair], *, once: bool) -> None:
        """Enqueue pairs, one page at a time. Raises ``LedgerError``."""
        remaining = iter(arrivals)
        while page := list(islice(remaining, PAGE_PAIRS)):
            await self._add_page(page, once=once)

    async def _add_page(self, page: Sequence[SentPair], *, once: bool) -> None:
        count = await self._enqueue(page, once=once)
        self.pairs_new += count.new
        self.pairs_known += count.known

    def add_naive_times(self, count: int) -> None:
        """Add a number of times without a zone, and log a warning for the first one."""
        if count and not self.naive_times:
            self._log.warning("time_zone_missing", hint="read as UTC; write times as 2026-11-20T08:00:00Z")
        self.naive_times += count

    async def import_file(self, url: str, *, once: bool) -> str | None:
        """Import a file, with several attempts if its store refuses a request. Returns the problem of the file or None.

        Raises ``SinkError`` if the store itself is unavailable, or the temporary folder is full.
        """
        from harvester.storage.object_store import RequestRefused, is_available  # noqa: PLC0415 - it is slow to import

        for attempt in range(MAX_ATTEMPTS):
            try:
                return await self._import_file_once(url, once=once)
            except SinkError as error:
                if error.cause == "disk_full":
                    raise
                if not isinstance(error, RequestRefused) and not await asyncio.to_thread(is_available, url):
                    raise
                problem = str(error)
                self._log.warning("file_failed", error=problem, attempts=attempt + 1)
            await self.wait_before_retry(attempt)
        return f"{url}: could not be read in {MAX_ATTEMPTS} attempts: {problem}"

    async def wait_before_retry(self, attempt: int) -> None:
        """Wait after a failed attempt, except after the last one. Raises ``TriggerStopped``."""
        if attempt < MAX_ATTEMPTS - 1:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._wait_first_seconds * 2.0**attempt)
                raise TriggerStopped

    async def _import_file_once(self, url: str, *, once: bool) -> str | None:
        """Enqueue the pairs of a file, which another thread reads page by page. Returns its problem or None."""
        bad_lines = _BadLines()
        try:
            now = self._clock.latest_send() - DAY_SECONDS
            source = Input([url], workspaces=self._workspaces, stdin=io.BytesIO(), now=now, patterns=False)
            pages = source.read_pages(bad_lines)
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                if self._stopping.is_set():
                    raise TriggerStopped
                if page:
                    await self._add_page(page, once=once)
        except UsageError as error:
            return str(error)
        self.add_naive_times(source.naive_times)
        for note in source.notes:
            self._log.warning("list_doubtful", reason=note)
        if not bad_lines.count:
            return None
        return f"{url}: {bad_lines.count} of {source.lines} lines contain no pair: {'; '.join(bad_lines.reasons)}"
