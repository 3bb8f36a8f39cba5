"""When a call may leave: the only door to aiolimiter, and the only place where the harvest waits for Braze.

One mechanism serves start-up, a new window, a 429, an overloaded server and a halted workspace alike: a
*hold* (why, until when), then *probing* (one call in flight until a good answer), then a ramp (one more in
flight for every good answer). Beneath it the budget's pace is smoothed by a bucket that holds *time*: it drains
one second a second, and a call costs ``1 / pace`` seconds. So the pace may change at any moment, and one
limiter serves for life.
"""

import asyncio
import random
from collections import deque
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

from harvester.braze.budget import Budget, BudgetReport
from harvester.clock import Clock, wait_for_event
from harvester.errors import HarvesterError

BURST_SECONDS = 0.1
SLICE_SECONDS = 0.05
"""The part of a call's cost paid at a time: less than the burst, so that a late timer loses nothing."""

TOGETHER_CALLS = 8
"""For so many calls at the most one waits at a time, so that a few leave together: woken for each, the process would
cost half as much again."""

FAILURES_TO_HOLD = 10
UNANSWERED_TO_HOLD = 3
"""Where no call was ever answered, nobody may be there: a few failures tell as much as ten."""

OVERLOAD_FIRST_SECONDS, OVERLOAD_MAX_SECONDS = 15.0, 300.0
THROTTLED_FIRST_SECONDS, THROTTLED_MAX_SECONDS = 15.0, 3660.0
HALTED_SECONDS = 600.0
REFUSED_SECONDS = 6.0
"""Between probes after refusals. Longer than a worker waits, so that claimed readings are returned."""

RETRIES_PER_READING = 0.2
_RETRIES_KEPT = 20.0


def count_overload_holds(seconds: float) -> int:
    """Count the overload holds in a row that together last at most ``seconds``."""
    holds, waited = 0, OVERLOAD_FIRST_SECONDS
    while waited <= seconds:
        holds += 1
        waited += min(OVERLOAD_FIRST_SECONDS * 2.0**holds, OVERLOAD_MAX_SECONDS)
    return holds


class Held(HarvesterError):  # noqa: N818 - it is a state to act on, not a failure
    """No call may leave for longer than a worker should wait; the reading goes back to the ledger."""

    def __init__(self, cause: str, until: float) -> None:
        """``cause`` is a key of ``health.HOLDS``. ``until`` is in monotonic seconds."""
        super().__init__(f"held because of {cause}")
        self.cause = cause
        self.until = until


@dataclass(frozen=True, slots=True)
class PaceState:
    """What the pacer is doing, for people. Zeros until the first answer has told of the budget."""

    pace: float
    limit: int
    remaining: int
    reserve_calls: int
    seconds_to_reset: float
    in_flight: int
    held_because: str | None
    held_seconds: float
    holds_in_a_row: int
    calls: int
    throttled: int
    waited_seconds: float
    answered: bool

    def known_figures(self, *, idle: bool) -> dict[str, float]:
        """Return pace and budget for a log line, as far as answers have told them in this window."""
        if self.seconds_to_reset <= 0:
            return {}
        pace = {} if idle and self.held_because is None else {"requests_per_minute": round(60 * self.pace, 1)}
        return {**pace, "remaining_requests": self.remaining, "limit_requests": self.limit}


