"""Other traffic on the same budget, such as a customer's live sending: when its calls fall due, and nothing else.

Time here is relative to the window's start. Nothing waits, takes budget or draws at random, so the same
neighbour does the same in every run.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from harvester.errors import UsageError

KINDS = ("none", "steady", "bursty", "campaign")


@dataclass(frozen=True, slots=True)
class Neighbour(ABC):
    """Somebody who spends ``share`` (0 to 1) of every window's limit."""

    share: float

    @abstractmethod
    def spent(self, window_seconds: float, at: float) -> float:
        """Give the part of the share, 0 to 1, that is spent ``at`` seconds into a window."""

    def calls_due(self, window_limit: int, window_seconds: float, since: float, until: float) -> int:
        """Count the calls that fall due after ``since`` and not after ``until``, in seconds of one window.

        Adjoining intervals add up exactly: what rounding leaves out of one falls due in a later one.
        """
        calls = self.share * window_limit
        return math.floor(calls * self.spent(window_seconds, until)) - math.floor(
            calls * self.spent(window_seconds, since)
        )


@dataclass(frozen=True, slots=True)
class Steady(Neighbour):
    """Evenly all through the window."""

    def spent(self, window_seconds: float, at: float) -> float:
        """Grow in a straight line."""
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
        # capped by the very product that the next burst begins with, so that rounding never makes it fall
        return min(bursts * self.burst_seconds + into, (bursts + 1) * self.burst_seconds)


@dataclass(frozen=True, slots=True)
class Campaign(Neighbour):
    """All at once and late: a campaign that starts at a fraction of the window and lasts a fraction of it.

    ``lasts_fraction`` is more than 0. One that would last beyond the window's end is cut off there, and spends
    less than its share.
    """

    starts_at_fraction: float
    lasts_fraction: float

    def spent(self, window_seconds: float, at: float) -> float:
        """Stay at nothing until the start, then grow in a straight line."""
        return _clamped((at / window_seconds - self.starts_at_fraction) / self.lasts_fraction)


def neighbour_of(kind: str, share: float, window_seconds: float) -> Neighbour | None:
    """Give the neighbour of a kind in ``KINDS``, or None where nobody spends.

    Bursts last a sixtieth of the window and come six times in it: a minute every ten of an hour. A campaign begins
    at minute 36 of an hour and lasts 12. Raises ``UsageError`` for another kind, and for one that spends nothing.
    """
    match kind:
        case "none":
            return None
        case "steady":
            return Steady(share) if share else None
        case "bursty" | "campaign" if not share:
            raise UsageError(f"say how much of the budget the {kind} neighbour spends, such as --neighbour-share 0.5")
        case "bursty":
            return Bursty(share, burst_seconds=window_seconds / 60, every_seconds=window_seconds / 6)
        case "campaign":
            return Campaign(share, starts_at_fraction=0.6, lasts_fraction=0.2)
        case _:
            raise UsageError(f"there is no neighbour {kind!r}; choose one of {', '.join(KINDS)}")


def _clamped(part: float) -> float:
    return min(max(part, 0.0), 1.0)
