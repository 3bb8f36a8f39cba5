"""A clock that runs several times as fast, so that an hour's window or two weeks of retention can be rehearsed.

Only who is given it lives faster: a client keeps its own time, and to it the windows of the stand-in are short.
"""

from harvester.clock import Clock


class FastClock:
    """Starts at another clock's time, and gains on it."""

    def __init__(self, clock: Clock, speed: float) -> None:
        """Let ``speed`` seconds (more than 0) pass in each second of ``clock``."""
        self._clock = clock
        self._speed = speed
        self._started_at = clock.wall()

    def monotonic(self) -> float:
        """Seconds that only ever grow, fast."""
        return self._clock.monotonic() * self._speed

    def wall(self) -> float:
        """UTC seconds since the epoch, which run ahead."""
        return self._started_at + (self._clock.wall() - self._started_at) * self._speed
