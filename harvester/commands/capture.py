"""Runs one historical capture: enqueues the pairs, captures them, and returns a summary.

The composition root of ``harvester run``.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from harvester.books import Books
from harvester.braze.pace_state import PaceState
from harvester.commands.enqueue import enqueue_all
from harvester.engine.engine import Engine
from harvester.engine.workspaces import Connect
from harvester.errors import ExitCode, SinkError
from harvester.health import ConditionLog
from harvester.ledger import Ledger
from harvester.settings import Settings
from harvester.signals import stop_on_signals
from harvester.sources import Input, RejectsFile
from harvester.storage import Compression, Sink

REPORT_SECONDS = 1.0
"""How often conditions are checked, for a person who watches."""


@dataclass(slots=True)
class Summary:
    """The result of a run, and the state of the ledger after it."""

    workspaces: dict[str, Books]
    lines: int = 0
    bad_lines: int = 0
    reasons: list[str] = field(default_factory=list)
    rejects_file: str | None = None
    formats: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    naive_times: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    waited_seconds: float = 0.0
    halted: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    unstored: int = 0
    planned: int = 0
    clock_difference_seconds: float | None = None
    clock_problem: str | None = None
    in_question: int = 0
    windows_unknown: bool = False
    problem: SinkError | None = None

    @property
    def books(self) -> Books:
        """The balance of all workspaces together."""
        return Books.sum(self.workspaces.values())

    @property
    def exit_code(self) -> ExitCode:
        """The exit code: if several apply, that of the most serious problem."""
        if not all(books.balanced for books in self.workspaces.values()):
            return ExitCode.BUG
        if self.problem is not None:
            return ExitCode.STORAGE
        if self.halted:
            return ExitCode.HALTED
        if self.interrupted and self.books.pending:
            return ExitCode.INTERRUPTED
        if self.books.pending or self.books.rejected or self.books.expired or self.bad_lines or self.windows_unknown:
            return ExitCode.PARTIAL
        return ExitCode.COMPLETE


@dataclass(frozen=True, slots=True)
class WorkspaceProgress:
    """How far a run is with the pairs of one workspace that were pending at its start.

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
        self.pending_at_start: dict[str, int] = {}
        self._stopped = False
        self._windows_unknown = False

    def stop(self) -> None:
        """Claim nothing more, and let requests in flight finish."""
        self._stopped = True
        self._engine.stop()

    @property
    def store_problem(self) -> SinkError | None:
        """Why sealed parts wait to be stored; None if none waits because of a failure."""
        return self._engine.uploader.problem

    @property
    def wall(self) -> float:
        """Braze's time, in wall-clock seconds."""
        return self._clock.wall()

    def progress(self) -> dict[str, WorkspaceProgress]:
        """Return the progress of each workspace; empty while pairs are read."""
        if not self.pending_at_start:
            return {}
        workspaces, unsaved = self._engine.workspaces, self._engine.count_unsaved()
        return {
            name: WorkspaceProgress(
                answered=self._engine.counters.count_done(name) + unsaved[name],
                saved=self._engine.counters.count_done(name),
                total=self.pending_at_start.get(name, 0),
                pace=workspaces.get_pace_state(name),
                describe_hold=partial(workspaces.describe_hold, name),
            )
            for name in workspaces.list_used()
        }

    async def capture(self, pairs: Input, rejects: RejectsFile, *, forced: bool = False) -> Summary:
        """Enqueue the pairs, capture them, and return the summary.

        Raises ``UsageError`` for unusable input, and ``StorageError`` if the ledger fails or the place fails from the
        start. A later failure of the place is the summary's ``problem``.
        """
        async with self._engine.opened():
            await self._ledger.intake.reset_deferrals(tuple(self._settings.workspaces))
            with stop_on_signals(self.stop):
                await self._enqueue_all(pairs, rejects, forced=forced)
                self.pending_at_start = await self._ledger.reports.count_pending()
                report = asyncio.create_task(self._report(), name="conditions")
                try:
                    await self._engine.run()
                finally:
                    report.cancel()
                    self._condition_log.update(self._engine.conditions())
        return await self._summary(pairs, rejects)

    async def _report(self) -> None:
        """Log conditions as soon as they begin and end."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._condition_log.update(self._engine.conditions())

    async def _enqueue_all(self, pairs: Input, rejects: RejectsFile, *, forced: bool) -> None:
        confirm = self._engine.confirm_time
        async for count in enqueue_all(self._ledger, pairs, rejects, forced=forced, once=True, confirm=confirm):
            if pairs.unconfirmed_pair is not None:
                await confirm(pairs.unconfirmed_pair.workspace)
                pairs.set_time(self._clock.wall())
            self._windows_unknown |= count.in_question is not None
            if self._stopped:
                return

    async def _summary(self, pairs: Input, rejects: RejectsFile) -> Summary:
        uploader, time = self._engine.uploader, self._engine.time
        await self._ledger.save_clock_difference()
        difference, wrong, unconfirmed_at = self._clock.difference, time.condition(), time.unconfirmed_at
        summary = Summary(
            workspaces=await self._ledger.reports.get_books_by_workspace(), lines=pairs.lines, bad_lines=rejects.count,
            reasons=rejects.reasons, formats=pairs.formats, notes=pairs.notes,
            rejects_file=str(rejects.path) if rejects.count else None,
            naive_times=pairs.naive_times,
            skipped=pairs.skipped,
            interrupted=self._stopped, unstored=uploader.waiting, problem=uploader.problem,
            planned=await self._ledger.reports.count_planned(),
            clock_difference_seconds=None if difference is None else round(difference, 1),
            windows_unknown=self._windows_unknown,
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
