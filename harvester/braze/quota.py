"""Computes what the workspace's hourly quota allows now. Pure: it never waits and reads no clock.

The rule is *the line*. At the first response of a window, a straight line leads from the remaining requests down to the
reserve at the reset. All users together should follow it. Below the line harvester slows down or waits; above it, it
speeds up by at most a quarter. Its pace is its *share* of that: its fraction of all recent requests. ``remaining``
counts the requests of all users, so it includes live sending and other harvesters.

Braze's clock is never compared with ours. ``Date`` has whole seconds and arrives late. Each response is therefore a
lower bound of the offset from our monotonic time to Braze's (``Bounds``). The largest bound of a window is soon tight.
Once that estimate is past the reset, the reset has certainly happened.
"""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from harvester.clock import Bounds

LONGEST_WINDOW_SECONDS = 3600.0
"""Braze's quota of 250,000 requests resets on the clock hour (documentation of the API's limits)."""

SPEED_UP = 1.25
_HORIZON_SHARE = 0.02
_OUTLIER_SHARE = 0.1
_RECENT_SECONDS = 1.0
_BLIND_REQUESTS = 3
_BLIND_SHARE = 0.05
"""Above the reserve, this many requests are left unused, at most this share of them: a process that starts, or takes a
workspace over from another, makes its first request without knowledge of the quota, and must not use the reserve."""
_MIN_SHARE = 0.02
"""Even if other users take all of the pace, harvester makes a few requests, to notice when they stop."""


class QuotaReport(NamedTuple):
    """The quota that one response reports. ``reset_at`` and ``server_time`` are seconds of Braze's clock."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    server_time: float | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "QuotaReport":
        """Parse the headers. A value that is absent, empty (as on every 401) or invalid is None."""
        return cls(
            limit=_parse_count(headers.get("X-RateLimit-Limit")),
            remaining=_parse_count(headers.get("X-RateLimit-Remaining")),
            reset_at=_parse_count(headers.get("X-RateLimit-Reset")),
            server_time=_parse_date(headers.get("Date")),
        )


def _parse_count(text: str | None) -> int | None:
    """Parse a whole number that is not negative; anything else is None."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return int(text)


@lru_cache(maxsize=4)
def _parse_date(text: str | None) -> float | None:
    """Parse an HTTP date. It is cached: hundreds of responses share one second, and parsing is slow."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):  # a year that no calendar has
        return None


class Quota:
    """One workspace's quota, as its responses report it. All times are seconds of our monotonic clock."""

    def __init__(self, reserve: float) -> None:
        """Keep ``reserve``, a share of the limit between 0 and 1, free."""
        self.reserve = reserve
        self.limit = 0
        self.remaining = 0
        self.suspicious = False
        self._kept = 0.0
        self._reset_at = 0.0
        self._offset = Bounds(-math.inf, math.inf)
        self._line_remaining = 0
        self._line_at = 0.0
        self._length = 0.0
        self._spent = 0.0
        self._spent_by_us = 0.0
        self._unreported = 0
        self._seen_at = 0.0

    @property
    def has_window(self) -> bool:
        """Whether any response has reported a window."""
        return self._reset_at > 0

    def seconds_to_reset(self, now: float) -> float:
        """Return the time to the reset, at most a response's latency too short; below 0 once it has passed.

        It is infinite while no response has reported a reset.
        """
        return self._reset_at - (now + self._offset.low)

    def observe(self, report: QuotaReport, now: float) -> None:
        """Use a response's report. Reports come out of order, and may be empty or invalid."""
        limit, remaining, reset_at, server_time = report.limit, report.remaining, report.reset_at, report.server_time
        if limit is None or remaining is None or reset_at is None or server_time is None:
            self._unreported += 1
            return
        offset = Bounds.from_date(server_time, received=now)
        if reset_at > server_time + LONGEST_WINDOW_SECONDS + 2 or reset_at < self._reset_at or remaining > limit:
            return
        if reset_at > self._reset_at:
            self._length = (
                min(reset_at - self._reset_at, LONGEST_WINDOW_SECONDS) if self.has_window else reset_at - server_time
            )
            self._reset_at = reset_at
            self._offset = offset
            self._start_line(limit, remaining, now)
            return
        self._offset = self._offset.intersect(offset)
        if limit != self.limit:
            self._start_line(limit, remaining, now)
        elif self._is_plausible(remaining):
            self._count_spent(max(0, self.remaining - remaining), now)
            self.remaining = min(self.remaining, remaining)

    def _start_line(self, limit: int, remaining: int, now: float) -> None:
        self.limit, self.remaining = limit, remaining
        self._line_remaining, self._line_at = remaining, now
        reserve = self.reserve * limit
        self._kept = reserve + min(_BLIND_REQUESTS, _BLIND_SHARE * (limit - reserve))
        self._seen_at, self.suspicious = now, False

    def _is_plausible(self, remaining: int) -> bool:
        """Return whether a report is plausible: a sudden deep fall needs a second report that confirms it."""
        deep = self.remaining - remaining > max(10.0, _OUTLIER_SHARE * self.limit)
        self.suspicious = deep and not self.suspicious
        return not self.suspicious

    def _count_spent(self, fall: int, now: float) -> None:
        """Add one request of ours, and those of all users, to the recent ones. Older ones count less and less.

        Requests of ours whose responses reported nothing are part of the fall. If they were not counted, they would
        look like requests of others.
        """
        decay = math.exp((self._seen_at - now) / _RECENT_SECONDS)
        self._spent_by_us = self._spent_by_us * decay + 1 + self._unreported
        self._unreported = 0
        self._spent = self._spent * decay + fall
        self._seen_at = now

    @property
    def share(self) -> float:
        """Our fraction, 0 to 1, of all recent requests."""
        if self._spent <= self._spent_by_us:
            return 1.0
        return max(_MIN_SHARE, self._spent_by_us / self._spent)

    def spare(self, in_flight: int) -> float:
        """Return the requests that may be used, less our requests in flight and an estimate of those of others."""
        return self.remaining - in_flight / self.share - self._kept

    def pace(self, now: float, *, in_flight: int, latency_seconds: float) -> float:
        """Return the requests per second that may be sent now; 0 or less means to wait."""
        left = self.seconds_to_reset(now)
        spare = self.spare(in_flight)
        if spare < 1:
            return 0.0
        slope = self._slope(now, left)
        soon = 6 * latency_seconds
        horizon = max(_HORIZON_SHARE * self._length, soon, 1e-3)
        on_the_line = slope * min(max(1 + (spare - slope * left) / (slope * horizon), 0.0), SPEED_UP)
        drain = self._spent / _RECENT_SECONDS
        to_the_end = (spare - drain * latency_seconds) / max(left, soon, 1e-3)
        return self.share * min(on_the_line, to_the_end)

    def _slope(self, now: float, left: float) -> float:
        """Return the slope of the line, in requests per second; above 0 while there are requests to spare."""
        return (self._line_remaining - self._kept) / max(left + (now - self._line_at), 1e-3)

    def wait_seconds(self, now: float, *, in_flight: int) -> float:
        """Return how long ``pace`` stays 0 without requests: until the line has come down, or the reset."""
        left = max(self.seconds_to_reset(now), 0.0)
        spare = self.spare(in_flight)
        if spare < 1:
            return left
        slope = self._slope(now, left)
        return min(left, max(0.0, left - spare / slope - _HORIZON_SHARE * self._length))
