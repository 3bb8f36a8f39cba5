"""A clock that runs faster than real time, to try out quota windows and two weeks of retention.

Only the stand-in uses it. A client has another clock, so for the client the windows are short.
"""

from harvester.clock import Clock


class FastClock:
    """A clock that starts at the time of another clock and runs ``speed`` times as fast."""

    def __init__(self, clock: Clock, speed: float) -> None:
        """Advance by ``speed`` seconds (more than 0) for each second of ``clock``."""
        self._clock = clock
        self._speed = speed
        self._started_at = clock.wall()

    def monotonic(self) -> float:
        """Return the monotonic seconds of ``clock``, multiplied by the speed."""
        return self._clock.monotonic() * self._speed

    def wall(self) -> float:
        """Return UTC seconds since the epoch, which advance at the speed."""
        return self._started_at + (self._clock.wall() - self._started_at) * self._speed
