"""What a historical capture will take, before a call is spent. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

WINDOW_SECONDS = 3600.0
"""Braze's budget counts by the clock hour (documentation of the API's limits)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls to make, the pace they may go at (calls per second), and how many deadlines pass before their turn."""

    calls: int
    pace: float
    seconds: float
    share_of_hour: float
    missed: int


def plan(deadlines: Iterable[float], *, now: float, limit: int, reserve: float, max_rate: float) -> Plan:
    """Work through deadlines (nearest first) at the pace that the reserve leaves, if nobody else spends."""
    pace = min(limit * (1 - reserve) / WINDOW_SECONDS, max_rate)
    calls = missed = 0
    for deadline in deadlines:
        calls += 1
        missed += now + calls / pace > deadline
    return Plan(calls=calls, pace=pace, seconds=calls / pace, share_of_hour=calls / limit, missed=missed)
