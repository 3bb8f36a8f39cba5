"""What the workspace's hourly budget allows right now: arithmetic only, no waiting and no clock of its own.

The rule is *the line*. At a window's first answer a straight line is drawn from what is left down to the
reserve at the reset; all together should follow it. Below the line we slow down or wait, above it we speed up by
a quarter at the most, and we go at our *share* of that pace: our part of all that was spent lately.
``remaining`` counts everybody, so live sending and other harvesters are seen without being asked.

Braze's clock is never compared with ours. ``Date`` has whole seconds and arrives late, so each answer bounds the
offset from our monotonic time to Braze's from below: ``Bounds``, of which the largest one seen in a window soon is
tight. Once that estimate has passed the reset, the reset has truly passed.
"""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from harvester.clock import Bounds

LONGEST_WINDOW_SECONDS = 3600.0
"""Braze's pool of 250,000 calls resets on the clock hour (documentation of the API's limits)."""

SPEED_UP = 1.25
_HORIZON_SHARE = 0.02
_OUTLIER_SHARE = 0.1
_LATELY_SECONDS = 1.0
_LEAST_SHARE = 0.02
"""Who was crowded out altogether still asks now and then, and so finds out when the others have gone."""


class BudgetReport(NamedTuple):
    """What one answer says of the budget. ``reset_at`` and ``server_time`` are on Braze's clock, in seconds."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    server_time: float | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "BudgetReport":
        """Read the headers; whatever is absent, empty (as on every 401) or nonsense is None."""
        return cls(
            limit=_count(headers.get("X-RateLimit-Limit")),
            remaining=_count(headers.get("X-RateLimit-Remaining")),
            reset_at=_count(headers.get("X-RateLimit-Reset")),
            server_time=_date(headers.get("Date")),
        )


def _count(text: str | None) -> int | None:
    """Read a whole number that is not negative; anything else is None."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return int(text)


@lru_cache(maxsize=4)
def _date(text: str | None) -> float | None:
    """Read an HTTP date; hundreds of answers share one second, and reading it is slow."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):  # a year that no calendar has
        return None


class Budget:
    """One workspace's budget as its answers tell it. All times given are monotonic seconds of ours."""

    def __init__(self, reserve: float) -> None:
        """Leave ``reserve``, a share of the limit between 0 and 1, untouched."""
        self.reserve = reserve
        self.limit = 0
        self.remaining = 0
        self.suspicious = False
        self._reset_at = 0.0
        self._offset = Bounds(-math.inf, math.inf)
        self._drawn_remaining = 0
        self._drawn_at = 0.0
        self._length = 0.0
        self._spent = 0.0
        self._spent_by_us = 0.0
        self._silent = 0
        self._seen_at = 0.0

    @property
    def known(self) -> bool:
        """Whether any answer has told of a window."""
        return self._reset_at > 0

    def seconds_to_reset(self, now: float) -> float:
        """Give the time to the reset, never too short by more than an answer's latency; below 0 once it passed.

        Infinite while no answer has told of one.
        """
        return self._reset_at - (now + self._offset.low)

    def observe(self, report: BudgetReport, now: float) -> None:
        """Learn from an answer. Answers come out of order, and may tell nothing or nonsense."""
        limit, remaining, reset_at, server_time = report.limit, report.remaining, report.reset_at, report.server_time
        if limit is None or remaining is None or reset_at is None or server_time is None:
            self._silent += 1
            return
        offset = Bounds.from_date(server_time, received=now)
        if reset_at > server_time + LONGEST_WINDOW_SECONDS + 2 or reset_at < self._reset_at or remaining > limit:
            return
        if reset_at > self._reset_at:
            self._length = (
                min(reset_at - self._reset_at, LONGEST_WINDOW_SECONDS) if self.known else reset_at - server_time
            )
            self._reset_at = reset_at
            self._offset = offset
            self._draw(limit, remaining, now)
            return
        self._offset = self._offset.intersect(offset)
        if limit != self.limit:
            self._draw(limit, remaining, now)
        elif self._believed(remaining):
            self._count_spent(max(0, self.remaining - remaining), now)
            self.remaining = min(self.remaining, remaining)

    def _draw(self, limit: int, remaining: int, now: float) -> None:
        self.limit, self.remaining = limit, remaining
        self._drawn_remaining, self._drawn_at = remaining, now
        self._seen_at, self.suspicious = now, False

    def _believed(self, remaining: int) -> bool:
        """Doubt a sudden deep fall until a second answer tells of it too."""
        deep = self.remaining - remaining > max(10.0, _OUTLIER_SHARE * self.limit)
        self.suspicious = deep and not self.suspicious
        return not self.suspicious

    def _count_spent(self, fall: int, now: float) -> None:
        """Add one call of ours, and everybody's, to what was spent lately; what is long ago counts ever less.

        Those of ours whose answers told nothing are in the fall too: not counted, they would pass for others'.
        """
        kept = math.exp((self._seen_at - now) / _LATELY_SECONDS)
        self._spent_by_us = self._spent_by_us * kept + 1 + self._silent
        self._silent = 0
        self._spent = self._spent * kept + fall
        self._seen_at = now

    @property
    def share(self) -> float:
        """Give our part, 0 to 1, of all that was spent lately."""
        if self._spent <= self._spent_by_us:
            return 1.0
        return max(_LEAST_SHARE, self._spent_by_us / self._spent)

    def spare(self, in_flight: int) -> float:
        """Give the calls left above the reserve; those on their way, of ours and of our likes, are taken off."""
        return self.remaining - in_flight / self.share - self.reserve * self.limit

    def pace(self, now: float, *, in_flight: int, latency_seconds: float) -> float:
        """Give the calls per second that may leave now; 0 or less means to wait."""
        left = self.seconds_to_reset(now)
        spare = self.spare(in_flight)
        if spare < 1:
            return 0.0
        slope = self._slope(now, left)
        soon = 6 * latency_seconds
        horizon = max(_HORIZON_SHARE * self._length, soon, 1e-3)
        on_the_line = slope * min(max(1 + (spare - slope * left) / (slope * horizon), 0.0), SPEED_UP)
        drain = self._spent / _LATELY_SECONDS
        to_the_end = (spare - drain * latency_seconds) / max(left, soon, 1e-3)
        return self.share * min(on_the_line, to_the_end)

    def _slope(self, now: float, left: float) -> float:
        """Give the slope of the line, in calls per second; above 0 while anything is to spare."""
        return (self._drawn_remaining - self.reserve * self.limit) / max(left + (now - self._drawn_at), 1e-3)

    def wait_seconds(self, now: float, *, in_flight: int) -> float:
        """Give the time for which ``pace`` will stay 0 if nobody spends: until the line has come down, or the reset."""
        left = max(self.seconds_to_reset(now), 0.0)
        spare = self.spare(in_flight)
        if spare < 1:
            return left
        slope = self._slope(now, left)
        return min(left, max(0.0, left - spare / slope - _HORIZON_SHARE * self._length))
