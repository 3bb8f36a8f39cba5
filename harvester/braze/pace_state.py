"""The counters of a pacer, and the state that it reports."""

from dataclasses import dataclass
from typing import Self


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

    @classmethod
    def before_first_request(cls, max_rate: float) -> Self:
        """Return the state of a workspace that has made no request yet."""
        return cls(
            pace=max_rate,
            limit=0,
            remaining=0,
            reserve_requests=0,
            seconds_to_reset=0.0,
            in_flight=0,
            hold_cause=None,
            held_seconds=0.0,
            holds_in_a_row=0,
            requests=0,
            throttled=0,
            waited_seconds=0.0,
            answered=False,
        )

    def log_fields(self, *, idle: bool) -> dict[str, float]:
        """Return pace and quota for a log line, as far as responses have reported them in this window."""
        if self.seconds_to_reset <= 0:
            return {}
        pace = {} if idle and self.hold_cause is None else {"requests_per_minute": round(60 * self.pace, 1)}
        return {**pace, "remaining_requests": self.remaining, "limit_requests": self.limit}


@dataclass(slots=True)
class Traffic:
    """The requests so far, and those in flight."""

    requests: int = 0
    in_flight: int = 0
    throttled: int = 0
    latency_seconds: float = 0.1
    waited_seconds: float = 0.0
    without_slot: int = 0
    """Those that may be sent, but wait for a slot of the process: no further one is paid meanwhile."""
