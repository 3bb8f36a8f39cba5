"""A pacer in virtual time, and the requests and responses that drive it."""

import random

from harvester.braze.pacer import Pacer
from harvester.braze.quota import QuotaReport
from harvester.simulator.virtual_time import VirtualClock

HOUR = 3600.0


def make_pacer(clock: VirtualClock, **settings_) -> Pacer:
    """Return a pacer with usual settings; ``settings_`` replaces some of them."""
    return Pacer(**({"reserve": 0.2, "max_rate": 1000.0, "clock": clock, "jitter": random.Random(1)} | settings_))


def make_report(clock: VirtualClock, *, remaining: int, limit: int = 250_000, resets_in: float = HOUR) -> QuotaReport:
    """Return the report of a response, with Braze's clock an hour ahead of ours."""
    now = clock.wall() + HOUR
    return QuotaReport(limit=limit, remaining=remaining, reset_at=now + resets_in, server_time=now)


async def complete_request(pacer: Pacer, report: QuotaReport | None = None) -> None:
    """Make one request that succeeds."""
    await pacer.acquire()
    pacer.release(report, 0.05)
    pacer.record_success()
