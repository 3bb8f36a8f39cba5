"""Tests of the fast clock and of virtual time."""

import asyncio

import pytest
from aiolimiter import AsyncLimiter

from harvester.model import DAY_SECONDS
from harvester.simulator.fast_clock import FastClock
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.clocks import SettableClock
from tests.support.stand_in import NOW


def test_a_fast_clock_starts_now_and_runs_ahead():
    """It starts at the current time. At a speed of 168, two weeks of retention pass in two hours."""
    clock = SettableClock(NOW)
    fast = FastClock(clock, 168.0)
    assert fast.wall() == NOW
    clock.now += 7200
    assert fast.wall() == NOW + 14 * DAY_SECONDS


def test_virtual_hours_pass_at_once_and_in_order():
    """Hours of waiting take milliseconds, and timers fire in order."""

    async def wait():
        clock, woken = VirtualClock(starts_at=1000.0), []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            woken.append((seconds, round(clock.monotonic(), 2), round(clock.wall() - 1000.0, 2)))

        await asyncio.gather(*(sleeper(hours * 3600.0) for hours in (5, 1, 48, 3)))
        return woken

    assert run_virtual(wait()) == [(hours * 3600.0,) * 3 for hours in (1, 3, 5, 48)]


def test_a_limiter_keeps_its_rate_in_virtual_time():
    """A token bucket does not hang if rounding makes its next wait 0, and takes the right time."""

    async def drain():
        limiter = AsyncLimiter(7, 0.1)
        for _ in range(707):
            await limiter.acquire()
        return VirtualClock().monotonic()

    assert run_virtual(drain()) == pytest.approx(10.0, abs=0.01)


def test_waiting_for_ever_is_an_error():
    """Code that waits for ever gets an error and cleans up, where another loop would hang."""
    cleaned = []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("cleaned")

    with pytest.raises(RuntimeError, match="wait for ever"):
        run_virtual(stuck())
    assert cleaned == ["cleaned"]
