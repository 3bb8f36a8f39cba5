"""Groups outcomes into batches and seals them: one open batch for each place, and all of them together.

Requests in flight when batches are closed stay leased, and their outcomes go to the next ones, so a seal does not wait
for requests.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from itertools import chain

import structlog

from harvester.clock import wait_for_event
from harvester.engine.batch_in_progress import BatchInProgress
from harvester.engine.capacity import Capacity
from harvester.engine.counters import Counters
from harvester.engine.lease import Lease
from harvester.engine.places import Places
from harvester.engine.uploader import Uploader
from harvester.ledger import Ledger
from harvester.model import Batch, Captured, Outcome, Reading, Rejected
from harvester.storage import Compression

MAX_OUTCOMES = 1000
MAX_BYTES = 8 * 1024 * 1024
"""The open batches are sealed once they have this many outcomes or compressed bytes, which bounds their memory."""

MAX_AGE_SECONDS = 10.0
"""The maximum age of a batch's first outcome. A kill repeats at most this much work, plus requests in flight."""

log = structlog.get_logger()


class Committer:
    """Owns the batches in progress of a process.

    They are closed and sealed together: once they have a maximum of outcomes or bytes, ``MAX_AGE_SECONDS`` after the
    first outcome, and at once if no workspace is busy.
    """

    def __init__(
        self,
        ledger: Ledger,
        uploader: Uploader,
        places: Places,
        *,
        compression: Compression,
        lease: Lease,
        capacity: Capacity,
        counters: Counters,
        on_sealed: Callable[[set[str]], None],
    ) -> None:
        """Call ``on_sealed`` with the workspaces of each batch that is sealed."""
        self._ledger = ledger
        self._uploader = uploader
        self._places = places
        self._compression = compression
        self._lease = lease
        self._capacity = capacity
        self._counters = counters
        self._on_sealed = on_sealed
        self._open: dict[str, BatchInProgress] = {}
        self._open_outcomes = self._open_bytes = 0
        self._closed: deque[list[BatchInProgress]] = deque()
        self._sealing: list[BatchInProgress] = []
        self._unsealed: Counter[str] = Counter()
        self._busy: set[str] = set()
        self._finishing = False
        self._changed = asyncio.Event()

    def get_open_batch(self, workspace: str) -> BatchInProgress:
        """Return the open batch of a workspace's place, to which its next outcome will be added."""
        destination = self._places.destinations[workspace]
        opened = self._open.get(destination)
        if opened is not None and opened.outcomes:
            return opened
        now = self._ledger.clock.wall()
        # The name of a part contains the time when its batch was opened, so an old batch without outcomes is replaced.
        if opened is None or now - opened.batch.opened_at > MAX_AGE_SECONDS:
            opened = self._open[destination] = BatchInProgress(Batch.open(now), self._compression, destination)
        return opened

    async def add(self, reading: Reading, outcome: Outcome) -> None:
        """Add the outcome of a reading, before any wait; it is dropped if the lease was lost since the claim."""
        if reading.epoch != self._lease.epoch:
            self._capacity.free(1)
            return
        opened = self.get_open_batch(reading.pair.workspace)
        self._unsealed[reading.pair.workspace] += 1
        if not self._open_outcomes:
            self._changed.set()
        self._open_outcomes += 1
        await opened.add_outcome(reading, outcome, now=self._ledger.clock.monotonic())
        if self._open.get(opened.destination) is opened:
            self._open_bytes += opened.count_new_bytes()
            if self._open_outcomes >= MAX_OUTCOMES or self._open_bytes >= MAX_BYTES:
                self._close()

    def has_unsealed(self, workspace: str) -> bool:
        """Return whether a workspace has outcomes that are not sealed yet."""
        return self._unsealed[workspace] > 0

    def count_unsealed(self) -> Counter[str]:
        """Return how many captures and rejections of each workspace are not sealed yet."""
        batches = [*self._open.values(), *chain(*self._closed), *self._sealing]
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
        self._capacity.free(self._unsealed.total())
        self._unsealed.clear()
        self._open.clear()
        self._open_outcomes = self._open_bytes = 0
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
            if self._finishing and not self._open_outcomes:
                return
            await wait_for_event(self._changed, timeout_seconds=seconds)

    def _close_old(self) -> float | None:
        """Close the batches if it is time; returns the seconds until then, or None without an outcome."""
        if not self._open_outcomes:
            return None
        began = min(each.first_outcome_at for each in self._open.values() if each.outcomes)
        seconds = began + MAX_AGE_SECONDS - self._ledger.clock.monotonic()
        if seconds > 0 and self._busy and not self._finishing:
            return seconds
        self._close()
        return None

    def _close(self) -> None:
        closed = [each for each in self._open.values() if each.outcomes]
        self._open = {place: each for place, each in self._open.items() if not each.outcomes}
        self._open_outcomes = self._open_bytes = 0
        self._closed.append(closed)
        self._changed.set()

    async def _seal(self, closed: list[BatchInProgress]) -> None:
        finished = [(each.batch, each.outcomes, await each.finish()) for each in closed]
        epoch, readings = closed[0].outcomes[0].reading.epoch, sum(len(each.outcomes) for each in closed)
        if self._lease.over:
            await self._lease.renew()
        sealed = epoch == self._lease.epoch and await self._ledger.batches.seal(finished)
        self._sealing = []
        for each in closed:
            each.span.set(readings=len(each.outcomes))
        if not sealed:
            for each in closed:
                log.warning("batch_lost", batch_id=each.batch.id, readings=len(each.outcomes))
                each.span.end(state="lost")
            await self._lease.replace(epoch)
            return
        if epoch == self._lease.epoch:  # otherwise ``drop_lost`` has already updated the counts
            self._capacity.free(readings)
            self._unsealed -= Counter(each.reading.pair.workspace for one in closed for each in one.outcomes)
        for each, (_, outcomes, parts) in zip(closed, finished, strict=True):
            self._counters.add(outcomes, parts)
            each.log_sealed(parts)
            if parts:
                size_bytes = sum(part.size_bytes for part in parts)
                self._uploader.add(each.batch.id, each.destination, size_bytes, span=each.span)
            else:
                each.span.end(state="stored")  # there is nothing to store
        self._on_sealed(set().union(*(each.workspaces for each in closed)))
