"""Decides when a request may be sent.

The only module that imports aiolimiter, and the only one that waits for Braze. Requests wait in one queue. The first
one waits for the gate, then for the limit of requests in flight, then for a bucket that smooths the quota's pace. The
bucket contains *time*: it drains one second per second, and a request costs ``1 / pace`` seconds. The pace may
therefore change at any moment without a new limiter.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from aiolimiter import AsyncLimiter

from harvester.braze.gate import HALTED_SECONDS, REFUSED_SECONDS, Gate, Held, Hold, HoldCause
from harvester.braze.limits import Limits
from harvester.braze.pace_state import PaceState
from harvester.braze.quota import Quota, QuotaReport
from harvester.clock import Clock, wait_for_event

BURST_SECONDS = 0.1
SLICE_SECONDS = 0.05
"""The most time that is paid at once: less than the burst, so that a late timer loses nothing. All requests that one
slice pays for are sent together, because one timer for each would cost 50 % more CPU."""

_ROUNDING = 1e-9


class Pacer:
    """Paces the requests of one workspace."""

    def __init__(
        self,
        *,
        reserve: float,
        max_rate: float,
        clock: Clock,
        jitter: random.Random,
        longest_wait_seconds: float = 5.0,
        quota: Quota | None = None,
    ) -> None:
        """Keep ``reserve`` (a share of the limit) free and never exceed ``max_rate`` requests per second.

        ``acquire`` raises ``Held`` instead of waiting longer than ``longest_wait_seconds`` for a hold.
        """
        self._quota = quota or Quota(reserve)
        self._gate = Gate(jitter)
        self._limits = Limits(self._quota, self._gate, max_rate=max_rate, shortest_hold_seconds=SLICE_SECONDS)
        self._traffic = self._limits.traffic
        self._clock = clock
        self._longest_wait_seconds = longest_wait_seconds
        self._bucket = AsyncLimiter(BURST_SECONDS, BURST_SECONDS)
        self._paid = 0.0
        """The requests that are paid but not sent yet."""
        self._queue: deque[asyncio.Event] = deque()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        """Return the class and the state."""
        return f"Pacer({self.state()})"

    async def acquire(self) -> float:
        """Wait until one request may be sent; returns the monotonic time. One ``release`` must follow each ``acquire``.

        Raises ``Held`` if a hold lasts too long to wait for, or if the pacer is stopped.
        """
        turn = asyncio.Event()
        self._queue.append(turn)
        try:
            return await self._wait_in_queue(turn)
        finally:
            self._queue.remove(turn)
            if self._queue:
                self._queue[0].set()

    async def _wait_in_queue(self, turn: asyncio.Event) -> float:
        """Wait until a request is paid and may be sent. Only the first in the queue waits for more than its turn."""
        if self._queue[0] is not turn:
            await turn.wait()
        traffic = self._traffic
        while True:
            now = self._clock.monotonic()
            hold = self._gate.update_hold(now)
            free = self._limits.count_free(now)
            open_ = hold is None and free > 0
            if self._queue[0] is not turn and not (open_ and self._paid > 1 - _ROUNDING):
                turn.clear()
                await turn.wait()
            elif hold is not None:
                await self._wait_for_hold(hold, now)
            elif free <= 0:
                await self._wait_for_change(None)
            elif self._paid > 1 - _ROUNDING or await self._pay(now, free):
                self._paid -= 1
                traffic.in_flight += 1
                traffic.requests += 1
                return now

    async def _wait_for_hold(self, hold: Hold, now: float) -> None:
        """Wait until a hold is over or anything changes. Raises ``Held`` if that may take too long."""
        if hold.cause is HoldCause.STOPPING or hold.until - now > self._longest_wait_seconds:
            raise Held(hold)
        self._paid %= 1.0
        await self._wait_for_change(hold.until - now)
        self._traffic.waited_seconds += self._clock.monotonic() - now

    def add_wait(self, seconds: float) -> None:
        """Count a wait for quota that others made for all requests at once."""
        self._traffic.waited_seconds += seconds

    async def _pay(self, now: float, free: int) -> bool:
        """Wait until the bucket accepts a slice of the queue's cost; returns whether the first request may be sent."""
        pace = self._limits.find_pace(now)
        if pace <= 0:
            await self._wait_for_hold(self._limits.get_rate_limit_hold(now), now)
            return False
        requests = min(free, len(self._queue)) - self._paid
        seconds = min(requests / pace, SLICE_SECONDS)
        self._changed.clear()
        await self._bucket.acquire(seconds)
        self._paid += seconds * pace
        for turn in islice(self._queue, 1, int(self._paid + _ROUNDING)):
            turn.set()
        return self._paid > 1 - _ROUNDING and not self._changed.is_set()

    async def _wait_for_change(self, seconds: float | None) -> None:
        """Wait until a request ends or a hold begins or ends, or until the timeout."""
        self._changed.clear()
        await wait_for_event(self._changed, timeout_seconds=seconds)

    def release(self, report: QuotaReport | None, latency_seconds: float | None) -> None:
        """Record that a request has ended, and what its response, if there was one, reports about the quota."""
        self._traffic.in_flight -= 1
        if latency_seconds is not None:
            self._gate.answered = True
            self._traffic.latency_seconds += 0.1 * (latency_seconds - self._traffic.latency_seconds)
        if report is not None:
            self._quota.observe(report, self._clock.monotonic())
        self._changed.set()

    def cancel(self) -> None:
        """Undo an ``acquire`` whose request was not sent. Call it instead of ``release``."""
        self._traffic.in_flight -= 1
        self._traffic.requests -= 1
        self._changed.set()

    @contextmanager
    def waiting_for_slot(self) -> Iterator[None]:
        """Send no further request while one that was acquired waits for a slot of the process."""
        self._traffic.without_slot += 1
        try:
            yield
        finally:
            self._traffic.without_slot -= 1
            self._changed.set()

    def record_success(self) -> None:
        """Record a usable response: backing off ends, and the ramp continues."""
        self._gate.record_success()

    def record_failure(self) -> None:
        """Record a transient failure. Ten in a row, or one while backing off, begin a hold."""
        self._gate.record_failure(self._clock.monotonic())
        self._changed.set()

    def may_retry(self) -> bool:
        """Return whether a retry may be made, and spend its credit."""
        return self._gate.may_retry()

    def record_throttled(self) -> bool:
        """Record a 429: all requests stop at once.

        Returns whether the quota explains it: what the responses allow is used, except for the reserve.
        """
        self._traffic.throttled += 1
        now, quota = self._clock.monotonic(), self._quota
        left = quota.seconds_to_reset(now) if quota.has_window else 0.0
        self._gate.record_throttled(now, left)
        self._changed.set()
        return left > 0 and quota.spare(0) < 1

    def halt(self, seconds: float = HALTED_SECONDS) -> None:
        """Stop all requests except one probe every ``seconds``: the key, its permission or the endpoint is wrong."""
        self._gate.hold(HoldCause.HALTED, self._clock.monotonic() + seconds)
        self._changed.set()

    def doubt(self) -> None:
        """Stop all requests until a probe is chosen, after many refusals in a row. Any other hold has precedence."""
        if self._gate.hold_cause is None:
            self._gate.hold(HoldCause.REFUSED, self._clock.monotonic() + REFUSED_SECONDS)
            self._changed.set()

    def lift(self, cause: HoldCause = HoldCause.HALTED) -> None:
        """End a hold of this cause: the next request is a probe, and may be sent now."""
        self._gate.lift(cause)
        self._changed.set()

    def stop(self) -> None:
        """Send no further request, and end every wait."""
        self._gate.stop()
        self._changed.set()

    @property
    def hold_cause(self) -> HoldCause | None:
        """The cause of the current hold, unless it is the rate limit."""
        return self._gate.hold_cause

    @property
    def backing_off(self) -> bool:
        """Whether there was no usable response since a back-off."""
        return self._gate.backing_off

    def find_long_hold(self) -> Hold | None:
        """Return the hold that ``acquire`` would raise; None if there is none, or if it is short enough to wait for."""
        now = self._clock.monotonic()
        hold = self._limits.update_hold(now)
        return hold if hold is not None and hold.until - now > self._longest_wait_seconds else None

    def overload_seconds(self, holds: int) -> float:
        """Return the most seconds until ``holds`` overload holds in a row are over, if every probe fails."""
        return self._gate.overload_seconds(self._clock.monotonic(), holds)

    def count_requests_within(self, seconds: float, *, concurrency: int) -> int:
        """Return how many requests can be made within some seconds, ``concurrency`` at a time."""
        return self._limits.count_requests_within(seconds, self._clock.monotonic(), concurrency=concurrency)

    def count_for_next_slice(self) -> int:
        """Return how many requests should wait in the queue for the next slice; at least 1."""
        now = self._clock.monotonic()
        in_a_slice = math.ceil(max(0.0, self._limits.find_pace(now)) * SLICE_SECONDS)
        return max(1, min(in_a_slice, self._limits.count_free(now)))

    def state(self) -> PaceState:
        """Return the current state."""
        return self._limits.get_state(self._clock.monotonic())
