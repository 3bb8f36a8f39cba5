"""Decides whether requests may be sent, and how many may be in flight. Pure: methods take the time as ``now``.

One mechanism serves the start, a new window, a 429, an overloaded server and a halted workspace: a *hold* (its cause,
and until when), then *probing* (one request in flight until a usable response), then a *ramp* (one more in flight for
every usable response).
"""

import random
from enum import StrEnum
from typing import NamedTuple

from harvester.errors import HarvesterError

FAILURES_TO_HOLD = 10
UNANSWERED_TO_HOLD = 3
"""The failures in a row that begin a hold if no request ever had a response: the endpoint may not exist."""

OVERLOAD_FIRST_SECONDS, OVERLOAD_MAX_SECONDS = 15.0, 300.0
THROTTLED_FIRST_SECONDS, THROTTLED_MAX_SECONDS = 15.0, 3660.0
HALTED_SECONDS = 600.0
REFUSED_SECONDS = 6.0
"""The time between probes after refusals: longer than ``Pacer.acquire`` waits, so leased readings are released."""

RETRIES_PER_RESPONSE = 0.2
_MAX_RETRY_CREDIT = 20.0


def count_overload_holds(seconds: float) -> int:
    """Count the overload holds in a row that together last at most ``seconds``."""
    holds, waited = 0, OVERLOAD_FIRST_SECONDS
    while waited <= seconds:
        holds += 1
        waited += min(OVERLOAD_FIRST_SECONDS * 2.0**holds, OVERLOAD_MAX_SECONDS)
    return holds


class HoldCause(StrEnum):
    """Why no request may be sent."""

    RATE_LIMITED = "rate_limited"
    """The window's requests are used, except for the reserve."""
    THROTTLED = "throttled"
    """Braze answered 429."""
    OVERLOADED = "overloaded"
    """Requests fail."""
    REFUSED = "refused"
    """Many pairs in a row were refused. The hold ends when a probe is chosen."""
    HALTED = "halted"
    """The key, its permission or the endpoint is wrong."""
    STOPPING = "stopping"


class Hold(NamedTuple):
    """No request may be sent until ``until``, in monotonic seconds."""

    cause: HoldCause
    until: float


class Held(HarvesterError):  # noqa: N818 - a state to act on, not a failure
    """No request may be sent for longer than ``Pacer.acquire`` waits, so the reading is released."""

    def __init__(self, hold: Hold) -> None:
        """Create the error of this hold."""
        super().__init__(f"held because of {hold.cause}")
        self.hold = hold


class Gate:
    """The hold of one workspace, and its limit of requests in flight."""

    def __init__(self, jitter: random.Random) -> None:
        """Begin with one probe."""
        self.in_flight_limit = 1
        self.holds_in_a_row = 0
        self.answered = False
        """Whether any request ever had a response."""
        self._hold: Hold | None = None
        self._stopped = False
        self._failures = 0
        self._retry_credit = _MAX_RETRY_CREDIT / 2
        self._jitter = jitter

    def update_hold(self, now: float) -> Hold | None:
        """Remove the hold if it is over, so that the next request is a probe; returns the hold that remains."""
        if self._stopped:
            return Hold(HoldCause.STOPPING, now)
        if self._hold is not None and now >= self._hold.until:
            self._hold = None
        return self._hold

    def stop(self) -> None:
        """Begin a hold that never ends."""
        self._stopped = True

    @property
    def hold_cause(self) -> HoldCause | None:
        """The cause of a hold that is not over, or whose probe has not begun."""
        return None if self._hold is None else self._hold.cause

    @property
    def backing_off(self) -> bool:
        """Whether there was no usable response since a back-off: the next failure begins a hold."""
        return self.holds_in_a_row > 0

    def record_success(self) -> None:
        """Record a usable response: backing off ends, and the ramp continues."""
        self._failures = self.holds_in_a_row = 0
        self._retry_credit = min(self._retry_credit + RETRIES_PER_RESPONSE, _MAX_RETRY_CREDIT)
        if self._hold is None:
            self.in_flight_limit += 1

    def record_failure(self, now: float) -> None:
        """Record a transient failure. Ten in a row, or one while backing off, begin a hold."""
        self._failures += 1
        enough = FAILURES_TO_HOLD if self.answered else UNANSWERED_TO_HOLD
        if self._hold is None and (self._failures >= enough or self.backing_off):
            self._back_off(HoldCause.OVERLOADED, now, OVERLOAD_FIRST_SECONDS, OVERLOAD_MAX_SECONDS)

    def may_retry(self) -> bool:
        """Return whether a retry may be made, and spend its credit: at most one for five usable responses."""
        if self._retry_credit < 1 or self._hold is not None:
            return False
        self._retry_credit -= 1
        return True

    def record_throttled(self, now: float, seconds_to_reset: float) -> None:
        """Record a 429: hold until the reset, or back off if it is unknown. Several at once count as one."""
        if self.hold_cause is HoldCause.THROTTLED:
            return
        if seconds_to_reset > 0:
            jitter = self._jitter.uniform(0, min(1.0, 0.01 * seconds_to_reset))
            self.hold(HoldCause.THROTTLED, now + seconds_to_reset + jitter)
        else:
            self._back_off(HoldCause.THROTTLED, now, THROTTLED_FIRST_SECONDS, THROTTLED_MAX_SECONDS)

    def hold(self, cause: HoldCause, until: float) -> None:
        """Begin a hold that replaces the current one."""
        self._hold = Hold(cause, until)
        self.in_flight_limit = 1

    def lift(self, cause: HoldCause) -> None:
        """End a hold of this cause: the next request is a probe, and may be sent now. Other holds stay."""
        if self.hold_cause is cause:
            self._hold = None

    def overload_seconds(self, now: float, holds: int) -> float:
        """Return the most seconds until ``holds`` overload holds in a row are over, if every probe fails."""
        present = self._hold.until - now if self._hold and self._hold.cause is HoldCause.OVERLOADED else 0.0
        further = (OVERLOAD_FIRST_SECONDS * 2.0**each for each in range(self.holds_in_a_row, holds))
        return max(0.0, present) + sum(min(each, OVERLOAD_MAX_SECONDS) for each in further)

    def _back_off(self, cause: HoldCause, now: float, first_seconds: float, max_seconds: float) -> None:
        seconds = min(first_seconds * 2.0**self.holds_in_a_row, max_seconds) * self._jitter.uniform(0.75, 1.0)
        self.holds_in_a_row += 1
        self.hold(cause, now + seconds)
