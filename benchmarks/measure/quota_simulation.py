"""Requests that are refused when uncoordinated harvesters share a quota with live sending, in virtual time.

harvester's own pacing runs against the stand-in's quota: 1, 4 and 8 harvesters beside no neighbour, a steady one, a
bursty one, and a campaign late in the window. Windows last an hour (many requests, but only a fifth of Braze's default
quota, to save time) or five seconds (many windows). For comparison, the rule ``naive`` divides the quota that is left
above the reserve by the time until the reset.

The ideal time is that of a single harvester that knows the future: it uses everything that the neighbour leaves above
the reserve, at an even rate. ``below reserve`` counts harvester's requests that used the reserve in the worst window.
``in flight`` is the largest number of requests in flight.
"""

import asyncio
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from harvester.braze.gate import Held
from harvester.braze.pacer import Pacer
from harvester.braze.quota import Quota, QuotaReport
from harvester.simulator.neighbour import Bursty, Campaign, Neighbour, Steady
from harvester.simulator.quota import SharedQuota
from harvester.simulator.virtual_time import VirtualClock, run_virtual

RESERVE = 0.2
WORKERS = 64
HOURLY_LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """The quota and the clients that share it. The harvesters' work lasts for ``windows`` windows."""

    harvesters: int
    neighbour: str
    limit: int = HOURLY_LIMIT
    window_seconds: float = 3600.0
    windows: float = 2.0
    latency_seconds: float = 0.15
    starts_at_fraction: float = 0.1
    rule: str = "line"


@dataclass(slots=True)
class Result:
    """The counts and times of a simulation. ``requests_below_reserve`` is the count of the worst window."""

    neighbour_refused: int = 0
    throttled: int = 0
    requests: int = 0
    requests_below_reserve: int = 0
    most_in_flight: int = 0
    lowest_remaining: int = 0
    seconds: float = 0.0
    ideal_seconds: float = 0.0


def create_neighbour(kind: str, window_seconds: float) -> Neighbour | None:
    """Return a neighbour whose bursts and campaign are proportional to the window."""
    burst = window_seconds / 12
    return {
        "none": None,
        "steady": Steady(0.3),
        "bursty": Bursty(0.3, burst_seconds=burst / 5, every_seconds=burst),
        "campaign": Campaign(0.4, starts_at_fraction=0.6, lasts_fraction=0.1),
    }[kind]


class Naive(Quota):
    """The simplest rule: the quota left above the reserve, spread evenly until the reset."""

    def pace(self, now: float, *, in_flight: int, latency_seconds: float) -> float:
        """Divide the spare quota by the time until the reset."""
        left = max(self.seconds_to_reset(now), 6 * latency_seconds)
        return max(0.0, self.spare(in_flight) / left)


