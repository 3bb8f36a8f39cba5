"""A clock that tests set."""

from dataclasses import dataclass


@dataclass
class SettableClock:
    """Both clocks of a machine at ``now``, in seconds since the epoch, until a test sets another time."""

    now: float

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self.now

    def monotonic(self) -> float:
        """Return the same; no test compares the two."""
        return self.now
