"""What a simulation of replicas is given and what it returns: sizes, outages, deaths, counts and alerts."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.runtime.simulated_workspace import HOUR_SECONDS
from harvester.model import DAY_SECONDS

DOWN_ALERT_SECONDS, AT_RISK_ALERT_SECONDS = 300.0, 600.0
"""How long a condition lasts before ``HarvesterDown`` and ``HarvesterPairsAtRisk`` fire (``config/alerts.yml``)."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A period, in seconds from the start of the simulation."""

    begin: float
    end: float

    @classmethod
    def at(cls, day: float, *, hours: float) -> "Outage":
        """Return an outage that begins at a time in days."""
        return cls(day * DAY_SECONDS, day * DAY_SECONDS + hours * HOUR_SECONDS)

    def __contains__(self, now: float) -> bool:
        """Return whether the outage lasts at a time."""
        return self.begin <= now < self.end


NEVER = Outage(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Deaths:
    """Replicas that are killed at the same time, and others that start in their place ``restart_seconds`` later."""

    at: float
    replicas: int = 1
    restart_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The sizes of a simulation. ``ledger_rate`` and ``replica_rate`` are readings per second.

    The sizes of workspaces are distributed log-normally, with the standard deviation ``spread`` of their logarithms.
    Live sending uses a share of the quota between the two ``live_shares`` in each workspace.
    """

    workspaces: int = 10_000
    replicas: int = 20
    days: int = 30
    sends_per_day: float = 100.0
    spread: float = 1.4
    live_shares: tuple[float, float] = (0.0, 0.5)
    ledger_rate: float = 4000.0
    replica_rate: float = 900.0
    max_sealed_bytes: float = 1 << 30
    ledger_outage: Outage = NEVER
    place_outage: Outage = NEVER
    deaths_per_day: float = 0.0
    deaths: tuple[Deaths, ...] = ()


@dataclass(slots=True)
class Result:
    """The counts of a simulation.

    ``late`` counts the sends without a final capture in time, ``alerted`` those of them for which an alert fired before
    the deadline. ``shortest_warning`` is the shortest time between the two, in seconds, and ``first_limit`` what the
    first late send waited for.
    """

    sends: int = 0
    in_time: int = 0
    late: int = 0
    alerted: int = 0
    shortest_warning: float = math.inf
    first_limit: str = ""
    readings: int = 0
    transactions: Counter[int] = field(default_factory=Counter)
    longest_wait: float = 0.0
    most_sealed_bytes: float = 0.0
    moved: int = 0


def find_alert(at_risk_at: float, dark: Iterable[Outage]) -> float:
    """Return when an alert fires that pages somebody, for a pair that stays pending after ``at_risk_at``.

    ``HarvesterPairsAtRisk`` fires, unless the ledger cannot be read, in one of the outages ``dark``. Then
    ``HarvesterDown`` fires, and the pair is shown after the outage. The pace may put a pair at risk earlier; this is
    not counted.
    """
    down, shown_at = math.inf, at_risk_at
    for outage in sorted(dark, key=lambda each: each.begin):
        if outage.begin < shown_at + AT_RISK_ALERT_SECONDS and outage.end > shown_at:
            shown_at = outage.end
            if outage.end - outage.begin > DOWN_ALERT_SECONDS:
                down = min(down, outage.begin + DOWN_ALERT_SECONDS)
    return min(down, shown_at + AT_RISK_ALERT_SECONDS)