class _Simulation:
    """The shared quota, and the requests that the harvesters send."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.result = Result()
        neighbour = create_neighbour(scenario.neighbour, scenario.window_seconds)
        self.quota = SharedQuota(scenario.limit, scenario.window_seconds, neighbour)
        self.clock = VirtualClock()
        self.random = random.Random(7)
        self.reserve_requests = RESERVE * scenario.limit
        self.in_flight = 0
        self._below: dict[int, int] = {}
        share = neighbour.share if neighbour else 0.0
        left = (1 - RESERVE - share) * scenario.limit
        self.requests_left = self.total_requests = round(scenario.windows * left)
        self.result.ideal_seconds = self.total_requests / left * scenario.window_seconds

    def window(self) -> int:
        return int(self.clock.wall() // self.scenario.window_seconds)

    async def send_request(self) -> tuple[bool, QuotaReport, float]:
        """Send a request: half of the latency, the quota, the other half. ``Date`` has whole seconds."""
        started = self.clock.monotonic()
        one_way_seconds = self.scenario.latency_seconds / 2
        self.in_flight += 1
        self.result.most_in_flight = max(self.result.most_in_flight, self.in_flight)
        await asyncio.sleep(one_way_seconds * self.random.uniform(0.5, 1.5))
        grant = self.quota.charge(self.clock.wall())
        sent = math.floor(self.clock.wall())
        if grant.allowed and grant.remaining < self.reserve_requests:
            self._below[self.window()] = self._below.get(self.window(), 0) + 1
        await asyncio.sleep(one_way_seconds * self.random.uniform(0.5, 1.5))
        self.in_flight -= 1
        report = QuotaReport(grant.limit, grant.remaining, grant.reset_at, sent)
        return grant.allowed, report, self.clock.monotonic() - started

    def end(self) -> Result:
        self.quota.advance(self.clock.wall())
        self.result.neighbour_refused = self.quota.neighbour_refused
        self.result.requests_below_reserve = max(self._below.values(), default=0)
        self.result.lowest_remaining = self.quota.lowest_remaining
        return self.result


async def _worker(simulation: _Simulation, pacer: Pacer, offset: float) -> None:
    """Send requests as a lane does: during a hold that is too long for the queue, it sleeps."""
    await asyncio.sleep(offset)
    while simulation.requests_left > 0:
        try:
            await pacer.acquire()
        except Held as held:
            await asyncio.sleep(max(0.0, held.hold.until - simulation.clock.monotonic()) + 0.001)
            continue
        allowed, report, latency = await simulation.send_request()
        pacer.release(report, latency)
        if allowed:
            simulation.requests_left -= 1
            simulation.result.requests += 1
            pacer.record_success()
        else:
            simulation.result.throttled += 1
            pacer.record_throttled()


async def _run(scenario: Scenario) -> Result:
    simulation = _Simulation(scenario)
    await asyncio.sleep(scenario.starts_at_fraction * scenario.window_seconds)
    started = simulation.clock.monotonic()
    async with asyncio.TaskGroup() as group:
        for each in range(scenario.harvesters):
            pacer = Pacer(
                reserve=RESERVE,
                max_rate=5000.0,
                clock=simulation.clock,
                jitter=random.Random(each),
                quota=Naive(RESERVE) if scenario.rule == "naive" else None,
            )
            for _ in range(WORKERS):
                group.create_task(_worker(simulation, pacer, offset=0.01 * each))
    simulation.result.seconds = simulation.clock.monotonic() - started
    return simulation.end()


def simulate(scenario: Scenario) -> Result:
    """Run one scenario on virtual time."""
    return run_virtual(_run(scenario))


def scenarios(*, quick: bool) -> Iterator[Scenario]:
    """Yield the scenarios; ``quick`` has a tenth of the requests in a tenth of the time."""
    scale = 0.1 if quick else 1.0
    for rule, window_seconds in (("line", 3600.0 * scale), ("line", 5.0), ("naive", 3600.0 * scale)):
        limit = round(HOURLY_LIMIT / 3600 * window_seconds)
        windows = 3 if window_seconds > 5 else 12
        for kind in ("none", "steady", "bursty", "campaign"):
            for harvesters in (1, 4, 8) if rule == "line" else (8,):
                yield Scenario(harvesters, kind, limit=limit, window_seconds=window_seconds, windows=windows, rule=rule)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the table."""
    all_scenarios = list(scenarios(quick=quick))
    with ProcessPoolExecutor() as pool:
        for scenario, result in zip(all_scenarios, pool.map(simulate, all_scenarios), strict=True):
            yield (
                "quota_simulation",
                {
                    "rule": scenario.rule,
                    "window, s": round(scenario.window_seconds),
                    "harvesters": scenario.harvesters,
                    "neighbour": scenario.neighbour,
                    "of the ideal": result.seconds / result.ideal_seconds,
                    "own 429s": result.throttled,
                    "live requests refused": result.neighbour_refused,
                    "lowest left": result.lowest_remaining,
                    "reserve": round(RESERVE * scenario.limit),
                    "below reserve": result.requests_below_reserve,
                    "in flight": result.most_in_flight,
                },
            )
