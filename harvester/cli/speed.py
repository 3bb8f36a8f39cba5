"""The speed of work in progress, smoothed, so that the time left does not jump. Pure: callers pass the time."""

import math

SMOOTHING_SECONDS = 15.0
"""How long a change of the speed takes to show, for the most part."""

_STEP_SECONDS = 1.0


class Speed:
    """How many things per second are done, as an average that weighs the recent past most."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.per_second: float | None = None
        self._since: tuple[float, int] | None = None
        self._measured_seconds = 0.0

    def observe(self, count: int, now: float) -> None:
        """Record how many things are done at a time; at most one measurement a second is used."""
        if self._since is None:
            self._since = (now, count)
            return
        seconds = now - self._since[0]
        if seconds < _STEP_SECONDS:
            return
        current = max(0, count - self._since[1]) / seconds
        self._measured_seconds += seconds
        # The average begins with the first measurement, and is not drawn towards an earlier 0.
        weight = math.expm1(-seconds / SMOOTHING_SECONDS) / math.expm1(-self._measured_seconds / SMOOTHING_SECONDS)
        before = self.per_second or 0.0
        self.per_second = before + weight * (current - before)
        self._since = (now, count)

    def pause(self) -> None:
        """Do not count the time until the next observation: work waits, and its speed afterwards is the same."""
        self._since = None

    def estimate_seconds(self, left: int) -> float | None:
        """Return how long the rest takes; None while that is unknown."""
        if not left:
            return 0.0
        return left / self.per_second if self.per_second else None


def format_speed(per_second: float | None) -> str:
    """Format a speed: ``812/s``, ``7.5/s``, ``12/min``; an empty text if it is unknown."""
    if per_second is None:
        return ""
    if per_second >= 9.95:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.0f}/min"
