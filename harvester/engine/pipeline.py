"""From due readings to stored parts: the only file about concurrency.

Three stages, joined by queues that hold no more than two open batches. *Claim* leases the readings of a batch and hands
them out; *workers* turn each into an outcome and add its rows to the batch's part; *commit* takes a batch whose last
reading is back, seals it and hands it over to be stored. To stop is to end the first stage and let the others run dry:
the client answers at once then.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from harvester.braze.client import Client
from harvester.braze.gate import HALTED_SECONDS, Hold, HoldCause, count_overload_holds
from harvester.braze.pacer import Pacer
from harvester.clock import wait_for_event
from harvester.engine.claims import Claims
from harvester.engine.open_batch import OpenBatch, Tally
from harvester.engine.renewal import Renewal
from harvester.engine.storing import Storing
from harvester.engine.time_check import TimeCheck
from harvester.health import describe_failed_request
from harvester.ledger import Ledger
from harvester.model import Outcome, Reading, Returned
from harvester.schedule import count_deferrals
from harvester.storage import Compression

LINGER_SECONDS = 1.0
"""For how long a lasting harvest lets pairs that trickle in gather, so that they share a part."""

PROBES_UNANSWERED = 2
"""So many probes in vain are enough where no call of this process was ever answered: nobody may be there."""

LOOK_SECONDS = 10.0
"""How often a lasting harvest looks for pairs that another process enqueued."""

OTHERS_SECONDS = 2.0
"""How often a harvest that ends looks whether other processes on the same ledger have ended too."""

log = structlog.get_logger()


class Harvest:
    """The harvest of one workspace, until nothing is left that is worth waiting for, or lasting until it is stopped."""

    def __init__(
        self, *, workspace: str, ledger: Ledger, client: Client, pacer: Pacer, storing: Storing, renewal: Renewal,
        time: TimeCheck, compression: Compression, concurrency: int, patience_seconds: float | None,
    ) -> None:  # fmt: skip
        """End once nothing has succeeded for ``patience_seconds``.

        Without ``patience_seconds`` the harvest lasts: it waits for every reading that is planned, and for new pairs.
        """
        self.workspace = workspace
        self.unreachable: str | None = None
        """Why it ended with pairs pending: no call succeeded for too long."""
        self.tally = Tally()
        self._claims = Claims(workspace=workspace, ledger=ledger, client=client, pacer=pacer)
        self._ledger = ledger
        self._client = client
        self._pacer = pacer
        self._storing = storing
        self._renewal = renewal
        self._clock = ledger.clock
        self._time = time
        self._compression = compression
        self._concurrency = concurrency
        self._patience_seconds = patience_seconds
        self._max_deferrals = None if patience_seconds is None else count_deferrals(patience_seconds)
        self._readings: asyncio.Queue[tuple[OpenBatch, Reading] | None] = asyncio.Queue()
        self._complete: asyncio.Queue[OpenBatch | None] = asyncio.Queue()
        self._open: dict[str, OpenBatch] = {}
        self._room = asyncio.Semaphore(1)  # and one more from the first outcome on, which as a rule has told the pace
        self._pace_told = False
        self._look = asyncio.Event()
        self._told_of: tuple[str, int] | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim no more; let what is in flight run dry."""
        self._stopping.set()
        self._look.set()
        self._client.stop()

    def look(self) -> None:
        """Look for due readings now: pairs came in, or a hold was lifted."""
        self._look.set()

    async def run(self) -> None:
        """Harvest to the end: all is sealed then, and handed over to be stored. Raises ``LedgerError``."""
        async with asyncio.TaskGroup() as group:
            progress = group.create_task(self._report_progress(), name=f"progress {self.workspace}")
            commit = group.create_task(self._commit_all(), name=f"commit {self.workspace}")
            workers = [
                group.create_task(self._work(), name=f"worker {self.workspace} {number}")
                for number in range(self._concurrency)
            ]
            await self._claim_all()
            for _ in workers:
                await self._readings.put(None)
            await asyncio.wait(workers)
            await self._complete.put(None)
            await commit
            progress.cancel()

    async def _claim_all(self) -> None:
        """Lease batch after batch until nothing is due that is worth waiting for."""
        await self._claims.begin()
        while await self._storing.room():
            await self._room.acquire()
            self._look.clear()  # what is set from here on was not looked at
            hold = self._pacer.find_long_hold()
            if self._stopping.is_set() or self._given_up(hold):
                return
            if self._claims.doubted and self._open:
                self._room.release()
                await self._look.wait()  # an answer in flight may settle the doubt
                continue
            if hold is not None and hold.cause is HoldCause.REFUSED:
                self._pacer.lift(HoldCause.REFUSED)  # all that was claimed is back: a probe may leave
                hold = None
            if hold is None:
                await self._time.correct(self.workspace)
                offset = self._clock.offset
                readings = await self._claims.claim()
                if readings:
                    self._hand_out(readings, offset)
                    continue
            self._room.release()
            if hold is not None:
                await self._wait_out(hold)
            elif self._claims.doubted and await self._claims.end_campaigns():
                continue
            elif not await self._wait_for_due():
                return

    def _hand_out(self, readings: Sequence[Reading], offset: float) -> None:
        """Give the readings of a new batch to the workers."""
        opened = OpenBatch(
            self.workspace, readings, now=self._clock.wall(), clock_offset=offset,
            destination=self._storing.destination, compression=self._compression,
        )  # fmt: skip
        self._open[opened.batch.id] = opened
        for reading in readings:
            self._readings.put_nowait((opened, reading))

    def _given_up(self, hold: Hold | None) -> bool:
        """Whether what is pending is left to the next run: the workspace is halted, or nobody answered for long."""
        if self._patience_seconds is None:
            return False
        if self._client.endpoint.halt is not None:
            return True
        if hold is None or hold.cause is HoldCause.HALTED:
            return hold is not None
        state = self._pacer.state()
        tried = state.holds_in_a_row
        if hold.cause is not HoldCause.OVERLOADED or tried <= self._holds_allowed(state.answered):
            return False
        failing = self._client.endpoint.failing
        self.unreachable = describe_failed_request(self._client.endpoint.url, failing) if failing else hold.cause
        return True

    def _holds_allowed(self, answered: bool) -> int:  # noqa: FBT001 - it is the question
        """Return how many holds in a row to wait for before pending pairs are left to the next run."""
        assert self._patience_seconds is not None
        holds = count_overload_holds(self._patience_seconds)
        return holds if answered else min(holds, PROBES_UNANSWERED)

    def seconds_until_given_up(self) -> float | None:
        """Return the most seconds that it still tries while no call succeeds; None if it never gives up."""
        if self._patience_seconds is None:
            return None
        if self.unreachable is not None:
            return 0.0
        return self._pacer.overload_seconds(self._holds_allowed(self._pacer.state().answered))

    async def _wait_out(self, hold: Hold) -> None:
        """Wait until a hold is over, or for something to look at."""
        seconds = round(hold.until - self._clock.monotonic(), 1)
        # A workspace that refusals halt is probed every few seconds; one line in ten minutes says so.
        which = (hold.cause, round(hold.until / HALTED_SECONDS if hold.cause is HoldCause.HALTED else hold.until))
        if which != self._told_of:
            # A condition reports an overload.
            log_waiting = log.debug if hold.cause is HoldCause.OVERLOADED else log.info
            log_waiting("workspace_waiting", workspace=self.workspace, cause=hold.cause, wait_seconds=seconds)
            self._told_of = which
        await wait_for_event(self._look, timeout_seconds=hold.until - self._clock.monotonic())

    async def _wait_for_due(self) -> bool:
        """Wait for the next due reading; False when none will come that is worth waiting for."""
        if self._open:
            await self._look.wait()  # what is open now may yet be deferred
            return True
        lasting = self._patience_seconds is None
        while not self._stopping.is_set():
            if await self._time.ask_time(self.workspace, self._client):
                break
            due_at = await self._ledger.batches.get_next_due_at(self.workspace, max_deferrals=self._max_deferrals)
            if due_at is None and not lasting:
                return await self._others_go_on()
            seconds = LOOK_SECONDS if due_at is None else due_at - self._clock.wall()
            if seconds <= 0:
                break
            if await wait_for_event(self._look, timeout_seconds=min(seconds, LOOK_SECONDS)):
                if lasting:
                    await wait_for_event(self._stopping, timeout_seconds=LINGER_SECONDS)
                break
        return True

    async def _others_go_on(self) -> bool:
        """Wait a little for what other processes have in hand; False when they have nothing.

        They settle it or give it back, and when one dies it comes to us.
        """
        if not await self._ledger.batches.held_by_others(self.workspace):
            return False
        if self._told_of != ("others", 0):
            log.info(
                "workspace_waiting",
                workspace=self.workspace,
                cause="other_process",
                hint="another process has leased readings of this workspace",
            )
            self._told_of = ("others", 0)
        await wait_for_event(self._look, timeout_seconds=OTHERS_SECONDS)
        await self._storing.recover()
        return True

    async def _work(self) -> None:
        """Turn readings into outcomes until there are no more; the last one of a batch sends it on."""
        while (job := await self._readings.get()) is not None:
            opened, reading = job
            if reading.epoch != self._ledger.batches.epoch:  # another process has recovered it
                outcome: Outcome = Returned()
            else:
                outcome = await self._time.asked(opened.clock_offset, partial(self._capture, opened, reading))
            await opened.take_back(reading, outcome)
            if not self._pace_told:
                self._pace_told = True
                self._room.release()
            if opened.complete:
                await self._complete.put(opened)
            await asyncio.sleep(0)  # what was read together is followed together by the next calls, see the client

    async def _capture(self, opened: OpenBatch, reading: Reading) -> Outcome:
        pair = reading.pair
        span = opened.span.child("capture", campaign_id=pair.campaign_id, send_id=pair.send_id, reading=reading.name)
        outcome = await self._client.capture(reading, batch_id=opened.batch.id, span=span)
        span.end(outcome=type(outcome).__name__.lower())
        return outcome

    async def _commit_all(self) -> None:
        """Seal, create and store batches as they complete."""
        while (opened := await self._complete.get()) is not None:
            try:
                await self._commit(opened)
            finally:
                del self._open[opened.batch.id]
                self._room.release()
                self._look.set()

    async def _commit(self, opened: OpenBatch) -> None:
        parts = await opened.parts()
        if not await self._ledger.batches.seal(opened.batch, opened.settlements, parts):
            log.warning("batch_lost", batch_id=opened.batch.id, workspace=self.workspace)
            opened.span.end(state="lost")
            await self._renewal.renew()
            return
        opened.count_into(self.tally, parts)
        if parts:
            self._storing.add(opened.batch.id, sum(part.size_bytes for part in parts), span=opened.span)
        else:
            opened.span.end(state="stored")  # nothing came of it, so nothing is left to do
        await self._claims.record(captured=opened.captured)

    async def _report_progress(self) -> None:
        """Log from time to time how things stand: batches may take long where the pace is low."""
        while True:
            await asyncio.sleep(self._ledger.lease_seconds / 3)
            state = self._pacer.state()
            log.info(
                "progress_reported", workspace=self.workspace, readings=self.tally.outcomes.total(),
                requests=state.requests, hold_cause=state.hold_cause, **state.log_fields(idle=not self._open),
            )  # fmt: skip
