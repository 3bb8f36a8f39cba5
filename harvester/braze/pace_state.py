"""The counters of a pacer, and the state that it reports."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaceState:
    """The state of a pacer, for people. ``pace`` is in requests per second.

    ``limit``, ``remaining`` and ``reserve_requests`` are 0 until a response has reported them.
    """

    pace: float
    limit: int
    remaining: int
    reserve_requests: int
    seconds_to_reset: float
    in_flight: int
    hold_cause: str | None
    held_seconds: float
    holds_in_a_row: int
    requests: int
    throttled: int
    waited_seconds: float
    answered: bool

    def log_fields(self, *, idle: bool) -> dict[str, float]:
        """Return pace and quota for a log line, as far as responses have reported them in this window."""
        if self.seconds_to_reset <= 0:
            return {}
        pace = {} if idle and self.hold_cause is None else {"requests_per_minute": round(60 * self.pace, 1)}
        return {**pace, "remaining_requests": self.remaining, "limit_requests": self.limit}


@dataclass(slots=True)
class Traffic:
    """The requests so far."""

    requests: int = 0
    in_flight: int = 0
    throttled: int = 0
    latency_seconds: float = 0.1
    waited_seconds: float = 0.0
