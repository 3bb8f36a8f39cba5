"""One workspace at work: what it claims next, when it waits, and when it has nothing more to do.

A lane is a task only while its workspace has something due. Requests are made in ``requests``.
"""

import asyncio
import random

import structlog

from harvester.braze.gate import HALTED_SECONDS, Hold, HoldCause
from harvester.braze.refusals import Trust
from harvester.clock import wait_for_event
from harvester.condition import describe_failed_request
from harvester.engine.requests import Requests
from harvester.engine.shared import Shared
from harvester.engine.workspaces import WorkspaceAccess
from harvester.model import Probe

CLAIM_HORIZON_SECONDS = 5.0
"""A claim is what the pace allows in this time: an urgent reading of the same workspace waits at most about as long."""

MAX_UNSENT = 2000
FIRST_CLAIM_READINGS = 100
"""The readings of a claim before any response has described the quota."""

OTHERS_SECONDS = 2.0
"""How often a run checks whether other processes on the same ledger have ended their work."""

RECHECK_SECONDS = 10.0
"""How often a run that waits for deferred readings checks for due ones."""

EMPTY_CLAIM_SECONDS = (0.05, 0.25)
"""How long a run waits after a claim without readings, although some are due."""

log = structlog.get_logger()


class Lane:
    """The work of one workspace. Call ``wake`` when something may have changed."""

    def __init__(self, workspace: str, access: WorkspaceAccess, shared: Shared) -> None:
        """Begin without readings."""
        self.workspace = workspace
        self._access = access
        access.unreachable = None  # an earlier lane may have given up
        self._pacer = access.pacer
        self._endpoint = access.client.endpoint
        self._shared = shared
        self._awake = asyncio.Event()
        self.requests = Requests(access, shared, self._awake.set)
        self._exhausted = False
        """Whether the last claim returned everything that was due."""
        self.more_due = False
        """Whether more readings may be due than when it decided last."""
        self.reassigned = False
        """Whether it ends because its workspace is assigned to another process now."""
        self._last_reported: tuple[str, int] | None = None

    @property
    def retired(self) -> bool:
        """Whether it ends because its workspace was removed, or has other access now."""
        return self._access.retired

    def wake(self, *, due: bool = False) -> None:
        """Decide again. ``due``: more readings may be due than before."""
        if due:
            self._exhausted, self.more_due = False, True
        self._awake.set()

    async def run(self) -> None:
        """Work until nothing is due; in a run, until no reading and no other process is worth waiting for.

        Raises ``LedgerError``.
        """
        try:
            while await self._continue():
                pass
        finally:
            self._shared.committer.set_busy(self.workspace, busy=False)

    async def _continue(self) -> bool:
        """Decide once, and wait; returns whether there may be more to do."""
        self._awake.clear()  # what wakes it from here on is not part of this decision
        self.more_due = False
        hold = self._pacer.find_long_hold()
        ending = (
            self._shared.is_stopping()
            or self.retired
            or self.reassigned
            or self._should_give_up(hold)
            or not await self._shared.uploader.wait_for_room(self.workspace)
        )
        if ending or hold is not None or self.requests.to_release:
            await self.requests.release()
            self._exhausted = False
        await self._shared.halts.record(self.workspace, self._endpoint, captured=self.requests.captured)
        if ending and not self.requests.busy:
            return False
        self._shared.committer.set_busy(self.workspace, busy=self.requests.busy or hold is None)
        if ending or (self.requests.busy and self._doubted):
            await self._awake.wait()  # what is in flight may also settle the doubt
            return True
        if hold is not None and hold.cause is HoldCause.REFUSED:
            self._pacer.lift(HoldCause.REFUSED)  # every claimed reading has an outcome, so a probe can be sent
            hold = None
        if hold is not None:
            await self._wait_for_hold(hold)
            return True
        return await self._claim() or await self._wait_for_work()

    def _should_give_up(self, hold: Hold | None) -> bool:
        """Return whether to leave pending readings to the next run, because of a halt or a long outage."""
        if not self._shared.patience.unlimited and self._endpoint.halt is not None:
            return True
        if not self._shared.patience.is_over(hold, self._pacer):
            return False
        assert hold is not None
        if hold.cause is not HoldCause.HALTED:
            failing = self._endpoint.failing
            self._access.unreachable = describe_failed_request(self._endpoint.url, failing) if failing else hold.cause
        return True

    @property
    def _doubted(self) -> bool:
        """Whether refusals put the endpoint in doubt. Then pairs of other campaigns are requested one at a time."""
        return self._endpoint.refusals.trust is not Trust.TRUSTED

    async def _claim(self) -> bool:
        """Claim as many readings as the pace allows, or one probe while in doubt. Returns whether it claimed any."""
        if self._exhausted:
            return False
        if self._shared.time.needs_correction(self.workspace):
            await self._shared.time.correct(self._shared.workspaces.list_used())  # one transaction for all lanes
        if self._doubted:
            return await self._start(1, self._endpoint.refusals.begin_probe())
        limit = self._count_wanted()
        if self.requests.unsent * 2 >= limit:
            return False
        failed = self._endpoint.failed_campaigns
        if failed and self._pacer.backing_off:
            # One campaign that fails must not keep the others from being requested.
            if self.requests.busy:
                return False
            if await self._start(1, Probe(tuple(failed), nearest=len(failed) % 2 == 0)):
                return True
            failed.clear()
        return await self._start(limit)

    def _count_wanted(self) -> int:
        """Return how many readings to claim ahead of their requests."""
        if not self._pacer.state().limit:
            return FIRST_CLAIM_READINGS
        concurrency = self._shared.workspaces.settings.concurrency
        count = self._pacer.count_requests_within(CLAIM_HORIZON_SECONDS, concurrency=concurrency)
        return max(1, min(MAX_UNSENT, count))

    async def _start(self, limit: int, probe: Probe | None = None) -> bool:
        """Claim and request readings; returns whether there were any."""
        claimed = await self._shared.claims.claim(self.workspace, limit - self.requests.unsent, probe)
        self._exhausted = probe is None and len(claimed.readings) < claimed.limit
        refill_below = 0 if probe is not None or self._exhausted else (limit + 1) // 2
        self.requests.start(claimed.readings, offset=claimed.offset, refill_below=refill_below)
        return bool(claimed.readings)

    async def _wait_for_work(self) -> bool:
        """Wait until more may be due; False if there is nothing to wait for."""
        if self.requests.busy:
            await self._awake.wait()
            return True
        if self._doubted and await self._decide_without_other_campaign():
            return True
        if self._shared.patience.unlimited:
            return False  # the dispatcher knows when more is due
        self._shared.committer.set_busy(self.workspace, busy=False)
        if self._shared.committer.has_unsealed(self.workspace):
            await self._awake.wait()  # deferred readings may be due again soon
            self._exhausted = False
            return True
        return await self._wait_for_deferred()

    async def _decide_without_other_campaign(self) -> bool:
        """Decide what to do if only refused campaigns are due; returns whether to claim again at once.

        If nothing at all is due, the doubt stays.
        """
        if await self._shared.ledger.batches.get_next_due_at(self.workspace) != 0.0:
            return False
        claim_again = self._endpoint.record_no_other_campaign(self.workspace)
        await self._shared.halts.record(self.workspace, self._endpoint, captured=False)
        return claim_again

    async def _wait_for_deferred(self) -> bool:
        """Wait for readings that are deferred, or leased to other processes; False if there are none."""
        self._exhausted = False
        time, reports = self._shared.time, self._shared.ledger.reports
        if not time.may_request_time and not await reports.has_open_pairs(self.workspace):
            return False
        if await self._shared.time.may_expire(self.workspace, lambda: self._access.client):
            await self._shared.ledger.upkeep.expire([self.workspace])
        if await self._shared.time.request_time_if_needed([self.workspace], lambda _: self._access.client):
            return True
        due_at = await self._shared.ledger.batches.get_next_due_at(
            self.workspace, max_deferrals=self._shared.patience.max_deferrals
        )
        if due_at is None:
            return await self._wait_for_others()
        # Other processes may have locked the readings that are due. Without a pause, all would repeat their claims.
        least = random.uniform(*EMPTY_CLAIM_SECONDS)  # noqa: S311 - jitter, no secret
        seconds = min(max(least, due_at - self._shared.ledger.clock.wall()), RECHECK_SECONDS)
        await wait_for_event(self._awake, timeout_seconds=seconds)
        return True

    async def _wait_for_others(self) -> bool:
        """Wait a little for readings that are leased to other processes; False if there are none.

        The others capture or release them. If a process dies, its readings are released here.
        """
        if not await self._shared.ledger.batches.has_leases_of_others(self.workspace):
            return False
        if self._last_reported != ("others", 0):
            log.info(
                "workspace_waiting",
                workspace=self.workspace,
                cause="other_process",
                hint="another process has leased readings of this workspace",
            )
            self._last_reported = ("others", 0)
        await wait_for_event(self._awake, timeout_seconds=OTHERS_SECONDS)
        await self._shared.uploader.recover()
        return True

    async def _wait_for_hold(self, hold: Hold) -> None:
        """Wait until a hold is over, or until it is woken."""
        seconds = round(hold.until - self._shared.ledger.clock.monotonic(), 1)
        # A workspace that refusals halt is probed every few seconds; one line in ten minutes says so.
        which = (hold.cause, round(hold.until / HALTED_SECONDS if hold.cause is HoldCause.HALTED else hold.until))
        if which != self._last_reported:
            # A condition reports an overload.
            log_waiting = log.debug if hold.cause is HoldCause.OVERLOADED else log.info
            log_waiting("workspace_waiting", workspace=self.workspace, cause=hold.cause, wait_seconds=seconds)
            self._last_reported = which
        began = self._shared.ledger.clock.monotonic()
        await wait_for_event(self._awake, timeout_seconds=hold.until - began)
        if hold.cause in (HoldCause.RATE_LIMITED, HoldCause.THROTTLED):
            self._access.pacer.add_wait(self._shared.ledger.clock.monotonic() - began)
