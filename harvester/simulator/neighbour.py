"""Another client of the same quota, such as live sending: when its requests fall due.

Times are relative to the start of the window. Nothing here waits, charges the quota or is random, so a neighbour
behaves the same in every run.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from harvester.errors import UsageError

KINDS = ("none", "steady", "bursty", "campaign")


@dataclass(frozen=True, slots=True)
class Neighbour(ABC):
    """A client that uses ``share`` (0 to 1) of every window's limit."""

    share: float

    @abstractmethod
    def used_fraction(self, window_seconds: float, seconds: float) -> float:
        """Return the fraction of the share, 0 to 1, that is used ``seconds`` after the start of a window."""

    def requests_due(self, window_limit: int, window_seconds: float, since: float, until: float) -> int:
        """Count the requests that fall due after ``since`` and not after ``until``, in seconds of one window.

        The counts of adjacent intervals add up exactly: a request that rounding omits falls due in a later interval.
        """
        requests = self.share * window_limit
        return math.floor(requests * self.used_fraction(window_seconds, until)) - math.floor(
            requests * self.used_fraction(window_seconds, since)
        )


@dataclass(frozen=True, slots=True)
class Steady(Neighbour):
    """Sends evenly during the whole window."""

    def used_fraction(self, window_seconds: float, seconds: float) -> float:
        """Grow linearly."""
        return _clamp(seconds / window_seconds)


@dataclass(frozen=True, slots=True)
class Bursty(Neighbour):
    """Sends in bursts of ``burst_seconds`` (more than 0). A burst starts every ``every_seconds`` (at least as long)."""

    burst_seconds: float
    every_seconds: float

    def used_fraction(self, window_seconds: float, seconds: float) -> float:
        """Grow only during the bursts."""
        return _clamp(self._burst_seconds_until(seconds) / self._burst_seconds_until(window_seconds))

    def _burst_seconds_until(self, seconds: float) -> float:
        """Return how many seconds of bursts have passed."""
        bursts, seconds_since_start = divmod(seconds, self.every_seconds)
        # The limit is the same product that the next burst starts with, so rounding cannot make the result fall.
        return min(bursts * self.burst_seconds + seconds_since_start, (bursts + 1) * self.burst_seconds)


@dataclass(frozen=True, slots=True)
class Campaign(Neighbour):
    """Sends one campaign late in the window: it starts at a fraction of the window and lasts a fraction of it.

    ``lasts_fraction`` is more than 0. A campaign ends with the window at the latest, and then uses less than its share.
    """

    starts_at_fraction: float
    lasts_fraction: float

    def used_fraction(self, window_seconds: float, seconds: float) -> float:
        """Stay at 0 until the start, then grow linearly."""
        return _clamp((seconds / window_seconds - self.starts_at_fraction) / self.lasts_fraction)


def create_neighbour(kind: str, share: float, window_seconds: float) -> Neighbour | None:
    """Create the neighbour of a kind in ``KINDS``, or return None if no other client uses the quota.

    There are six bursts in a window; each lasts a sixtieth of it. In a window of an hour, a campaign starts at minute
    36 and lasts 12 minutes. Raises ``UsageError`` for another kind, and for bursts or a campaign without a share.
    """
    match kind:
        case "none":
            return None
        case "steady":
            return Steady(share) if share else None
        case "bursty" | "campaign" if not share:
            raise UsageError(f"set the share that the {kind} neighbour uses, such as --neighbour-share 0.5")
        case "bursty":
            return Bursty(share, burst_seconds=window_seconds / 60, every_seconds=window_seconds / 6)
        case "campaign":
            return Campaign(share, starts_at_fraction=0.6, lasts_fraction=0.2)
        case _:
            raise UsageError(f"there is no neighbour {kind!r}; choose one of {', '.join(KINDS)}")


def _clamp(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0)
