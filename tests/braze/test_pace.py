"""When requests may leave: the line, the pace and every hold, in virtual time."""

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial

import pytest

from benchmarks.measure.quota_simulation import Scenario, simulate
from harvester.braze.gate import Held, Hold, HoldCause, count_overload_holds
from harvester.braze.pace_state import PaceState
from harvester.braze.pacer import Pacer
from harvester.braze.quota import QuotaReport
from harvester.simulator.virtual_time import VirtualClock, run_virtual

HOUR = 3600.0
approx = partial(pytest.approx, rel=0.01)


def make_pacer(clock: VirtualClock, **settings_) -> Pacer:
    """Return a pacer; the test names only the settings that it is about."""
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


@pytest.mark.parametrize("neighbour", ["none", "steady", "bursty", "campaign"])
@pytest.mark.parametrize("harvesters", [1, 4, 8])
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
    """Two windows of work take about two windows."""
    result = simulate(Scenario(1, "none", limit=7000, window_seconds=100.0, starts_at_fraction=0.0))
    assert result.seconds < 1.1 * result.ideal_seconds


@pytest.mark.parametrize("rate", [1.0, 7.0, 69.4, 450.0, 2000.0])
def test_the_pace_is_kept_within_two_percent(rate):
    """At any rate, the total matches the rate, and no second has many more requests."""
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
    """If the pace does not limit, nearly all workers have a request in flight."""

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
    """At the start the quota is unknown, so one request finds it before others leave."""

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
    """A worker waits for seconds, but does not keep a leased reading for the rest of the hour."""

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


def test_state_returns_quota_hold_and_counts():
    """Page, metrics and progress show the quota, the cause of a hold, and its duration."""

    async def story() -> tuple[PaceState, ...]:
        clock = VirtualClock()
        pacer = make_pacer(clock, longest_wait_seconds=HOUR)
        states = [pacer.state()]
        await complete_request(pacer, make_report(clock, remaining=200_000, resets_in=600))
        await pacer.acquire()
        states.append(pacer.state())
        assert "remaining=200000" in repr(pacer)
        pacer.release(None, 0.05)
        pacer.record_throttled()
        states.append(pacer.state())
        await pacer.acquire()
        return *states, pacer.state()

    nothing = PaceState(
        pace=1000.0, limit=0, remaining=0, reserve_requests=0, seconds_to_reset=0.0, in_flight=0, hold_cause=None,
        held_seconds=0.0, holds_in_a_row=0, requests=0, throttled=0, waited_seconds=0.0, answered=False,
    )  # fmt: skip
    before, at_work, held, after = run_virtual(story())
    assert before == nothing
    assert at_work == replace(
        nothing, limit=250_000, remaining=200_000, reserve_requests=50_000, seconds_to_reset=approx(600),
        pace=approx(250), in_flight=1, requests=2, answered=True,
    )  # fmt: skip
    assert held == replace(
        at_work, pace=0.0, in_flight=0, hold_cause="throttled", held_seconds=approx(600), throttled=1
    )
    assert after == replace(
        held, pace=1000.0, seconds_to_reset=0.0, in_flight=1, requests=3, waited_seconds=approx(600),
        hold_cause=None, held_seconds=0.0,
    )  # fmt: skip


def test_log_fields_omit_what_no_response_has_reported():
    """Zeros and the maximum rate would look like facts before the first response."""

    async def story() -> list[dict[str, float]]:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        figures = [pacer.state().log_fields(idle=False)]
        await complete_request(pacer, make_report(clock, remaining=200_000, resets_in=600))
        figures += [pacer.state().log_fields(idle=idle) for idle in (False, True)]
        await asyncio.sleep(700)
        return [*figures, pacer.state().log_fields(idle=False)]

    quota = {"remaining_requests": 200_000, "limit_requests": 250_000}
    pace = {"requests_per_minute": approx(15_000)}
    assert run_virtual(story()) == [{}, pace | quota, quota, {}]


def test_many_429s_at_once_are_one_hold_until_the_reset():
    """Sixty-four 429s cause one hold; after the reset one request probes."""

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
    """Holds of 15, 30, 60 seconds and so on, up to five minutes each."""
    assert count_overload_holds(seconds) == count


def test_a_429_at_the_end_of_a_window_costs_only_its_rest():
    """The hold lasts half a second and a random hundredth of it, not longer."""

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
    """A new key is tried without delay. It lifts a halt, but no hold that Braze asked for."""

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


def test_retries_stay_below_a_fifth_of_the_readings():
    """At most 1.2 requests per reading, and a few at the start."""

    async def allowed() -> int:
        clock = VirtualClock()
        pacer = make_pacer(clock)
        retried = 0
        for _ in range(1000):
            await complete_request(pacer)
            retried += pacer.may_retry()
        return retried

    assert 0.2 * 1000 <= run_virtual(allowed()) <= 0.2 * 1000 + 20


def test_stop_ends_every_wait():
    """A wait of an hour for the reset ends when the pacer is stopped."""

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
