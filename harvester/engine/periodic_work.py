"""The periodic work of a process: renew its lease, recover those of dead processes, expire pairs, prune the ledger."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice

import structlog

from harvester.clock import wait_for_event
from harvester.engine.counters import Counters
from harvester.engine.dispatcher import Dispatcher
from harvester.engine.lease import Lease
from harvester.engine.time_check import TimeCheck
from harvester.engine.uploader import Uploader
from harvester.engine.workspaces import Workspaces
from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.model import DAY_SECONDS

HOUSEKEEPING_SECONDS = 600.0
"""How often due readings are scheduled, and expired pairs ended, in workspaces without work."""

PROGRESS_SECONDS = 30.0
"""How often the progress of the workspaces at work is logged."""

DOWNGRADE_SECONDS = DAY_SECONDS
"""How long a service keeps what only earlier versions need, so that a user can return to one of them."""

PAGE = 100
"""How many workspaces one transaction of the housekeeping handles."""

AfterHousekeeping = Callable[[], Awaitable[None]]

log = structlog.get_logger()


class PeriodicWork:
    """One timer for all periodic work of a process on the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        lease: Lease,
        uploader: Uploader,
        workspaces: Workspaces,
        dispatcher: Dispatcher,
        time: TimeCheck,
        counters: Counters,
        keep_days: float,
        housekeeping: bool,
        after_housekeeping: AfterHousekeeping,
    ) -> None:
        """Without ``housekeeping``, nothing is scheduled, expired or deleted. Settled pairs stay for ``keep_days``."""
        self._ledger = ledger
        self._clock = ledger.clock
        self._lease = lease
        self._uploader = uploader
        self._workspaces = workspaces
        self._dispatcher = dispatcher
        self._time = time
        self._counters = counters
        self._keep_days = keep_days
        self._housekeeping = housekeeping
        self._after_housekeeping = after_housekeeping
        self._started_at = self._clock.monotonic()
        self._housekeeping_at = self._pruned_at = self._reported_at = float("-inf")
        self._time_changed = asyncio.Event()
        self._to_expire: set[str] = set()
        """Workspaces whose pairs may have expired before they were enqueued."""

    def expire_soon(self, names: Iterable[str]) -> None:
        """Expire the overdue pairs of these workspaces within a quarter of a lease: pairs were enqueued."""
        self._to_expire.update(names)

    def request_housekeeping(self) -> None:
        """Begin the housekeeping at once, because the time has changed."""
        self._housekeeping_at = float("-inf")
        self._time_changed.set()

    async def run(self) -> None:
        """Run until this is cancelled. Raises ``LedgerError``, in a group.

        Housekeeping does not delay the renewal: with many workspaces, it can take longer than a lease.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lease(), name="lease")
            group.create_task(self._run_timer(), name="housekeeping")

    async def _keep_lease(self) -> None:
        """Renew the lease, and look for owners that have started or ended, every quarter of a lease."""
        while True:
            await asyncio.sleep(self._ledger.lease_seconds / 4)
            await self._lease.renew()
            await self._uploader.recover()
            await self._dispatcher.refresh_served()

    async def _run_timer(self) -> None:
        if self._housekeeping:
            await self._do_due_work()
        while True:
            await wait_for_event(self._time_changed, timeout_seconds=self._ledger.lease_seconds / 4)
            self._time_changed.clear()
            await self._do_due_work()

    async def _do_due_work(self) -> None:
        if self._clock.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = self._clock.monotonic()
            self._report_progress()
        await self._workspaces.drop_idle(self._dispatcher.lanes)
        to_expire, self._to_expire = self._to_expire, set()
        for page in _paginate(to_expire):
            await self._expire(page)
        due = self._clock.monotonic() - self._housekeeping_at >= HOUSEKEEPING_SECONDS
        if due and self._housekeeping:
            self._housekeeping_at = self._clock.monotonic()
            await self._do_housekeeping()
            await self._after_housekeeping()

    async def _do_housekeeping(self) -> None:
        """Schedule, expire and prune. A transaction handles a page of workspaces, so it delays no claim for long."""
        for page in _paginate(self._workspaces.names):
            await self._time.correct(page)
            await self._time.correct_arrivals(page)
        pending = await self._ledger.reports.count_pending()
        for page in _paginate(pending):  # those of a workspace that was removed expire, too
            await self._ledger.upkeep.schedule_due(page)
            await self._expire(page)
        self._dispatcher.refresh(self._workspaces.names)
        await self._ledger.upkeep.summarize_counts()
        if self._clock.monotonic() - self._started_at >= DOWNGRADE_SECONDS:
            await self._finish_migration()
        if self._clock.confirmed and self._clock.monotonic() - self._pruned_at >= DAY_SECONDS:
            pruned = await self._ledger.upkeep.prune(keep_days=self._keep_days)
            if pruned.complete:
                self._pruned_at = self._clock.monotonic()
            log.info("ledger_pruned", **pruned.rows)

    async def _finish_migration(self) -> None:
        """Remove from the ledger what only earlier versions need, if none of their processes lives."""
        try:
            for schema in await self._ledger.upkeep.finish_migration():
                log.info("ledger_migration_finished", schema=schema)
        except LedgerError as error:
            log.info("ledger_migration_postponed", reason=str(error))

    async def _expire(self, page: list[str]) -> None:
        """Expire the overdue pairs of those workspaces whose time is certain."""
        find = self._workspaces.find_client
        certain = [name for name in page if await self._time.may_expire(name, partial(find, name))]
        await self._ledger.upkeep.expire(certain)

    def _report_progress(self) -> None:
        """Log what the workspaces at work have done: the work may take long where the pace is low."""
        for name, lane in list(self._dispatcher.lanes.items()):
            if lane.retired:
                continue
            state = self._workspaces.get_pace_state(name)
            log.info(
                "progress_reported",
                workspace=name,
                readings=self._counters.count_done(name),
                requests=state.requests,
                hold_cause=state.hold_cause,
                **state.log_fields(idle=not lane.requests.busy),
            )


def _paginate(workspaces: Iterable[str]) -> Iterable[list[str]]:
    """Divide workspaces into pages of ``PAGE``."""
    names = iter(workspaces)
    while page := list(islice(names, PAGE)):
        yield page
