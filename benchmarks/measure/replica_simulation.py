"""Thousands of workspaces on several replicas for thirty days, in virtual time, with deaths and long outages.

The plan of readings, the assignment of workspaces and the pace of requests are harvester's own code. Requests, ledger
and place are counted, not made: a step is up to a minute of one workspace's readings at its pace. Replicas are killed
three times a day and start again a minute later; the requests that a kill repeats are not counted. The ledger is
unavailable for six hours from noon of day 16, the place for all of day 20. Most workspaces have one small campaign a
day, and a few have thousands of sends. A replica makes at most 900 requests a second ("Many workspaces"), and the
ledger records at most 4,000 readings a second ("The ledger in PostgreSQL", eight owners, 100,000 pairs).

``final in time`` is the share of sends whose final capture was requested before Braze deletes it. ``alerted`` is the
share of the others for which an alert paged somebody before that: ``HarvesterPairsAtRisk``, or ``HarvesterDown`` while
no metrics can be read. ``transactions`` are those of the ledger, by the rules of the engine: a claim at most every
250 ms; three for each batch, every 1,000 readings or a minute; one for each message; and those that an idle replica
makes, for polls, renewals, monitoring and housekeeping. Attempts during an outage are not counted.

The second table shows what breaks first. One figure at a time grows until the first final capture is late; everything
else stays as in the first scene, with a hundredth of its workspaces, ledger and ``max_sealed_bytes`` (1 GiB for all),
for twenty days, without deaths. Outages begin at noon of day 16, when most final readings fall due. ``limit`` is what
the first late send waited for most of the time. ``shortest warning`` is the shortest time between the alert and the
deadline of a late send.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.runtime.simulated_replicas import STEP_SECONDS, Simulation
from benchmarks.runtime.simulated_scene import Deaths, Outage, Result, Scene
from benchmarks.runtime.simulated_workspace import HOUR_SECONDS
from harvester.model import DAY_SECONDS

_OUTAGE_DAY = 16.5
"""At noon of a day on which final readings fall due. The first ones do on day 13."""

_LARGE = Scene(
    max_sealed_bytes=16 << 30,
    ledger_outage=Outage.at(_OUTAGE_DAY, hours=6),
    place_outage=Outage.at(20, hours=24),
    deaths_per_day=3,
)
_SMALL = replace(_LARGE, workspaces=2000, replicas=4)
SCENES: dict[str, Scene] = {
    "10,000 workspaces, 20 replicas": _LARGE,
    "2,000 workspaces, 4 replicas": _SMALL,
    "the same, max_sealed_bytes 0.1 GiB": replace(_SMALL, max_sealed_bytes=0.1 * 2**30),
}
QUICK = replace(_LARGE, workspaces=200, replicas=4, max_sealed_bytes=16 << 20)

PART = 100
_HUNDREDTH = Scene(
    workspaces=10_000 // PART,
    replicas=1,
    days=20,
    replica_rate=20 * 900 / PART,
    ledger_rate=4000 / PART,
    max_sealed_bytes=2**30 / PART,
)
"""A hundredth of the first scene. One replica has the rate of all, so that the shares of few workspaces are even."""

_ONE_WORKSPACE = Scene(workspaces=1, replicas=1, days=20, spread=0, live_shares=(0.25, 0.25))


@dataclass(frozen=True, slots=True)
class Factor:
    """A figure that grows: its name, its usual value, the values between which a limit is searched, and the scene."""

    name: str
    usual: float
    low: float
    high: float
    create: Callable[[float], Scene]


FACTORS = (
    Factor(
        "sends a day in 10,000 workspaces",
        1e6,
        1e7,
        1e9,
        lambda sends: replace(_HUNDREDTH, sends_per_day=sends / 10_000),
    ),
    Factor(
        "sends a day in one workspace, a quarter of its quota used by live sending",
        100,
        10_000,
        1e8,
        lambda sends: replace(_ONE_WORKSPACE, sends_per_day=sends),
    ),
    Factor(
        "share of its quota that live sending uses in each workspace, %",
        25,
        25,
        100,
        lambda share: replace(_HUNDREDTH, live_shares=(share / 100, share / 100)),
    ),
    Factor(
        "workspaces of each replica, on a ledger without a limit",
        500,
        500,
        1e6,
        lambda count: replace(_HUNDREDTH, replica_rate=900 * _HUNDREDTH.workspaces / count, ledger_rate=math.inf),
    ),
    Factor(
        "replicas of 20 that die at once and do not return",
        0,
        1,
        19,
        lambda count: replace(
            _HUNDREDTH,
            replicas=20,
            replica_rate=900 / PART,
            deaths=(Deaths(_OUTAGE_DAY * DAY_SECONDS, round(count), math.inf),),
        ),
    ),
    Factor(
        "hours without any replica",
        0,
        6,
        72,
        lambda hours: replace(_HUNDREDTH, deaths=(Deaths(_OUTAGE_DAY * DAY_SECONDS, 1, hours * HOUR_SECONDS),)),
    ),
    Factor(
        "hours without the ledger",
        0,
        6,
        72,
        lambda hours: replace(_HUNDREDTH, ledger_outage=Outage.at(_OUTAGE_DAY, hours=hours)),
    ),
    Factor(
        "hours without the place",
        0,
        6,
        96,
        lambda hours: replace(_HUNDREDTH, place_outage=Outage.at(_OUTAGE_DAY, hours=hours)),
    ),
)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each scene, and one for each figure that grows."""
    for name, scene in ({"200 workspaces, 4 replicas": QUICK} if quick else SCENES).items():
        yield "replica_simulation", {"scene": name} | describe(Simulation(scene).run())
    for factor in FACTORS[-3:] if quick else FACTORS:
        yield "breaking_points", {"what grows": factor.name} | describe_limit(factor, precision=0.2 if quick else 0.03)


