"""The requests of one workspace: the readings that it claimed, and tasks that turn them into outcomes."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Self

from harvester.engine.lease import Lease
from harvester.engine.shared import Shared
from harvester.engine.workspaces import WorkspaceAccess
from harvester.model import Captured, Outcome, Reading, Released


class Requests:
    """Makes requests in the order of the claims. It calls ``wake`` when its lane has something to decide.

    A task exists only for a request that is in flight, is retried, or may be sent soon.
    """

    def __init__(self, access: WorkspaceAccess, shared: Shared, wake: Callable[[], None]) -> None:
        """Begin without readings."""
        self.to_release: list[Reading] = []
        """Readings that were not requested after all, to be released."""
        self.captured = False
        """Whether any reading was captured."""
        self._access = access
        self._shared = shared
        self._wake = wake
        self._unsent: deque[tuple[Reading, float]] = deque()
        self._tasks = 0
        self._starting = self.waiting_to_send = 0
        """The tasks that have not begun yet, and those that have not sent the first request of their reading yet."""
        self._refill_below = 0

    @property
    def busy(self) -> bool:
        """Whether a reading is claimed that has no outcome yet."""
        return self._tasks > 0 or bool(self._unsent) or bool(self.to_release)

    @property
    def unsent(self) -> int:
        """The number of readings that no task has taken yet."""
        return len(self._unsent)

    def start(self, readings: Iterable[Reading], *, offset: float, refill_below: int) -> None:
        """Request readings that were claimed while the clock had this ``offset``.

        The lane is woken once fewer than ``refill_below`` of them are left, and when all have an outcome.
        """
        self._unsent.extend((reading, offset) for reading in readings)
        self._refill_below = refill_below
        self.start_tasks()

    async def release(self) -> None:
        """Release the readings that are not requested yet, at once and unchanged. Raises ``LedgerError``."""
        readings = [*self.to_release, *(reading for reading, _ in self._unsent)]
        self.to_release, self._refill_below = [], 0
        self._unsent.clear()
        if readings:
            self._shared.capacity.free(len(readings))
            await self._shared.ledger.batches.release(readings)

    def drop_lost(self) -> None:
        """Drop readings of an earlier epoch, which other processes may hold."""
        kept = [each for each in self._unsent if self._shared.lease.covers(each[0])]
        self._shared.capacity.free(len(self._unsent) - len(kept))
        self._unsent = deque(kept)

    def start_tasks(self) -> None:
        """Start as many tasks as may send a request soon."""
        concurrency = self._shared.workspaces.settings.concurrency
        if not self._unsent or self._tasks >= concurrency:
            return
        waiting = self._starting + self.waiting_to_send
        more = min(self._access.pacer.count_for_next_slice() - waiting, concurrency - self._tasks)
        for _ in range(min(more, len(self._unsent) - self._starting)):
            self._tasks += 1
            self._starting += 1
            self._shared.spawn(self._work())

    async def _work(self) -> None:
        """Turn one reading after the other into an outcome, until none is left or one is released."""
        self._starting -= 1
        try:
            while self._unsent:
                reading, offset = self._unsent.popleft()
                if len(self._unsent) == self._refill_below - 1:
                    self._wake()
                with _SendPermit(self, reading, self._shared.lease) as permit:
                    outcome = await self._shared.time.send(
                        reading.pair.workspace, offset, partial(self._capture, reading, permit)
                    )
                if isinstance(outcome, Released):
                    self.to_release.append(reading)
                    return
                self.captured |= isinstance(outcome, Captured)
                await self._shared.committer.add(reading, outcome)
                self.start_tasks()
                await asyncio.sleep(0)  # other tasks handle their responses first
        finally:
            self._tasks -= 1
            if self.to_release or not self.busy:
                self._wake()

    async def _capture(self, reading: Reading, permit: "_SendPermit") -> Outcome:
        opened, pair = self._shared.committer.get_open_batch(reading.pair.workspace), reading.pair
        span = opened.span.child("capture", campaign_id=pair.campaign_id, send_id=pair.send_id, reading=reading.name)
        outcome = await self._access.client.capture(
            reading, get_batch_id=lambda: self._get_batch_id(pair.workspace), permit=permit.check, span=span
        )
        span.end(outcome=type(outcome).__name__.lower())
        return outcome

    def _get_batch_id(self, workspace: str) -> str:
        return self._shared.committer.get_open_batch(workspace).batch.id


class _SendPermit:
    """Permits the requests of a reading while its lease lasts, and counts it in ``waiting_to_send`` before the first.

    ``check`` is called at the last moment: a request may wait for seconds, and a suspended process loses its readings
    meanwhile.
    """

    __slots__ = ("_lease", "_reading", "_requests", "_sent")

    def __init__(self, requests: Requests, reading: Reading, lease: Lease) -> None:
        self._requests = requests
        self._reading = reading
        self._lease = lease
        self._sent = False

    def __enter__(self) -> Self:
        self._requests.waiting_to_send += 1
        return self

    def __exit__(self, *_: object) -> None:
        if not self._sent:
            self._requests.waiting_to_send -= 1

    def check(self) -> bool:
        """Return whether a request may be sent now, and record the first one that is."""
        if not self._lease.covers(self._reading):
            return False
        if not self._sent:
            self._sent = True
            self._requests.waiting_to_send -= 1
            self._requests.start_tasks()
        return True
