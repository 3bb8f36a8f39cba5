"""What the workspace's hourly budget allows right now: arithmetic only, no waiting and no clock of its own.

The rule is *the line*. At a window's first answer a straight line is drawn from what is left down to the
reserve at the reset. Who is on the line goes at its slope; when others spend, ``remaining`` falls below it and
we slow down or wait; when they don't, we speed up by a quarter at the most. ``remaining`` counts everybody, so
live sending and other harvesters are seen without being asked.

Braze's clock is never compared with ours. ``Date`` has whole seconds and arrives late, so ``Date`` minus our
receipt is never more than the true offset of the two clocks: the largest one seen in a window is a lower
bound that soon is tight. Once that estimate has passed the reset, the reset has truly passed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LONGEST_WINDOW_SECONDS = 3600.0
"""Braze's pool of 250,000 calls resets on the clock hour (documentation of the API's limits)."""

SPEED_UP = 1.25
_HORIZON_SHARE = 0.02
_OUTLIER_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class BudgetReport:
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


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
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
        self._offset = -math.inf
        self._drawn_remaining = 0
        self._drawn_at = 0.0
        self._length = 0.0
        self._drain = 0.0
        self._seen_at = 0.0

    @property
    def known(self) -> bool:
        """Whether any answer has told of a window."""
        return self._reset_at > 0

    def seconds_to_reset(self, now: float) -> float:
        """Give the time to the reset, never too short by more than an answer's latency; below 0 once it passed."""
        return self._reset_at - (now + self._offset)

    def observe(self, report: BudgetReport, now: float) -> None:
        """Learn from an answer. Answers come out of order, and may tell nothing or nonsense."""
        limit, remaining, reset_at, server_time = report.limit, report.remaining, report.reset_at, report.server_time
        if limit is None or remaining is None or reset_at is None or server_time is None:
            return
        offset = server_time - now
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
        self._offset = max(self._offset, offset)
        if limit != self.limit:
            self._draw(limit, remaining, now)
        elif remaining < self.remaining:
            self._lower(remaining, now)
        else:
            self.suspicious = False

    def _draw(self, limit: int, remaining: int, now: float) -> None:
        self.limit, self.remaining = limit, remaining
        self._drawn_remaining, self._drawn_at = remaining, now
        self._drain, self._seen_at, self.suspicious = 0.0, now, False

    def _lower(self, remaining: int, now: float) -> None:
        """Take a lower ``remaining``; a sudden deep fall is believed only when a second answer says so too."""
        fall = self.remaining - remaining
        if fall > max(10.0, _OUTLIER_SHARE * self.limit) and not self.suspicious:
            self.suspicious = True
            return
        self.suspicious = False
        elapsed = now - self._seen_at
        if elapsed > 0:
            weight = min(1.0, elapsed)  # an average over about the last second
            self._drain += weight * (fall / elapsed - self._drain)
            self._seen_at = now
        self.remaining = remaining

    def spare(self, in_flight: int, reserve: float) -> float:
        """Give the calls left above the reserve, those on their way already taken off."""
        return self.remaining - in_flight - reserve * self.limit

    def pace(self, now: float, *, in_flight: int, latency_seconds: float, reserve: float) -> float:
        """Give the calls per second that may leave now; 0 or less means to wait."""
        left = self.seconds_to_reset(now)
        spare = self.spare(in_flight, reserve)
        floor_calls = reserve * self.limit
        drawn_left = left + (now - self._drawn_at)
        slope = (self._drawn_remaining - floor_calls) / max(drawn_left, 1e-3)
        if spare < 1 or slope <= 0:
            return 0.0
        horizon = max(_HORIZON_SHARE * self._length, 6 * latency_seconds, 1e-3)
        error = spare - slope * left
        on_the_line = slope * min(max(1 + error / (slope * horizon), 0.0), SPEED_UP)
        to_the_end = (spare - self._drain * latency_seconds) / max(left, 6 * latency_seconds, 1e-3)
        return min(on_the_line, to_the_end)

    def wait_seconds(self, now: float, *, in_flight: int, reserve: float) -> float:
        """Give the time for which ``pace`` will stay 0 if nobody spends: until the line has come down, or the reset."""
        left = max(self.seconds_to_reset(now), 0.0)
        spare = self.spare(in_flight, reserve)
        slope = (self._drawn_remaining - reserve * self.limit) / max(left + (now - self._drawn_at), 1e-3)
        if spare < 1 or slope <= 0:
            return left
        return min(left, max(0.0, left - spare / slope - _HORIZON_SHARE * self._length))
