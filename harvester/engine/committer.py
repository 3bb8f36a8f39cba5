"""Groups outcomes into batches and seals them: one open batch for each place.

Requests in flight at a cut stay leased, and their outcomes go to the next batch, so a seal waits for no request.
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
from harvester.model import Batch, Outcome, Reading
from harvester.storage import Compression

CUT_SECONDS = 10.0
"""The maximum age of a batch's first outcome. A kill repeats at most this much work, plus requests in flight."""

log = structlog.get_logger()


class Committer:
    """Owns the batches in progress of a process.

    A batch is cut once it is complete, ``CUT_SECONDS`` after its first outcome, and at once if no workspace is busy.
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
        self._cut: deque[BatchInProgress] = deque()
        self._unsealed: Counter[str] = Counter()
        self._busy: set[str] = set()
        self._finishing = False
        self._changed = asyncio.Event()

    def open_batch(self, place: str) -> BatchInProgress:
        """Return the batch that takes the next outcome for a place, the id of its dataset."""
        opened = self._open.get(place)
        if opened is not None and opened.settlements:
            return opened
        now = self._ledger.clock.wall()
        # The name of a part contains the time when its batch was opened, so an old batch without outcomes is replaced.
        if opened is None or now - opened.batch.opened_at > CUT_SECONDS:
            opened = self._open[place] = BatchInProgress(Batch.open(now), self._compression, place)
        return opened

    async def add(self, place: str, reading: Reading, outcome: Outcome) -> None:
        """Add the outcome of a reading, before any wait; it is dropped if the lease was lost since the claim."""
        if reading.epoch != self._lease.epoch:
            self._holdings.remove(1)
            return
        opened = self.open_batch(place)
        self._unsealed[reading.pair.workspace] += 1
        if not opened.settlements:
            self._changed.set()
        await opened.add_outcome(reading, outcome, now=self._ledger.clock.monotonic())
        if opened.complete and self._open.get(place) is opened:
            self._close(place)

    def has_unsealed(self, workspace: str) -> bool:
        """Return whether a workspace has outcomes that are not sealed yet."""
        return self._unsealed[workspace] > 0

    def set_busy(self, workspace: str, *, busy: bool) -> None:
        """Record whether a workspace has something due or in flight. If none has, everything is cut at once."""
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
        self._cut.clear()

    def finish(self) -> None:
        """Let ``run`` end once everything is sealed."""
        self._finishing = True
        self._changed.set()

    async def run(self) -> None:
        """Cut and seal until it is finished. Raises ``LedgerError``."""
        while True:
            self._changed.clear()
            seconds = self._cut_old()
            while self._cut:
                await self._seal(self._cut.popleft())
            if self._finishing and not any(each.settlements for each in self._open.values()):
                return
            await wait_for_event(self._changed, timeout_seconds=seconds)

    def _cut_old(self) -> float | None:
        """Cut what is old enough; returns the seconds until the next batch is, or None without one."""
        at_once = self._finishing or not self._busy
        until = self._ledger.clock.monotonic() - CUT_SECONDS
        for place, each in list(self._open.items()):
            if each.settlements and (at_once or each.first_outcome_at <= until):
                self._close(place)
        return min((each.first_outcome_at - until for each in self._open.values() if each.settlements), default=None)

    def _close(self, place: str) -> None:
        self._cut.append(self._open.pop(place))
        self._changed.set()

    async def _seal(self, cut: BatchInProgress) -> None:
        parts, epoch = await cut.finish(), cut.settlements[0].reading.epoch
        if self._lease.over:
            await self._lease.renew()
        sealed = epoch == self._lease.epoch and await self._ledger.batches.seal(cut.batch, cut.settlements, parts)
        cut.span.set(readings=len(cut.settlements))
        if not sealed:
            log.warning("batch_lost", batch_id=cut.batch.id, readings=len(cut.settlements))
            cut.span.end(state="lost")
            await self._lease.replace(epoch)
            return
        self._counters.add(cut.settlements, parts)
        cut.log_sealed(parts)
        if epoch == self._lease.epoch:  # otherwise ``drop_lost`` has already updated the counts
            self._holdings.remove(len(cut.settlements))
            self._unsealed -= Counter(each.reading.pair.workspace for each in cut.settlements)
        if parts:
            self._uploader.add(cut.batch.id, sum(part.size_bytes for part in parts), span=cut.span)
        else:
            cut.span.end(state="stored")  # there is nothing to store
        self._on_sealed(cut.workspaces)
