"""The rate of requests: it follows the quota, leaves the reserve, and limits retries, in virtual time."""

import asyncio
import contextlib

import pytest

from benchmarks.measure.quota_simulation import Scenario, simulate
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.pacer import complete_request, make_pacer, make_report


@pytest.mark.parametrize("neighbour", ["none", "steady", "bursty", "campaign"])
@pytest.mark.parametrize("harvesters", [1, 8])
@pytest.mark.parametrize("window_seconds", [25.0, 5.0])
def test_live_sending_is_never_refused(harvesters, neighbour, window_seconds):
    """Harvesters that share a workspace leave live sending all it needs, and keep the reserve.

    Except for the requests in flight when others cross it, and as many that leave before a response reports it.
    """
    limit = round(70 * window_seconds)
    result = simulate(Scenario(harvesters, neighbour, limit=limit, window_seconds=window_seconds, windows=1.5))
    assert result.neighbour_refused == 0
    assert result.throttled == 0
    assert result.requests_below_reserve <= 2 * result.most_in_flight


def test_a_lone_harvester_uses_its_whole_share():
    """Without other clients, a capture of two windows' requests takes at most a tenth longer than two windows."""
    result = simulate(Scenario(1, "none", limit=7000, window_seconds=100.0, starts_at_fraction=0.0))
    assert result.seconds < 1.1 * result.ideal_seconds


@pytest.mark.parametrize("rate", [1.0, 7.0, 69.4, 450.0, 2000.0])
def test_the_pace_is_kept_within_two_percent(rate):
    """At any rate, the total matches the rate, and no second has more than about 15 % too many requests."""
    seconds = 60 if rate < 100 else 6

    async def requests_by_second() -> list[int]:
        clock = VirtualClock()
        pacer = make_pacer(clock, max_rate=rate)
        for _ in range(64):  # past the ramp
            await complete_request(pacer)
        began, counts = clock.monotonic(), [0] * seconds

        async def work() -> None:
            while True:
                await pacer.acquire()
                counts[int(clock.monotonic() - began)] += 1
                await asyncio.sleep(0.02)
                pacer.release(None, 0.02)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - 0.01), asyncio.TaskGroup() as group:
                for _ in range(64):
                    group.create_task(work())
        return counts

    counts = run_virtual(requests_by_second())
    assert sum(counts) == pytest.approx(seconds * rate, rel=0.02)
    assert max(counts) <= max(rate * 1.15, rate + 1)


def test_no_queue_remains_if_responses_are_fast():
    """If the pace does not limit the requests, nearly all of 64 clients have one in flight."""

    async def most_in_flight() -> int:
        pacer = make_pacer(VirtualClock(), max_rate=100_000.0)

        async def work() -> int:
            most = 0
            for _ in range(20):
                await pacer.acquire()
                most = max(most, pacer.state().in_flight)
                await asyncio.sleep(0)  # the response comes at once
                pacer.release(None, 0.0)
                pacer.record_success()
            return most

        return max(await asyncio.gather(*(work() for _ in range(64))))

    assert run_virtual(most_in_flight()) > 50


def test_the_first_request_leaves_alone():
    """At the start the quota is unknown, so one request is sent first; its response reports the quota."""

    async def in_flight() -> tuple[int, int]:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        waiting = [asyncio.create_task(pacer.acquire()) for _ in range(5)]
        await asyncio.sleep(1)
        alone = sum(task.done() for task in waiting)
        pacer.release(make_report(clock, remaining=200_000), 0.05)
        pacer.record_success()
        await asyncio.sleep(1)
        ramped = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        return alone, ramped

    assert run_virtual(in_flight()) == (1, 3)


def test_retries_stay_below_a_fifth_of_the_readings():
    """Retries add at most a fifth to the requests, and a few at the start."""

    async def allowed() -> int:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        retried = 0
        for _ in range(1000):
            await complete_request(pacer)
            retried += pacer.may_retry()
        return retried

    assert 0.2 * 1000 <= run_virtual(allowed()) <= 0.2 * 1000 + 20