def describe(result: Result) -> dict[str, float]:
    """Return the figures of one simulation."""
    finals = result.in_time + result.late
    seconds = (max(result.transactions) + 1) * STEP_SECONDS
    return {
        "sends": result.sends,
        "readings per second": result.readings / seconds,
        "final in time, %": 100 * result.in_time / finals,
        "late": result.late,
        "alerted, % of late": find_alerted(result),
        "longest wait of a final reading, h": result.longest_wait / HOUR_SECONDS,
        "transactions per second": result.transactions.total() / seconds,
        "busiest minute": max(result.transactions.values()) / STEP_SECONDS,
        "sealed during the outage, GiB": result.most_sealed_bytes / 2**30,
        "workspaces moved": result.moved,
    }


def describe_limit(factor: Factor, *, precision: float) -> dict[str, Any]:
    """Search where the first final capture is late; returns what that scene shows."""
    value = find_limit(factor, precision)
    if value is None:
        return {
            "usual": factor.usual,
            "first late at": f"not up to {factor.high:g}",
            "limit": "none",
            "late": 0,
            "alerted, % of late": 100.0,
            "shortest warning, h": "",
        }
    result = Simulation(factor.create(value)).run()
    return {
        "usual": factor.usual,
        "first late at": float(value),
        "limit": result.first_limit,
        "late": result.late,
        "alerted, % of late": find_alerted(result),
        "shortest warning, h": result.shortest_warning / HOUR_SECONDS,
    }


def find_limit(factor: Factor, precision: float) -> float | None:
    """Return the lowest value with a late capture, to a ``precision``; None if there is none up to ``high``."""

    def is_late(value: float) -> bool:
        return Simulation(factor.create(value)).run(until_late=True).late > 0

    low, high = factor.low, factor.high
    if not is_late(high):
        return None
    while high > low * (1 + precision):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_late(middle) else (middle, high)
    return high


def find_alerted(result: Result) -> float:
    """Return the percentage of the late sends for which an alert fired before their deadline."""
    return 100 * result.alerted / result.late if result.late else 100.0
