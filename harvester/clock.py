"""Clocks. No other module reads the time, so tests control it.

``monotonic`` is the event loop's own time, so that a virtual loop moves timers and intervals together.
``wall`` is UTC seconds since the epoch. A machine's wall clock may be wrong by days, and may jump, but Braze's
retention counts by Braze's clock. All code therefore uses ``BrazeClock``, which learns Braze's time from responses.
"""

import asyncio
import math
import time
from typing import NamedTuple, Protocol

LARGE_DIFFERENCE_SECONDS = 60.0
"""A larger difference of the clocks is a condition, and the outcomes of requests made with the wrong time are
discarded."""

MAX_MOVES = 5.0
MOVE_EVERY_SECONDS = 600.0
"""A ``BrazeClock`` may move ``MAX_MOVES`` times in a row, then once every ``MOVE_EVERY_SECONDS``, so that contradictory
dates do not stop a capture."""

DOUBT_COST = 0.1
"""How many moves a response costs that contradicts the known time and moves nothing."""

DAY_SECONDS = 86_400.0
UNCONFIRMED_AHEAD_SECONDS = 30 * DAY_SECONDS
"""How far ahead the time of a send may be while the time is not confirmed."""


class Clock(Protocol):
    """A monotonic clock and a wall clock."""

    def monotonic(self) -> float:
        """Return monotonic seconds, for intervals."""
        ...

    def wall(self) -> float:
        """Return UTC seconds since the epoch, for stored times."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Return seconds of the running event loop, or of the clock that event loops use."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    def wall(self) -> float:
        """Return UTC seconds since the epoch."""
        return time.time()


class Bounds(NamedTuple):
    """Bounds of the offset (the seconds from monotonic time to Braze's time) by the ``Date`` of responses."""

    low: float
    high: float

    @classmethod
    def from_date(cls, date: float, *, received: float, sent: float = -math.inf) -> "Bounds":
        """Bound the offset by one response.

        ``Date`` has whole seconds. Braze's time was therefore between ``date`` and a second later, at some moment
        between the request and the response.
        """
        return cls(date - received, date + 1 - sent)

    def intersect(self, other: "Bounds") -> "Bounds":
        """Return the intersection of two bounds; if it is empty, since clocks drift, ``other``, the newer one."""
        both = Bounds(max(self.low, other.low), min(self.high, other.high))
        return both if both.low <= both.high else other

    def clamp(self, offset: float) -> float:
        """Return the offset within the bounds that is nearest to ``offset``."""
        return min(max(offset, self.low), self.high)

    def is_near(self, offset: float) -> bool:
        """Return whether an offset is within the bounds or at most ``LARGE_DIFFERENCE_SECONDS`` outside."""
        return abs(self.clamp(offset) - offset) <= LARGE_DIFFERENCE_SECONDS


class BrazeClock:
    """Braze's time as far as it is known; one for each process.

    Until a response has *confirmed* the time, it is the machine's wall clock, corrected by the difference that was
    measured last. From then on it is the monotonic clock and an offset, so that jumps of the wall clock change nothing.

    A response is trusted if a witness agrees: the known time, the machine's clock, or another response. A first
    response that contradicts the machine's clock sets the time at once, so that the next request is useful. Only a
    second response confirms it. After that, a single response that contradicts the known time changes nothing.
    """

    def __init__(self, machine: Clock, *, difference: float = 0.0) -> None:
        """Take the machine's clock and the seconds by which it was ahead of Braze's when that was measured last."""
        self.confirmed = False
        self.moves = 0
        self._machine = machine
        self._assumed = difference
        self._bounds: Bounds | None = None
        self._offset: float | None = None
        self._machine_offset = math.nan
        self._doubted: Bounds | None = None
        self._allowance, self._allowed_at = MAX_MOVES, 0.0

    def monotonic(self) -> float:
        """Return monotonic seconds, for intervals."""
        return self._machine.monotonic()

    def wall(self) -> float:
        """Return Braze's time in UTC seconds since the epoch, as far as it is known."""
        if self._offset is None:
            return self._machine.wall() - self._assumed
        return self._offset + self._machine.monotonic()

    def latest_send(self) -> float:
        """Return the latest plausible time of a send: a day from now, or 30 days while the time is not confirmed.

        A clock that is behind must not reject sends, since a message is not sent twice.
        """
        return self.wall() + (DAY_SECONDS if self.confirmed else UNCONFIRMED_AHEAD_SECONDS)

    @property
    def offset(self) -> float:
        """The seconds from monotonic time to Braze's time, as far as it is known."""
        return self.wall() - self._machine.monotonic() if self._offset is None else self._offset

    @property
    def difference(self) -> float | None:
        """The seconds by which the machine's clock is ahead of Braze's now; None until confirmed."""
        return self._machine.wall() - self.wall() if self.confirmed else None

    @property
    def in_doubt(self) -> bool:
        """Whether the last response contradicts the known time, and no other response has decided yet."""
        return self._doubted is not None

    @property
    def jumped(self) -> bool:
        """Whether the machine's wall clock has jumped against its monotonic clock since the last response."""
        return self.confirmed and abs(self._offset_of_machine() - self._machine_offset) > LARGE_DIFFERENCE_SECONDS

    def observe(self, date: float | None, *, sent: float, received: float) -> None:
        """Learn from the ``Date`` of a response to a request; ``sent`` and ``received`` are monotonic seconds."""
        if date is None:
            return
        bounds = Bounds.from_date(date, sent=sent, received=received)
        if bounds.is_near(self.offset):
            self._confirm(bounds, self.offset)
        elif (self.jumped or not self.confirmed) and bounds.is_near(self._offset_of_machine()):
            self._confirm(bounds, self._offset_of_machine())
        elif not self._may_move():
            self._doubted = None
        elif not self.confirmed:
            self._move(bounds, bounds.low)
        elif self._doubted is not None and bounds.is_near(self._doubted.low):
            self._confirm(bounds, self._doubted.low)
        else:
            self._allowance -= DOUBT_COST
            self._doubted = bounds

    def _confirm(self, bounds: Bounds, witness: float) -> None:
        """Trust a response that a witness agrees with, and confirm the time."""
        self._move(bounds, witness)
        self.confirmed = True
        self._machine_offset = self._offset_of_machine()

    def _move(self, bounds: Bounds, witness: float) -> None:
        before = self.offset
        self._bounds = bounds if self._bounds is None else self._bounds.intersect(bounds)
        self._offset = self._bounds.clamp(witness)
        self._doubted = None
        if abs(self._offset - before) > LARGE_DIFFERENCE_SECONDS:
            self.moves += 1
            self._allowance -= 1

    def _may_move(self) -> bool:
        now = self._machine.monotonic()
        self._allowance = min(MAX_MOVES, self._allowance + (now - self._allowed_at) / MOVE_EVERY_SECONDS)
        self._allowed_at = now
        return self._allowance >= 1

    def _offset_of_machine(self) -> float:
        return self._machine.wall() - self._machine.monotonic()


def format_difference(seconds: float) -> str:
    """Return in words how far a machine's clock is ahead of or behind Braze's."""
    sizes = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    size, unit = next((each for each in sizes if abs(seconds) >= 2 * each[0]), sizes[-1])
    return f"{abs(seconds) / size:.3g} {unit} {'ahead of' if seconds > 0 else 'behind'} Braze's"


async def wait_for_event(event: asyncio.Event, *, timeout_seconds: float | None) -> bool:
    """Wait for an event, for ``timeout_seconds`` or without a limit. Returns whether it was set."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await event.wait()
    except TimeoutError:
        return False
