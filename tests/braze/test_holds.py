"""Holds: what stops requests, for how long, and how they start again, in virtual time."""

import asyncio
from functools import partial

import pytest

from harvester.braze.gate import Held, Hold, HoldCause, count_overload_holds
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.pacer import HOUR, complete_request, make_pacer, make_report

approx = partial(pytest.approx, rel=0.01)


def test_no_request_leaves_below_the_reserve_until_the_reset():
    """The hold lasts until the reset by Braze's clock, an hour ahead of ours; then one request probes."""

    async def resumed_after() -> float:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=HOUR)
        await complete_request(pacer, make_report(clock, remaining=50_000, resets_in=600))
        began = clock.monotonic()
        await pacer.acquire()
        return clock.monotonic() - began

    assert run_virtual(resumed_after()) == pytest.approx(600, abs=2)


def test_acquire_raises_if_the_wait_is_long():
    """A request waits for a hold of seconds, but a hold of an hour releases its reading at once."""

    async def held() -> tuple[Hold, str]:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        await asyncio.sleep(10)
        await complete_request(pacer, make_report(clock, remaining=10, resets_in=3))
        assert pacer.find_long_hold() is None
        await pacer.acquire()
        pacer.release(None, 0.05)
        await complete_request(pacer, make_report(clock, remaining=10))
        with pytest.raises(Held) as caught:
            await pacer.acquire()
        return caught.value.hold, str(caught.value)

    hold, message = run_virtual(held())
    assert (hold.cause, message) == (HoldCause.RATE_LIMITED, "held because of rate_limited")
    assert hold.until == approx(HOUR + 13)


def test_many_429s_at_once_are_one_hold_until_the_reset():
    """Sixty-four 429s cause one hold, and after the reset a single request probes the limit."""

    async def resumed() -> tuple[float, int]:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=HOUR)
        for _ in range(64):
            await complete_request(pacer, make_report(clock, remaining=200_000, resets_in=300 - clock.monotonic()))
        for _ in range(64):
            await pacer.acquire()
        for _ in range(64):
            pacer.release(make_report(clock, remaining=0, resets_in=300 - clock.monotonic()), 0.05)
            pacer.record_throttled()
        waiting = [asyncio.create_task(pacer.acquire()) for _ in range(10)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        when = clock.monotonic()
        await asyncio.sleep(5)
        done = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        return when, done

    when, done = run_virtual(resumed())
    assert 300 <= when <= 303
    assert done == 1


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (14.9, 0), (15, 1), (45, 2), (224, 3), (240, 4), (1e4, 36)])
def test_a_patience_allows_the_holds_that_fit(seconds, count):
    """A patience allows as many holds as fit into it; they last 15, 30, 60 seconds and so on up to five minutes."""
    assert count_overload_holds(seconds) == count


def test_a_429_at_the_end_of_a_window_costs_only_its_rest():
    """A 429 half a second before the reset costs half a second, and at most a hundredth more."""

    async def held_seconds() -> float:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        await complete_request(pacer, make_report(clock, remaining=200_000, resets_in=0.5))
        pacer.record_throttled()
        return pacer.state().held_seconds

    assert 0.5 <= run_virtual(held_seconds()) <= 0.505


def test_429s_without_headers_back_off_up_to_an_hour():
    """If no reset is reported, holds double and never exceed 61 minutes."""

    async def pauses() -> list[float]:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=2 * HOUR)
        found = []
        for _ in range(12):
            began = clock.monotonic()
            await pacer.acquire()
            found.append(clock.monotonic() - began)
            pacer.release(None, 0.05)
            pacer.record_throttled()
        return found[1:]

    found = run_virtual(pauses())
    assert found[0] < found[3] < found[6]
    assert max(found) <= 3661


def test_an_overloaded_server_is_probed_by_one_request():
    """Ten failures in a row hold all requests; a probe that succeeds begins the ramp."""

    async def story() -> tuple[str | None, int, int]:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=HOUR)
        for _ in range(10):
            assert pacer.find_long_hold() is None
            await pacer.acquire()
            pacer.release(None, 0.05)
            pacer.record_failure()
        held = pacer.state().hold_cause
        waiting, left = [asyncio.create_task(pacer.acquire()) for _ in range(5)], []
        for _ in range(2):
            await asyncio.sleep(20)
            left.append(sum(task.done() for task in waiting))
            pacer.release(None, 0.05)
            pacer.record_success()
        for task in waiting:
            task.cancel()
        return held, *left

    assert run_virtual(story()) == ("overloaded", 1, 3)


def test_a_halt_is_probed_every_ten_minutes_and_at_once_when_lifted():
    """A new key is tried without delay, but a hold that Braze asked for continues."""

    async def story() -> tuple:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=HOUR)
        await complete_request(pacer)
        pacer.halt()
        await pacer.acquire()
        pacer.release(None, 0.05)
        probed = clock.monotonic()
        pacer.halt()
        pacer.lift()
        lifted = pacer.state().hold_cause
        pacer.record_throttled()
        pacer.lift()
        return probed, lifted, pacer.state().hold_cause, pacer.state().requests

    probed, *rest = run_virtual(story())
    assert probed == pytest.approx(600, abs=1)
    assert rest == [None, "throttled", 2]


def test_stop_ends_every_wait():
    """A stop ends a wait of an hour for the reset at once."""

    async def stopped_after() -> float:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=2 * HOUR)
        await complete_request(pacer, make_report(clock, remaining=10))
        waiting = [asyncio.create_task(pacer.acquire()) for _ in range(8)]
        await asyncio.sleep(10)
        pacer.stop()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Held) and each.hold.cause is HoldCause.STOPPING for each in ended)
        return clock.monotonic()

    assert run_virtual(stopped_after()) < 12
