"""Estimates what a capture needs, before any request. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

WINDOW_SECONDS = 3600.0
"""Braze's quota counts by the clock hour (documentation of the API's limits)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The requests to make, their pace in requests per second, and how many pairs expire before their turn."""

    requests: int
    pace: float
    duration_seconds: float
    quota_share: float
    missed: int


def estimate(deadlines: Iterable[float], *, now: float, limit: int, reserve: float, max_rate: float) -> Estimate:
    """Estimate the capture of pairs with these deadlines, nearest first, if no other client uses the quota."""
    pace = min(limit * (1 - reserve) / WINDOW_SECONDS, max_rate)
    requests = missed = 0
    for deadline in deadlines:
        requests += 1
        missed += now + requests / pace > deadline
    return Estimate(requests, pace, requests / pace, requests / limit, missed)
