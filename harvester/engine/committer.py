"""Groups outcomes into batches and seals them: one open batch for each place.

Requests in flight when a batch is closed stay leased, and their outcomes go to the next batch, so a seal does not wait
for requests.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

import structlog

from harvester.clock import wait_for_event
from harvester.engine.batch_in_progress import BatchInProgress
from harvester.engine.counters import Counters
from harvester.engine.holdings import Holdings
from harvester.engine.lease import Lease
from harvester.engine.uploader import Uploader
from harvester.ledger import Ledger
from harvester.model import Batch, Captured, Outcome, Reading, Rejected
from harvester.storage import Compression

MAX_AGE_SECONDS = 10.0
"""The maximum age of a batch's first outcome. A kill repeats at most this much work, plus requests in flight."""

log = structlog.get_logger()


class Committer:
    """Owns the batches in progress of a process.

    A batch is closed once it is complete, ``MAX_AGE_SECONDS`` after its first outcome, and at once if no workspace is
    busy.
    """

    def __init__(
        self,
        ledger: Ledger,
        uploader: Uploader,
        *,
        compression: Compression,
        lease: Lease,
        holdings: Holdings,
        counters: Counters,
        on_sealed: Callable[[set[str]], None],
    ) -> None:
        """Call ``on_sealed`` with the workspaces of each batch that is sealed."""
        self._ledger = ledger
        self._uploader = uploader
        self._compression = compression
        self._lease = lease
        self._holdings = holdings
        self._counters = counters
        self._on_sealed = on_sealed
        self._open: dict[str, BatchInProgress] = {}
        self._closed: deque[BatchInProgress] = deque()
        self._sealing: BatchInProgress | None = None
        self._unsealed: Counter[str] = Counter()
        self._busy: set[str] = set()
        self._finishing = False
        self._changed = asyncio.Event()

    def open_batch(self, place: str) -> BatchInProgress:
        """Return the batch that takes the next outcome for a place, the id of its dataset."""
        opened = self._open.get(place)
        if opened is not None and opened.outcomes:
            return opened
        now = self._ledger.clock.wall()
        # The name of a part contains the time when its batch was opened, so an old batch without outcomes is replaced.
        if opened is None or now - opened.batch.opened_at > MAX_AGE_SECONDS:
            opened = self._open[place] = BatchInProgress(Batch.open(now), self._compression, place)
        return opened

    async def add(self, place: str, reading: Reading, outcome: Outcome) -> None:
        """Add the outcome of a reading, before any wait; it is dropped if the lease was lost since the claim."""
        if reading.epoch != self._lease.epoch:
            self._holdings.remove(1)
            return
        opened = self.open_batch(place)
        self._unsealed[reading.pair.workspace] += 1
        if not opened.outcomes:
            self._changed.set()
        await opened.add_outcome(reading, outcome, now=self._ledger.clock.monotonic())
        if opened.complete and self._open.get(place) is opened:
            self._close(place)

    def has_unsealed(self, workspace: str) -> bool:
        """Return whether a workspace has outcomes that are not sealed yet."""
        return self._unsealed[workspace] > 0

    def count_unsealed(self) -> Counter[str]:
        """Return how many captures and rejections of each workspace are not sealed yet."""
        batches = [*self._open.values(), *self._closed, *filter(None, [self._sealing])]
        return Counter(
            each.reading.pair.workspace
            for batch in batches
            for each in batch.outcomes
            if isinstance(each.outcome, Captured | Rejected)
        )

    def set_busy(self, workspace: str, *, busy: bool) -> None:
        """Record whether a workspace has something due or in flight. If none has, everything is closed at once."""
        if busy:
            self._busy.add(workspace)
        elif workspace in self._busy:
            self._busy.remove(workspace)
            self._changed.set()

    def drop_lost(self) -> None:
        """Drop all outcomes: the lease of their readings was lost."""
        self._holdings.remove(self._unsealed.total())
        self._unsealed.clear()
        self._open.clear()
        self._closed.clear()

    def finish(self) -> None:
        """Let ``run`` end once everything is sealed."""
        self._finishing = True
        self._changed.set()

    async def run(self) -> None:
        """Close and seal batches until it is finished. Raises ``LedgerError``."""
        while True:
            self._changed.clear()
            seconds = self._close_old()
            while self._closed:
                self._sealing = self._closed.popleft()
                await self._seal(self._sealing)
            if self._finishing and not any(each.outcomes for each in self._open.values()):
                return
            await wait_for_event(self._changed, timeout_seconds=seconds)

    def _close_old(self) -> float | None:
        """Close the batches that are old enough; returns the seconds until the next one is, or None without one."""
        at_once = self._finishing or not self._busy
        until = self._ledger.clock.monotonic() - MAX_AGE_SECONDS
        for place, each in list(self._open.items()):
            if each.outcomes and (at_once or each.first_outcome_at <= until):
                self._close(place)
        return min((each.first_outcome_at - until for each in self._open.values() if each.outcomes), default=None)

    def _close(self, place: str) -> None:
        self._closed.append(self._open.pop(place))
        self._changed.set()

    async def _seal(self, closed: BatchInProgress) -> None:
        parts, epoch = await closed.finish(), closed.outcomes[0].reading.epoch
        if self._lease.over:
            await self._lease.renew()
        sealed = epoch == self._lease.epoch and await self._ledger.batches.seal(closed.batch, closed.outcomes, parts)
        self._sealing = None
        closed.span.set(readings=len(closed.outcomes))
        if not sealed:
            log.warning("batch_lost", batch_id=closed.batch.id, readings=len(closed.outcomes))
            closed.span.end(state="lost")
            await self._lease.replace(epoch)
            return
        self._counters.add(closed.outcomes, parts)
        closed.log_sealed(parts)
        if epoch == self._lease.epoch:  # otherwise ``drop_lost`` has already updated the counts
            self._holdings.remove(len(closed.outcomes))
            self._unsealed -= Counter(each.reading.pair.workspace for each in closed.outcomes)
        if parts:
            self._uploader.add(closed.batch.id, sum(part.size_bytes for part in parts), span=closed.span)
        else:
            closed.span.end(state="stored")  # there is nothing to store
        self._on_sealed(closed.workspaces)
