"""What limits the requests of one workspace: quota, hold and ramp together.

No I/O and no clock: every method takes ``now`` in monotonic seconds.
"""

from harvester.braze.gate import Gate, Hold, HoldCause
from harvester.braze.pace_state import PaceState, Traffic
from harvester.braze.quota import Quota


class Limits:
    """The limits that the quota and the gate impose on the traffic."""

    def __init__(self, quota: Quota, gate: Gate, *, max_rate: float, shortest_hold_seconds: float) -> None:
        """Never allow more than ``max_rate`` requests per second. A hold of the quota has a shortest duration."""
        self.quota = quota
        self.gate = gate
        self.traffic = Traffic()
        self._max_rate = max_rate
        self._shortest_hold_seconds = shortest_hold_seconds

    def find_pace(self, now: float) -> float:
        """Return the requests per second that the quota allows; 0 or less means none."""
        quota, traffic = self.quota, self.traffic
        if not quota.has_window or quota.seconds_to_reset(now) <= 0:
            return self._max_rate
        pace = quota.pace(now, in_flight=traffic.in_flight, latency_seconds=traffic.latency_seconds)
        return min(pace, self._max_rate)

    def update_hold(self, now: float) -> Hold | None:
        """Return the current hold, the rate limit included; the gate removes one that is over."""
        hold = self.gate.update_hold(now)
        if hold is None and self.find_pace(now) <= 0:
            hold = self.get_rate_limit_hold(now)
        return hold

    def get_rate_limit_hold(self, now: float) -> Hold:
        """Return the hold of a quota that has no requests left."""
        wait_seconds = self.quota.wait_seconds(now, in_flight=self.traffic.in_flight)
        return Hold(HoldCause.RATE_LIMITED, now + max(wait_seconds, self._shortest_hold_seconds))

    def count_free(self, now: float) -> int:
        """Return how many further requests may be in flight; 0 or less means none."""
        return 0 if self.traffic.without_slot else self._get_in_flight_limit(now) - self.traffic.in_flight

    def count_requests_within(self, seconds: float, now: float, *, concurrency: int) -> int:
        """Return how many requests can be made within some seconds, ``concurrency`` at a time."""
        at_once = min(concurrency, self._get_in_flight_limit(now)) / max(self.traffic.latency_seconds, 1e-3)
        return round(max(0.0, min(self.find_pace(now), at_once)) * seconds)

    def get_state(self, now: float) -> PaceState:
        """Return the current state."""
        quota, gate, traffic = self.quota, self.gate, self.traffic
        hold = self.update_hold(now)
        return PaceState(
            pace=0.0 if hold else self.find_pace(now),
            limit=quota.limit,
            remaining=quota.remaining,
            reserve_requests=round(quota.reserve * quota.limit),
            seconds_to_reset=max(0.0, quota.seconds_to_reset(now)) if quota.has_window else 0.0,
            in_flight=traffic.in_flight,
            hold_cause=hold.cause if hold else None,
            held_seconds=max(0.0, hold.until - now) if hold else 0.0,
            holds_in_a_row=gate.holds_in_a_row,
            requests=traffic.requests,
            throttled=traffic.throttled,
            waited_seconds=traffic.waited_seconds,
            answered=gate.answered,
        )

    def _get_in_flight_limit(self, now: float) -> int:
        """Return how many requests may be in flight: one while the current window is unknown."""
        uncertain = self.quota.seconds_to_reset(now) <= 0 or self.quota.suspicious
        return 1 if uncertain else self.gate.in_flight_limit
