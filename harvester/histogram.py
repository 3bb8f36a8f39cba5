"""Counts values by size in constant memory."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class HistogramState:
    """A histogram at one moment: for each bound, how many values were at most that; their number, and their sum."""

    buckets: tuple[tuple[float, int], ...] = ()
    count: int = 0
    sum: float = 0.0


class Histogram:
    """Counts values in buckets. ``bounds`` are the upper limits of the buckets, smallest first, in the values' unit."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin without values."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def state(self) -> HistogramState:
        """Return the counts at this moment."""
        *below, total = accumulate(self._counts)
        return HistogramState(tuple(zip(self._bounds, below, strict=True)), total, self._sum)
