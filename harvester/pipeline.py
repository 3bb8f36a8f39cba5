"""From due readings to stored parts: the only file about concurrency.

Three stages, joined by bounded queues. *Claim* leases a batch and hands out its readings; *workers* turn each
into an outcome and add its rows to the batch's part; *commit* takes a batch whose last reading is back, seals it
and hands it over to be stored. To stop is to end the first stage and let the others run dry.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import structlog

from harvester.braze.client import Client
from harvester.braze.pacer import Held, Pacer
from harvester.clock import Clock
from harvester.ledger import Ledger
from harvester.ledger.books import halt, next_due_at, resume
from harvester.ledger.ledger import LEASE_SECONDS
from harvester.model import (
    DATASET,
    RAW_DATASET,
    Batch,
    Captured,
    Outcome,
    Part,
    Reading,
    Rejected,
    Returned,
    Settlement,
)  # fmt: skip
from harvester.sinks import Compression, PartWriter
from harvester.storing import Storing
from harvester.tracing import begin

BATCH_READINGS = 1000
BATCH_SECONDS = 60.0
FIRST_BATCH_READINGS = 100
LINGER_SECONDS = 1.0
"""For how long a lasting harvest lets pairs that trickle in gather, so that they share a part."""

LOOK_SECONDS = 10.0
"""How often a lasting harvest looks for pairs that another process enqueued."""

log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """What this process has done so far, for progress and summary."""

    outcomes: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0


class _OpenBatch:
    """A batch being harvested: its parts in the making, and the readings that are not back yet."""

    def __init__(self, batch: Batch, compression: Compression) -> None:
        self.batch = batch
        self.rows = PartWriter(batch, DATASET, compression)
        self.raw = PartWriter(batch, RAW_DATASET, compression)
        self.settlements: list[Settlement] = []
        self.lost = False
        self.span = begin("batch", workspace=batch.workspace, batch_id=batch.id, readings=len(batch.readings))

    @property
    def complete(self) -> bool:
        return len(self.settlements) == len(self.batch.readings)


class Harvest:
    """The harvest of one workspace, until nothing is left that is worth waiting for, or lasting until it is stopped."""

    def __init__(
        self, *, workspace: str, ledger: Ledger, client: Client, pacer: Pacer, storing: Storing, destination: str,
        clock: Clock, compression: Compression, concurrency: int, max_deferrals: int | None,
    ) -> None:  # fmt: skip
        """Leave pending what was deferred more than ``max_deferrals`` times; ``destination`` is the dataset's id.

        Without ``max_deferrals`` the harvest lasts: it waits for every reading that is planned, and for new pairs.
        """
        self.workspace = workspace
        self.tally = Tally()
        self._ledger = ledger
        self._client = client
        self._pacer = pacer
        self._storing = storing
        self._destination = destination
        self._clock = clock
        self._compression = compression
        self._concurrency = concurrency
        self._max_deferrals = max_deferrals
        self._readings: asyncio.Queue[tuple[_OpenBatch, Reading] | None] = asyncio.Queue(concurrency)
        self._complete: asyncio.Queue[_OpenBatch | None] = asyncio.Queue()
        self._open: dict[str, _OpenBatch] = {}
        self._room = asyncio.Semaphore(2)
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
            renewal = group.create_task(self._renew(), name=f"renew {self.workspace}")
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
            renewal.cancel()

    async def _claim_all(self) -> None:
        """Lease batch after batch until nothing is due that is worth waiting for."""
        while not self._stopping.is_set():
            self._look.clear()  # what is set from here on was not looked at
            hold = self._pacer.holding()
            if hold is not None and self._given_up(hold):
                return
            urgent_only = hold is not None and self._pacer.holding(urgent=True) is None
            if hold is not None and not urgent_only:
                await self._wait_out(hold)
                continue
            if not await self._storing.room():
                return
            await self._room.acquire()
            limit = FIRST_BATCH_READINGS if urgent_only else self._batch_limit()
            batch = await self._ledger.claim(self.workspace, limit=limit, urgent_only=urgent_only)
            if batch is not None:
                await self._hand_out(batch)
                continue
            self._room.release()
            if hold is not None:
                await self._wait_out(hold)
            elif not await self._wait_for_due():
                return

    async def _hand_out(self, batch: Batch) -> None:
        """Give a batch's readings to the workers; when stopping, what they have not taken goes back."""
        opened = _OpenBatch(batch, self._compression)
        self._open[batch.id] = opened
        for reading in batch.readings:
            if self._stopping.is_set():
                await self._take_back(opened, reading, Returned())
            else:
                await self._readings.put((opened, reading))

    def _given_up(self, hold: Held) -> bool:
        """Whether what is pending is left to the next run: the workspace is halted, or nobody answered for long."""
        if self._max_deferrals is None:
            return False
        if hold.cause == "halted":
            return True
        tried = self._pacer.state().holds_in_a_row
        if hold.cause != "overload" or tried <= self._max_deferrals:
            return False
        log.warning("giving_up", workspace=self.workspace, probes_in_vain=tried - 1,
                    hint="the API does not answer; run the same command again later")  # fmt: skip
        return True

    def _batch_limit(self) -> int:
        """Give what the pace can serve in about a minute: a kill costs no more than that."""
        state = self._pacer.state()
        if not state.calls:
            return FIRST_BATCH_READINGS
        return max(1, min(BATCH_READINGS, round(state.pace * BATCH_SECONDS)))

    async def _wait_out(self, hold: Held) -> None:
        """Wait until a hold is over, or for something to look at."""
        seconds = round(hold.until - self._clock.monotonic(), 1)
        if (hold.cause, round(hold.until)) != self._told_of:
            log.info("waiting", workspace=self.workspace, cause=hold.cause, seconds=seconds)
            self._told_of = (hold.cause, round(hold.until))
        await self._look_within(hold.until - self._clock.monotonic())

    async def _wait_for_due(self) -> bool:
        """Wait for the next due reading; False when none will come that is worth waiting for."""
        if self._open:
            await self._look.wait()  # what is open now may yet be deferred
            return True
        lasting = self._max_deferrals is None
        while not self._stopping.is_set():
            due_at = await self._ledger.do(next_due_at, self.workspace, max_deferrals=self._max_deferrals)
            if due_at is None and not lasting:
                return False
            seconds = LOOK_SECONDS if due_at is None else due_at - self._clock.wall()
            if seconds <= 0:
                break
            if await self._look_within(min(seconds, LOOK_SECONDS)):
                if lasting:
                    await self._stop_within(LINGER_SECONDS)
                break
        return True

    async def _look_within(self, seconds: float) -> bool:
        """Wait for a time; True where there was something to look at before."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._look.wait()
        except TimeoutError:
            return False

    async def _stop_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _work(self) -> None:
        """Turn readings into outcomes until there are no more."""
        while (job := await self._readings.get()) is not None:
            opened, reading = job
            if opened.lost:
                outcome: Outcome = Returned()
            else:
                pair = reading.pair
                span = opened.span.child(
                    "capture", campaign_id=pair.campaign_id, send_id=pair.send_id, reading=reading.name
                )
                outcome = await self._client.capture(reading, batch_id=opened.batch.id, span=span)
                span.end(outcome=type(outcome).__name__.lower())
            await self._take_back(opened, reading, outcome)

    async def _take_back(self, opened: _OpenBatch, reading: Reading, outcome: Outcome) -> None:
        """Add an outcome to its batch; the last one sends the batch on."""
        if isinstance(outcome, Captured):
            await opened.rows.add(outcome.rows, outcome.row_count)
            if outcome.raw:
                await opened.raw.add(outcome.raw, 1)
            # The rows are in the part now; the settlement needs the verdict alone.
            outcome = Captured(outcome.verdict, outcome.captured_at, b"", outcome.row_count, outcome.drift)
            log.debug("captured", workspace=self.workspace, campaign_id=reading.pair.campaign_id,
                      send_id=reading.pair.send_id, reading=reading.name, verdict=outcome.verdict.value,
                      rows=outcome.row_count, drift=outcome.drift, batch_id=opened.batch.id)  # fmt: skip
        opened.settlements.append(Settlement(reading, outcome))
        if opened.complete:
            await self._complete.put(opened)

    async def _commit_all(self) -> None:
        """Seal, create and store batches as they complete."""
        while (opened := await self._complete.get()) is not None:
            try:
                await self._commit(opened)
            finally:
                del self._open[opened.batch.id]
                self._room.release()
                self._look.set()

    async def _commit(self, opened: _OpenBatch) -> None:
        parts = [part for part in (await opened.rows.finish(), await opened.raw.finish()) if part is not None]
        if not await self._ledger.seal(opened.batch, opened.settlements, parts, destination=self._destination):
            log.warning("batch_lost", batch_id=opened.batch.id, workspace=self.workspace)
            opened.span.end(state="lost")
            return
        self._count(opened, parts)
        if parts:
            self._storing.add(opened.batch.id, sum(part.size_bytes for part in parts), span=opened.span)
        else:
            opened.span.end(state="stored")  # nothing came of it, so nothing is left to do
        if self._client.halted_because is not None:
            await self._ledger.do(halt, self.workspace, because=self._client.halted_because, now=self._clock.wall())
        elif any(isinstance(each.outcome, Captured) for each in opened.settlements):
            await self._ledger.do(resume, self.workspace)

    def _count(self, opened: _OpenBatch, parts: list[Part]) -> None:
        for settlement in opened.settlements:
            match settlement.outcome:
                case Captured() as outcome:
                    self.tally.outcomes[outcome.verdict.value] += 1
                case Rejected():
                    self.tally.outcomes["rejected"] += 1
                case _:
                    pass
        rows = sum(part.row_count for part in parts if part.dataset == DATASET)
        self.tally.parts += len(parts)
        self.tally.rows += rows
        self.tally.part_bytes += sum(part.size_bytes for part in parts)
        log.info("batch_sealed", batch_id=opened.batch.id, workspace=self.workspace, readings=len(opened.settlements),
                 rows=rows)  # fmt: skip

    async def _renew(self) -> None:
        """Lengthen our leases at a third of their length; what was given to another is no longer asked.

        It is also a good moment to say how things stand: batches may take long where the pace is low.
        """
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            state = self._pacer.state()
            log.info("progress", workspace=self.workspace, settled=self.tally.outcomes.total(), calls=state.calls,
                     calls_per_minute=round(60 * state.pace, 1), remaining=state.remaining, limit=state.limit,
                     held_because=state.held_because)  # fmt: skip
            mine = dict(self._open)
            held = [*mine, *self._storing.waiting_ids]
            kept = await self._ledger.renew(held) if held else set()
            for batch_id, opened in mine.items():
                opened.lost = batch_id not in kept
