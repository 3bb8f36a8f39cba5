"""Runs one historical capture: enqueues the pairs, captures them, and returns a summary.

The composition root of ``harvester run``.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harvester.braze.pace_state import PaceState
from harvester.commands.enqueue import enqueue_all
from harvester.commands.summary import Summary
from harvester.condition import ConditionLog
from harvester.engine.engine import Engine
from harvester.engine.workspaces import Connect
from harvester.errors import HarvesterError, LedgerError, SinkError
from harvester.ledger import Ledger
from harvester.model import SentPair
from harvester.settings import Settings
from harvester.signals import stop_on_signals
from harvester.sources import Input, RejectsFile
from harvester.sources.input import PAGE_PAIRS
from harvester.storage import Compression, Sink

REPORT_SECONDS = 1.0
"""How often conditions are checked and pending pairs are counted, for a person who watches."""


@dataclass(frozen=True, slots=True)
class WorkspaceProgress:
    """The progress of a run in one workspace. ``total`` counts its pending pairs and those that the run has finished.

    ``answered`` are captured or rejected, and ``saved`` of them survive a kill. ``describe_hold`` says what a hold of a
    cause waits for.
    """

    answered: int
    saved: int
    total: int
    pace: PaceState
    describe_hold: Callable[[str], str]


class Run:
    """One run over one ledger and one sink."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, sink: Sink, compression: Compression,
        connect: Connect | None = None,
    ) -> None:  # fmt: skip
        """Use an open ledger and sink; ``capture`` does the work."""
        self._settings = settings
        self._ledger = ledger
        self._clock = ledger.clock
        self._engine = Engine(settings, ledger=ledger, sink=sink, compression=compression, connect=connect)
        self._condition_log = ConditionLog(self._clock)
        self._totals: dict[str, int] = {}
        self._list_task: asyncio.Task[None] | None = None
        self._can_start = asyncio.Event()
        """Set once the first page of a long list is enqueued, or no list is being read any more."""
        self._lists_read = False
        self._stopped = False
        self._retention_unconfirmed = False

    def stop(self) -> None:
        """Read no more lists, claim nothing more, and let requests in flight finish."""
        self._stopped = True
        if self._list_task is not None:
            self._list_task.cancel()
        self._engine.stop()

    @property
    def is_reading_lists(self) -> bool:
        """Whether lists are still being read."""
        return self._list_task is not None and not self._list_task.done()

    @property
    def _list_error(self) -> BaseException | None:
        """The error that ended the reading of the lists; None while there is none."""
        if self._list_task is None or not self._list_task.done() or self._list_task.cancelled():
            return None
        return self._list_task.exception()

    @property
    def store_problem(self) -> SinkError | None:
        """Why sealed parts wait to be stored; None if none waits because of a failure."""
        return self._engine.uploader.problem

    @property
    def wall(self) -> float:
        """Braze's time, in wall-clock seconds."""
        return self._clock.wall()

    def progress(self) -> dict[str, WorkspaceProgress]:
        """Return the progress of each workspace; empty until the first pairs are counted."""
        if not self._totals:
            return {}
        workspaces, unsaved = self._engine.workspaces, self._engine.count_unsealed()
        return {
            name: WorkspaceProgress(
                answered=self._engine.counters.count_done(name) + unsaved[name],
                saved=self._engine.counters.count_done(name),
                total=self._totals.get(name, 0),
                pace=workspaces.get_pace_state(name),
                describe_hold=partial(workspaces.describe_hold, name),
            )
            for name in workspaces.list_used()
        }

    async def capture(self, pairs: Input, rejects: RejectsFile, *, forced: bool = False) -> Summary:
        """Enqueue the pairs, capture them, and return the summary. A long list is captured while it is read.

        Raises ``UsageError`` for unusable input, and ``StorageError`` if the ledger fails or the place fails from the
        start. A later failure of the place or of a list is the summary's ``problem``.
        """
        async with self._engine.opened():
            await self._ledger.intake.reset_deferrals(tuple(self._settings.workspaces))
            with stop_on_signals(self.stop):
                self._list_task = asyncio.create_task(self._enqueue_all(pairs, rejects, forced=forced), name="lists")
                self._list_task.add_done_callback(self._on_lists_ended)
                try:
                    await self._can_start.wait()
                    await self._run_engine()
                finally:
                    self._list_task.cancel()
        return await self._summary(pairs, rejects)

    async def _run_engine(self) -> None:
        """Capture until all lists are read and nothing is left."""
        if self._list_error is not None:
            raise self._list_error
        await self._count_pairs()
        report = asyncio.create_task(self._report(), name="report")
        try:
            await self._engine.run(more_pairs=self.is_reading_lists)
        finally:
            report.cancel()
            self._condition_log.update(self._engine.conditions())
        if self._list_error is not None and not isinstance(self._list_error, HarvesterError):
            raise self._list_error

    async def _report(self) -> None:
        """Log conditions as soon as they begin and end, and count the pairs: other processes may enqueue some too."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._condition_log.update(self._engine.conditions())
            with contextlib.suppress(LedgerError):  # the engine raises it
                await self._count_pairs()

    async def _count_pairs(self) -> None:
        pending = await self._ledger.reports.count_pending()
        done = {name: self._engine.counters.count_done(name) for name in self._settings.workspaces}
        self._totals = {name: pending.get(name, 0) + done[name] for name in done if name in pending or done[name]}

    async def _enqueue_all(self, pairs: Input, rejects: RejectsFile, *, forced: bool) -> None:
        confirm, loop = self._engine.confirm_time, asyncio.get_running_loop()

        def enqueue_new(page: Sequence[SentPair]) -> bool:
            return asyncio.run_coroutine_threadsafe(self._enqueue_new(page), loop).result()

        async for page, count in enqueue_all(
            self._ledger, pairs, rejects, forced=forced, once=True, confirm=confirm,
            enqueue_new=None if forced else enqueue_new,
        ):  # fmt: skip
            if pairs.unconfirmed_pair is not None:
                await confirm(pairs.unconfirmed_pair.workspace)
                pairs.set_time(self._clock.wall())
            self._retention_unconfirmed |= count.in_question is not None
            self._engine.wake({each.pair.workspace for each in page})
        self._lists_read = True

    async def _enqueue_new(self, page: Sequence[SentPair]) -> bool:
        """Enqueue the new pairs of a page while its list is read, and wake the engine. Returns whether all were new.

        After the first page, the engine can start.
        """
        new = 0
        for start in range(0, len(page), PAGE_PAIRS):
            if self._stopped:
                return False
            pairs = page[start : start + PAGE_PAIRS]
            new += await self._ledger.intake.enqueue_new(pairs)
            self._engine.wake({each.pair.workspace for each in pairs})
            self._can_start.set()
        return new == len(page)

    def _on_lists_ended(self, _: asyncio.Task[None]) -> None:
        """Let the engine end after the last pair, or stop it if a list could not be read."""
        self._can_start.set()
        self._engine.finish()
        if self._list_error is not None:
            self._engine.stop()

    async def _summary(self, pairs: Input, rejects: RejectsFile) -> Summary:
        uploader, time, list_error = self._engine.uploader, self._engine.time, self._list_error
        await self._ledger.save_clock_difference()
        difference, wrong, unconfirmed_at = self._clock.difference, time.condition(), time.unconfirmed_at
        summary = Summary(
            workspaces=await self._ledger.reports.get_books_by_workspace(), lines=pairs.lines, bad_lines=rejects.count,
            reasons=rejects.reasons, formats=pairs.formats, notes=[*pairs.notes, *rejects.notes],
            rejects_file=str(rejects.file) if rejects.file else None,
            naive_times=pairs.naive_times,
            skipped=pairs.skipped,
            interrupted=self._stopped, lists_read=self._lists_read, unstored=uploader.waiting,
            problem=uploader.problem or (list_error if isinstance(list_error, HarvesterError) else None),
            places=list(self._settings.list_places()),
            planned=await self._ledger.reports.count_planned(leased=True),  # by a service
            clock_difference_seconds=None if difference is None else round(difference, 1),
            retention_unconfirmed=self._retention_unconfirmed,
            clock_problem=wrong.detail if wrong else None,
            in_question=0 if unconfirmed_at is None else await self._ledger.reports.count_seemingly_expired(),
        )  # fmt: skip
        counters = self._engine.counters
        summary.parts, summary.rows, summary.part_bytes = counters.parts, counters.rows, counters.part_bytes
        for name in self._engine.workspaces.list_used():
            state, of_client = self._engine.workspaces.get_pace_state(name), self._engine.workspaces.get_counters(name)
            summary.requests += of_client.requests
            summary.responses += of_client.responses
            summary.throttled += state.throttled
            summary.waited_seconds += state.waited_seconds
        for name, access in self._engine.workspaces.list_access().items():
            if access.client.endpoint.halt is not None:
                summary.halted[name] = access.client.endpoint.halt.reason
            if access.unreachable is not None:
                summary.unreachable[name] = access.unreachable
        return summary
