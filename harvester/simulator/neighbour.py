"""Other traffic on the same quota, such as live sending: when its requests fall due.

Time is relative to the window's start. Nothing waits, charges the quota or draws at random, so the same neighbour
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
    def spent(self, window_seconds: float, at: float) -> float:
        """Return the part of the share, 0 to 1, that is used ``at`` seconds into a window."""

    def requests_due(self, window_limit: int, window_seconds: float, since: float, until: float) -> int:
        """Count the requests that fall due after ``since`` and not after ``until``, in seconds of one window.

        Adjacent intervals add up exactly: what rounding omits in one falls due in a later one.
        """
        requests = self.share * window_limit
        return math.floor(requests * self.spent(window_seconds, until)) - math.floor(
            requests * self.spent(window_seconds, since)
        )


@dataclass(frozen=True, slots=True)
class Steady(Neighbour):
    """Evenly all through the window."""

    def spent(self, window_seconds: float, at: float) -> float:
        """Grow linearly."""
        return _clamped(at / window_seconds)


@dataclass(frozen=True, slots=True)
class Bursty(Neighbour):
    """In bursts of ``burst_seconds`` (more than 0), one at the start of every ``every_seconds`` (at least as long)."""

    burst_seconds: float
    every_seconds: float

    def spent(self, window_seconds: float, at: float) -> float:
        """Grow during the bursts only."""
        return _clamped(self._bursting(at) / self._bursting(window_seconds))

    def _bursting(self, at: float) -> float:
        bursts, into = divmod(at, self.every_seconds)
        # Capped by the product that the next burst begins with, so that rounding never makes it fall.
        return min(bursts * self.burst_seconds + into, (bursts + 1) * self.burst_seconds)


@dataclass(frozen=True, slots=True)
class Campaign(Neighbour):
    """All at once and late: a campaign that starts at a fraction of the window and lasts a fraction of it.

    ``lasts_fraction`` is more than 0. A campaign is cut off at the window's end, and then uses less than its share.
    """

    starts_at_fraction: float
    lasts_fraction: float

    def spent(self, window_seconds: float, at: float) -> float:
        """Stay at 0 until the start, then grow linearly."""
        return _clamped((at / window_seconds - self.starts_at_fraction) / self.lasts_fraction)


def create_neighbour(kind: str, share: float, window_seconds: float) -> Neighbour | None:
    """Create the neighbour of a kind in ``KINDS``, or None if no other client uses the quota.

    Bursts last a sixtieth of the window and come six times in it: a minute every ten of an hour. A campaign begins
    at minute 36 of an hour and lasts 12. Raises ``UsageError`` for another kind, and for one without a share.
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


def _clamped(part: float) -> float:
    return min(max(part, 0.0), 1.0)