class Pacer:
    """Lets the calls of one workspace leave, politely."""

    def __init__(
        self, *, reserve: float, max_rate: float, clock: Clock, jitter: random.Random,
        longest_wait_seconds: float = 5.0, budget: Budget | None = None,
    ) -> None:  # fmt: skip
        """Keep ``reserve`` (a share of the limit) free and never exceed ``max_rate`` calls per second.

        A wait longer than ``longest_wait_seconds`` is not waited for: ``permit`` raises ``Held``.
        """
        self._budget = budget or Budget(reserve)
        self._max_rate = max_rate
        self._clock = clock
        self._jitter = jitter
        self._longest_wait_seconds = longest_wait_seconds
        self._bucket = AsyncLimiter(BURST_SECONDS, BURST_SECONDS)
        self._line: deque[asyncio.Event] = deque()
        self._changed = asyncio.Event()
        self._hold: Held | None = None
        self._allowed = 1
        self._stopped = False
        self._in_flight = 0
        self._latency_seconds = 0.1
        self._answered = False
        self._failures = 0
        self._holds_in_a_row = 0
        self._retries = _RETRIES_KEPT / 2
        self._calls = self._throttled = 0
        self._waited_seconds = 0.0

    def __repr__(self) -> str:
        """Show what it is doing."""
        return f"Pacer({self.state()})"

    async def permit(self) -> None:
        """Wait until one call may leave, and charge it. Each permit must be followed by one ``landed``.

        Raises ``Held`` when that would take too long, or when stopping.
        """
        if self._line or not await self._leave():
            await self._stand_in_line()
        self._in_flight += 1
        self._calls += 1

    async def _stand_in_line(self) -> None:
        """Wait until called up, and then until the call may leave. Raises ``Held``."""
        turn = asyncio.Event()
        self._line.append(turn)
        try:
            if len(self._line) > 1:
                await turn.wait()
            while not await self._leave(waiting=self._line[0] is turn):
                turn.clear()
                await turn.wait()
        finally:
            self._line.remove(turn)
            self._call_up()

    def _call_up(self) -> None:
        """Call up the next in line, and the whole line where all may leave.

        Called one by one, each takes a round of the event loop; where answers are quick, as many come back in a round
        as leave, and the line never ends.
        """
        if self._line:
            now, calls = self._clock.monotonic(), len(self._line)
            pace = self._pace(now)
            free = self._may_fly(now) - self._in_flight
            all_may = not isinstance(pace, Held) and calls <= free and self._bucket.has_capacity(calls / pace)
            for turn in self._line if all_may else (self._line[0],):
                turn.set()

    async def _leave(self, *, waiting: bool = False) -> bool:
        """Pay for one call; False where it may not leave at once, unless ``waiting`` until it may. Raises ``Held``."""
        owed = 1.0
        while owed > 1e-9:
            now = self._clock.monotonic()
            pace = self._pace(now)
            if not isinstance(pace, Held) and self._in_flight < self._may_fly(now):
                paid = min(owed / pace, SLICE_SECONDS) if waiting else owed / pace
                if self._bucket.has_capacity(paid):
                    await self._bucket.acquire(paid)
                    owed -= paid * pace
                    continue
            if isinstance(pace, Held) and (pace.cause == "stopping" or pace.until - now > self._longest_wait_seconds):
                raise pace
            if not waiting:
                return False
            await self._wait(now, pace)
        return True

    async def _wait(self, now: float, pace: float | Held) -> None:
        """Wait for what keeps a call: a hold, those in flight, or the pace. Only the first in line ever waits here."""
        if isinstance(pace, Held):
            await self._change(pace.until - now)
            self._waited_seconds += self._clock.monotonic() - now
        elif self._in_flight >= self._may_fly(now):
            await self._change(None)
        else:
            await asyncio.sleep(min(SLICE_SECONDS, TOGETHER_CALLS / pace))

    def landed(self, report: BudgetReport | None, latency_seconds: float | None) -> None:
        """Take note that a call has ended, and of what its answer told of the budget, if there was one."""
        self._in_flight -= 1
        if latency_seconds is not None:
            self._answered = True
            self._latency_seconds += 0.1 * (latency_seconds - self._latency_seconds)
        if report is not None:
            self._budget.observe(report, self._clock.monotonic())
        self._changed.set()

    def succeeded(self) -> None:
        """Take note of a good answer: probing ends, the ramp goes on."""
        self._failures = self._holds_in_a_row = 0
        self._retries = min(self._retries + RETRIES_PER_READING, _RETRIES_KEPT)
        if self._hold is None:
            self._allowed += 1

    def failed(self) -> None:
        """Take note of a transient failure: ten in a row, or one while probing, are an overload."""
        self._failures += 1
        enough = FAILURES_TO_HOLD if self._answered else UNANSWERED_TO_HOLD
        if self._hold is None and (self._failures >= enough or self._holds_in_a_row):
            self._back_off("overloaded", OVERLOAD_FIRST_SECONDS, OVERLOAD_MAX_SECONDS)

    def may_retry(self) -> bool:
        """Tell whether a retry may be spent: they stay under a fifth of the readings, even in a storm."""
        if self._retries < 1 or self._hold is not None:
            return False
        self._retries -= 1
        return True

    def throttled(self) -> bool:
        """Take note of a 429: all calls stop at once. A burst of them is one lesson.

        Returns whether the budget explains it: what the answers allow is spent, but for the reserve.
        """
        self._throttled += 1
        now, budget = self._clock.monotonic(), self._budget
        left = budget.seconds_to_reset(now) if budget.known else 0.0
        if not self.throttling:
            if left > 0:
                self._set_hold("throttled", now + left + self._jitter.uniform(0, min(1.0, 0.01 * left)))
            else:
                self._back_off("throttled", THROTTLED_FIRST_SECONDS, THROTTLED_MAX_SECONDS)
        return left > 0 and budget.remaining <= budget.reserve * budget.limit

    @property
    def throttling(self) -> bool:
        """Whether all calls wait because of a 429."""
        return self._hold is not None and self._hold.cause == "throttled"

    def halt(self, seconds: float = HALTED_SECONDS) -> None:
        """Stop all calls but one probe every ``seconds``: the key, its permission or the endpoint is wrong."""
        self._set_hold("halted", self._clock.monotonic() + seconds)

    def doubt(self) -> None:
        """Stop all calls until a probe is chosen, after many refusals in a row. Any other hold takes precedence."""
        if self._hold is None:
            self._set_hold("refused", self._clock.monotonic() + REFUSED_SECONDS)

    def mended(self, cause: str = "halted") -> None:
        """Take note that what halted the workspace may be mended: the next call is a probe, now."""
        if self._hold is not None and self._hold.cause == cause:
            self._hold = None
            self._changed.set()

    def stop(self) -> None:
        """Let no further call leave; whoever waits is told at once."""
        self._stopped = True
        self._changed.set()

    def holding(self) -> Held | None:
        """Give the hold that a call would meet now, if it is one not worth waiting for."""
        now = self._clock.monotonic()
        pace = self._pace(now)
        return pace if isinstance(pace, Held) and pace.until - now > self._longest_wait_seconds else None

    @property
    def probing(self) -> bool:
        """Whether no good answer came since calls were held back: one call at a time finds out whether they pass."""
        return self._holds_in_a_row > 0

    def overload_seconds(self, holds: int) -> float:
        """Give for how long at most it goes on while every probe fails, until ``holds`` in a row are over."""
        now = self._clock.monotonic()
        present = self._hold.until - now if self._hold is not None and self._hold.cause == "overloaded" else 0.0
        further = (OVERLOAD_FIRST_SECONDS * 2.0**each for each in range(self._holds_in_a_row, holds))
        return max(0.0, present) + sum(min(each, OVERLOAD_MAX_SECONDS) for each in further)

    def state(self) -> PaceState:
        """Say what it is doing."""
        now, budget = self._clock.monotonic(), self._budget
        pace = self._pace(now)
        hold = pace if isinstance(pace, Held) else None
        return PaceState(
            pace=0.0 if isinstance(pace, Held) else pace,
            limit=budget.limit,
            remaining=budget.remaining,
            reserve_calls=round(budget.reserve * budget.limit),
            seconds_to_reset=max(0.0, budget.seconds_to_reset(now)) if budget.known else 0.0,
            in_flight=self._in_flight,
            held_because=hold.cause if hold else None,
            held_seconds=max(0.0, hold.until - now) if hold else 0.0,
            holds_in_a_row=self._holds_in_a_row,
            calls=self._calls,
            throttled=self._throttled,
            waited_seconds=self._waited_seconds,
            answered=self._answered,
        )

    def _pace(self, now: float) -> float | Held:
        """Give the calls per second that may leave now, or why none may."""
        if self._stopped:
            return Held("stopping", now)
        if self._hold is not None:
            if now < self._hold.until:
                return self._hold
            self._hold = None
        budget = self._budget
        if not budget.known or budget.seconds_to_reset(now) <= 0:
            return self._max_rate
        pace = budget.pace(now, in_flight=self._in_flight, latency_seconds=self._latency_seconds)
        if pace <= 0:
            wait = budget.wait_seconds(now, in_flight=self._in_flight)
            return Held("rate_limited", now + max(wait, SLICE_SECONDS))
        return min(pace, self._max_rate)

    def _may_fly(self, now: float) -> int:
        """Give the calls that may be in flight: one while nothing certain is known of the present window."""
        passed = self._budget.seconds_to_reset(now) <= 0
        return 1 if passed or self._budget.suspicious else self._allowed

    def _set_hold(self, cause: str, until: float) -> None:
        self._hold = Held(cause, until)
        self._allowed = 1
        self._changed.set()

    def _back_off(self, cause: str, first_seconds: float, max_seconds: float) -> None:
        seconds = min(first_seconds * 2.0**self._holds_in_a_row, max_seconds) * self._jitter.uniform(0.75, 1.0)
        self._holds_in_a_row += 1
        self._set_hold(cause, self._clock.monotonic() + seconds)

    async def _change(self, seconds: float | None) -> None:
        """Wait for something to happen, or for a time."""
        self._changed.clear()
        await wait_for_event(self._changed, timeout_seconds=seconds)
