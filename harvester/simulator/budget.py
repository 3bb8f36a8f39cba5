"""The budget that all callers of a workspace share: fixed windows, aligned to the clock as Braze's hour is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to one call for budget; ``reset_at`` is when the present window ends, in epoch seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float


class SharedBudget:
    """``limit`` calls in every window of ``window_seconds``. A refused call takes nothing."""

    def __init__(self, limit: int, window_seconds: float) -> None:
        """Begin with a full window."""
        self.limit = limit
        self.refused = 0
        self.lowest_remaining = limit
        self._window_seconds = window_seconds
        self._window = -1
        self._taken = 0

    def take(self, now: float) -> Grant:
        """Take one call, if there is one left in the window of ``now`` (epoch seconds)."""
        window = int(now // self._window_seconds)
        if window != self._window:
            self._window, self._taken = window, 0
        allowed = self._taken < self.limit
        self._taken += allowed
        self.refused += not allowed
        remaining = max(0, self.limit - self._taken)
        self.lowest_remaining = min(self.lowest_remaining, remaining)
        return Grant(allowed, self.limit, remaining, (window + 1) * self._window_seconds)
