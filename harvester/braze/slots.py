"""The slots of a process: how many requests of all its workspaces may be in flight.

A request takes a slot only when its workspace's pacer permits it, so a workspace that waits holds none. A slow request
gives its slot to others: otherwise a few workspaces whose requests hang would hold every slot.
"""

import asyncio
from heapq import heappop, heappush

from harvester.braze.gate import Held, Hold, HoldCause
from harvester.clock import Clock

SLOW_SECONDS = 5.0
"""A request that is older gives its slot to others. Its workspace's limit and the connector still bound it."""


class Slots:
    """Slots for requests in flight. The request with the nearest deadline gets the next free one."""

    def __init__(self, count: int, clock: Clock) -> None:
        """Begin with ``count`` free slots."""
        self._free = count
        self._clock = clock
        self._taken: dict[int, float] = {}
        """The monotonic time when each slot was taken, the oldest first."""
        self._waiting: list[tuple[float, int, asyncio.Future[int]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def take(self, now: float) -> int | None:
        """Take a slot at a monotonic time, to be released; None if none is free, or if others wait for one."""
        if self._free <= 0 or self._waiting:
            return None
        return self._grant(now)

    async def wait(self, deadline: float) -> int:
        """Wait for a slot, and take it. Raises ``Held`` if the process stops."""
        if self._stopped:
            raise self._held()
        slot: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._number += 1
        heappush(self._waiting, (deadline, self._number, slot))
        self._grant_free_slots()
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self.release(slot.result())
            raise

    def release(self, slot: int) -> None:
        """Give a slot back, unless it was given to others already."""
        if slot in self._taken:
            del self._taken[slot]
            self._free += 1
            if self._waiting:
                self._grant_free_slots()

    def stop(self) -> None:
        """End every wait."""
        self._stopped = True
        waiting, self._waiting = self._waiting, []
        for _, _, slot in waiting:
            if not slot.done():
                slot.set_exception(self._held())
        if self._timer is not None:
            self._timer.cancel()

    def _held(self) -> Held:
        return Held(Hold(HoldCause.STOPPING, self._clock.monotonic()))

    def _grant_free_slots(self) -> None:
        """Grant free slots to waiting requests; repeat this when the oldest request becomes slow."""
        now = self._clock.monotonic()
        while self._waiting and (self._waiting[0][2].done() or self._find_free(now)):
            _, _, slot = heappop(self._waiting)
            if not slot.done():
                slot.set_result(self._grant(now))
        if self._waiting and self._timer is None:
            oldest = next(iter(self._taken.values()), now)
            wait_seconds = max(oldest + SLOW_SECONDS - now, 0.001)
            self._timer = asyncio.get_running_loop().call_later(wait_seconds, self._on_timer)

    def _grant(self, now: float) -> int:
        self._free -= 1
        self._number += 1
        self._taken[self._number] = now
        return self._number

    def _on_timer(self) -> None:
        self._timer = None
        self._grant_free_slots()

    def _find_free(self, now: float) -> bool:
        """Return whether a slot is free, if necessary that of the oldest request because it is slow."""
        if self._free > 0:
            return True
        oldest = next(iter(self._taken))
        if now - self._taken[oldest] < SLOW_SECONDS:
            return False
        del self._taken[oldest]
        self._free += 1
        return True


def unlimited_slots(clock: Clock) -> Slots:
    """Return slots that never run out, for a client by itself."""
    return Slots(1 << 30, clock)
