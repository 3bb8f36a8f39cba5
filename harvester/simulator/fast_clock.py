"""A clock that runs several times as fast, to rehearse an hour's window or two weeks of retention.

Only the stand-in uses it. A client keeps its own time, and sees short windows.
"""

from harvester.clock import Clock


class FastClock:
    """Starts at another clock's time, and runs faster."""

    def __init__(self, clock: Clock, speed: float) -> None:
        """Count ``speed`` seconds (more than 0) for each second of ``clock``."""
        self._clock = clock
        self._speed = speed
        self._started_at = clock.wall()

    def monotonic(self) -> float:
        """Return monotonic seconds, sped up."""
        return self._clock.monotonic() * self._speed

    def wall(self) -> float:
        """Return UTC seconds since the epoch, sped up."""
        return self._started_at + (self._clock.wall() - self._started_at) * self._speed
