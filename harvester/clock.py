"""Time as an argument: nothing else in the house reads a clock, so tests own time.

``monotonic`` is the event loop's own time, so that a virtual loop moves timers and intervals together.
``wall`` is UTC seconds since the epoch. A machine's wall clock may be wrong by days, and may jump; what Braze keeps is
counted by Braze's clock. So a harvest asks ``BrazeClock``, which learns Braze's time from the answers.
"""

import asyncio
import math
import time
from typing import NamedTuple, Protocol

LARGE_DIFFERENCE_SECONDS = 60.0
"""Clocks that differ by more than this differ: an alarm, and a question that must be asked anew."""

MOVES = 5.0
MOVE_EVERY_SECONDS = 600.0
"""A ``BrazeClock`` moves so many times at once, and then once in so many seconds: dates that contradict each other must
not keep a harvest from its work."""

DOUBT_COSTS = 0.1
"""The part of a move that a doubt costs."""


DAY_SECONDS = 86_400.0
UNCONFIRMED_SECONDS = 30 * DAY_SECONDS


class Clock(Protocol):
    """Both times that the harvest needs."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, for intervals."""
        ...

    def wall(self) -> float:
        """UTC seconds since the epoch, for what is written down."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds of the running event loop; on another thread, of the clock that loops go by."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    def wall(self) -> float:
        """UTC seconds since the epoch."""
        return time.time()


class Bounds(NamedTuple):
    """What one answer's ``Date``, or several, prove of an offset: the seconds from monotonic time to Braze's time."""

    low: float
    high: float

    @classmethod
    def of(cls, date: float, *, received: float, departed: float = -math.inf) -> "Bounds":
        """Bound the offset by one answer.

        ``Date`` has whole seconds, so it was between ``date`` and a second later at a moment that is not before the
        request left, and not after the answer came.
        """
        return cls(date - received, date + 1 - departed)

    def narrowed(self, other: "Bounds") -> "Bounds":
        """Combine two bounds; where both cannot hold, because clocks drift, the other one is the newer."""
        both = Bounds(max(self.low, other.low), min(self.high, other.high))
        return both if both.low <= both.high else other

    def nearest(self, offset: float) -> float:
        """Give the offset within the bounds that is nearest to this one."""
        return min(max(offset, self.low), self.high)

    def near(self, offset: float) -> bool:
        """Whether an offset lies within the bounds, or not far outside."""
        return abs(self.nearest(offset) - offset) <= LARGE_DIFFERENCE_SECONDS


class BrazeClock:
    """Braze's time as far as it is known; one for each process.

    Until an answer has *confirmed* the time, it is the machine's wall clock, corrected by the difference that was
    measured last. From then on it is the monotonic clock and an offset, so that jumps of the wall clock change nothing.

    An answer is believed once there is a second witness: what is known, the machine's clock, or another answer. A
    first answer that contradicts the machine is followed at once, so that the next question is a good one, but the
    time is confirmed by the second. Later on, a lone answer that contradicts what is known changes nothing.
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
        self._allowance, self._allowed_at = MOVES, 0.0

    def monotonic(self) -> float:
        """Seconds that only ever grow, for intervals."""
        return self._machine.monotonic()

    def wall(self) -> float:
        """Braze's time in UTC seconds since the epoch, as far as it is known."""
        if self._offset is None:
            return self._machine.wall() - self._assumed
        return self._offset + self._machine.monotonic()

    def latest_send(self) -> float:
        """Give the time after which no send can have been: a day from now, and while that is not confirmed a month.

        A clock that is behind must not turn sends away, since a message is not sent twice.
        """
        return self.wall() + (DAY_SECONDS if self.confirmed else UNCONFIRMED_SECONDS)

    @property
    def offset(self) -> float:
        """Give the seconds from monotonic time to Braze's, as far as they are known."""
        return self.wall() - self._machine.monotonic() if self._offset is None else self._offset

    @property
    def difference(self) -> float | None:
        """Give the seconds by which the machine's clock is ahead of Braze's now; None until that is confirmed."""
        return self._machine.wall() - self.wall() if self.confirmed else None

    @property
    def in_doubt(self) -> bool:
        """Whether the last answer contradicts what is known, and no other has decided yet."""
        return self._doubted is not None

    @property
    def jumped(self) -> bool:
        """Whether the machine's clock has jumped since the last answer, so that one of the two stood still."""
        return self.confirmed and abs(self._offset_of_machine() - self._machine_offset) > LARGE_DIFFERENCE_SECONDS

    def observe(self, date: float | None, *, departed: float, received: float) -> None:
        """Learn from an answer: its ``Date``, and when the request left and the answer came, in monotonic seconds."""
        if date is None:
            return
        told = Bounds.of(date, departed=departed, received=received)
        if told.near(self.offset):
            self._believe(told, self.offset)
        elif (self.jumped or not self.confirmed) and told.near(self._offset_of_machine()):
            self._believe(told, self._offset_of_machine())
        elif not self._may_move():
            self._doubted = None
        elif not self.confirmed:
            self._move(told, told.low)
        elif self._doubted is not None and told.near(self._doubted.low):
            self._believe(told, self._doubted.low)
        else:
            self._allowance -= DOUBT_COSTS
            self._doubted = told

    def _believe(self, told: Bounds, witness: float) -> None:
        """Take an answer that has a witness."""
        self._move(told, witness)
        self.confirmed = True
        self._machine_offset = self._offset_of_machine()

    def _move(self, told: Bounds, witness: float) -> None:
        before = self.offset
        self._bounds = told if self._bounds is None else self._bounds.narrowed(told)
        self._offset = self._bounds.nearest(witness)
        self._doubted = None
        if abs(self._offset - before) > LARGE_DIFFERENCE_SECONDS:
            self.moves += 1
            self._allowance -= 1

    def _may_move(self) -> bool:
        now = self._machine.monotonic()
        self._allowance = min(MOVES, self._allowance + (now - self._allowed_at) / MOVE_EVERY_SECONDS)
        self._allowed_at = now
        return self._allowance >= 1

    def _offset_of_machine(self) -> float:
        return self._machine.wall() - self._machine.monotonic()


def difference_in_words(seconds: float) -> str:
    """Say in words how far a machine's clock is ahead of Braze's or behind."""
    sizes = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    size, unit = next((each for each in sizes if abs(seconds) >= 2 * each[0]), sizes[-1])
    return f"{abs(seconds) / size:.3g} {unit} {'ahead of' if seconds > 0 else 'behind'} Braze's"


async def happens(event: asyncio.Event, *, within: float | None) -> bool:
    """Wait for an event, at most so many seconds or, without, for as long as it takes; tell whether it came."""
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
