"""When calls may leave: the line, the pace, and every reason to stop. All of it on virtual time."""

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure.quota_simulation import Scenario, simulate
from harvester.braze.budget import Budget, BudgetReport
from harvester.braze.gate import Held, Hold, HoldCause, count_overload_holds
from harvester.braze.pace_state import PaceState
from harvester.braze.pacer import Pacer
from harvester.simulator.virtual_time import VirtualClock, run_virtual

HOUR = 3600.0
approx = partial(pytest.approx, rel=0.01)


def pacer_of(clock: VirtualClock, **given) -> Pacer:
    """A pacer of which only what matters is named."""
    return Pacer(**({"reserve": 0.2, "max_rate": 1000.0, "clock": clock, "jitter": random.Random(1)} | given))


def told(clock: VirtualClock, *, remaining: int, limit: int = 250_000, resets_in: float = HOUR) -> BudgetReport:
    """What an answer tells, with Braze's clock an hour ahead of ours."""
    now = clock.wall() + HOUR
    return BudgetReport(limit=limit, remaining=remaining, reset_at=now + resets_in, server_time=now)


async def answered(pacer: Pacer, report: BudgetReport | None = None) -> None:
    """One good exchange."""
    await pacer.acquire()
    pacer.release(report, 0.05)
    pacer.record_success()


@pytest.mark.parametrize("neighbour", ["none", "steady", "bursty", "campaign"])
@pytest.mark.parametrize("harvesters", [1, 4, 8])
@pytest.mark.parametrize("window_seconds", [50.0, 5.0])
def test_live_sending_is_never_refused(harvesters, neighbour, window_seconds):
    """Harvesters that don't know of each other leave live sending all it needs, and do not draw on the reserve.

    But for what was in flight when others crossed it, and as much again that left before the news came back.
    """
    limit = round(70 * window_seconds)
    result = simulate(Scenario(harvesters, neighbour, limit=limit, window_seconds=window_seconds, windows=1.5))
    assert result.neighbour_refused == 0
    assert result.throttled == 0
    assert result.calls_below_reserve <= 2 * result.most_in_flight


def test_the_whole_share_is_used():
    """Alone with the budget, two windows' work takes about two windows: polite is not idle."""
    result = simulate(Scenario(1, "none", limit=7000, window_seconds=100.0, starts_at_fraction=0.0))
    assert result.seconds < 1.1 * result.ideal_seconds


@pytest.mark.parametrize("rate", [1.0, 7.0, 69.4, 450.0, 2000.0])
def test_the_pace_holds_within_two_percent(rate):
    """Whatever the rate, so many seconds' calls are those of the rate, and no second has many more."""
    seconds = 60 if rate < 100 else 15

    async def calls_by_second() -> list[int]:
        clock = VirtualClock()
        pacer = pacer_of(clock, max_rate=rate)
        for _ in range(64):  # past the ramp
            await answered(pacer)
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

    counts = run_virtual(calls_by_second())
    assert sum(counts) == pytest.approx(seconds * rate, rel=0.02)
    assert max(counts) <= max(rate * 1.15, rate + 1)


def test_quick_answers_leave_no_line_at_the_pacer():
    """Where the pace is no matter, nearly all workers have a call in flight: none stands in line for another."""

    async def most_in_flight() -> int:
        pacer = pacer_of(VirtualClock(), max_rate=100_000.0)

        async def work() -> int:
            most = 0
            for _ in range(20):
                await pacer.acquire()
                most = max(most, pacer.state().in_flight)
                await asyncio.sleep(0)  # the answer is there at once
                pacer.release(None, 0.0)
                pacer.record_success()
            return most

        return max(await asyncio.gather(*(work() for _ in range(64))))

    assert run_virtual(most_in_flight()) > 50


def test_the_first_call_goes_alone_until_it_is_answered():
    """At start nobody knows what is left, so one call finds out before others leave."""

    async def in_flight() -> tuple[int, int]:
        clock = VirtualClock()
        pacer = pacer_of(clock)
        waiting = [asyncio.create_task(pacer.acquire()) for _ in range(5)]
        await asyncio.sleep(1)
        alone = sum(task.done() for task in waiting)
        pacer.release(told(clock, remaining=200_000), 0.05)
        pacer.record_success()
        await asyncio.sleep(1)
        ramped = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        return alone, ramped

    assert run_virtual(in_flight()) == (1, 3)


def test_below_the_reserve_nothing_leaves_before_the_reset():
    """A spent budget is held until the reset by Braze's clock, an hour ahead of ours, and then asked by one call."""

    async def resumed_after() -> float:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=HOUR)
        await answered(pacer, told(clock, remaining=50_000, resets_in=600))
        began = clock.monotonic()
        await pacer.acquire()
        return clock.monotonic() - began

    assert run_virtual(resumed_after()) == pytest.approx(600, abs=2)


def test_a_long_wait_is_refused_so_that_readings_can_go_back():
    """A worker does not sit on a leased reading for the rest of the hour, but for some seconds it does."""

    async def held() -> tuple[Hold, str]:
        clock = VirtualClock()
        pacer = pacer_of(clock)
        await asyncio.sleep(10)
        await answered(pacer, told(clock, remaining=10, resets_in=3))
        assert pacer.find_hold() is None
        await pacer.acquire()
        pacer.release(None, 0.05)
        await answered(pacer, told(clock, remaining=10))
        with pytest.raises(Held) as caught:
            await pacer.acquire()
        return caught.value.hold, str(caught.value)

    hold, message = run_virtual(held())
    assert (hold.cause, message) == (HoldCause.RATE_LIMITED, "held because of rate_limited")
    assert hold.until == approx(HOUR + 13)


def test_what_it_is_doing_is_told_in_figures():
    """Page, metrics and progress show what is left of the window, why nothing leaves, and for how long."""

    async def story() -> tuple[PaceState, ...]:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=HOUR)
        states = [pacer.state()]
        await answered(pacer, told(clock, remaining=200_000, resets_in=600))
        await pacer.acquire()
        states.append(pacer.state())
        assert "remaining=200000" in repr(pacer)
        pacer.release(None, 0.05)
        pacer.record_throttled()
        states.append(pacer.state())
        await pacer.acquire()
        return *states, pacer.state()

    nothing = PaceState(
        pace=1000.0, limit=0, remaining=0, reserve_requests=0, seconds_to_reset=0.0, in_flight=0, held_because=None,
        held_seconds=0.0, holds_in_a_row=0, requests=0, throttled=0, waited_seconds=0.0, answered=False,
    )  # fmt: skip
    before, at_work, held, after = run_virtual(story())
    assert before == nothing
    assert at_work == replace(
        nothing, limit=250_000, remaining=200_000, reserve_requests=50_000, seconds_to_reset=approx(600),
        pace=approx(250), in_flight=1, requests=2, answered=True,
    )  # fmt: skip
    assert held == replace(
        at_work, pace=0.0, in_flight=0, held_because="throttled", held_seconds=approx(600), throttled=1
    )
    assert after == replace(
        held, pace=1000.0, seconds_to_reset=0.0, in_flight=1, requests=3, waited_seconds=approx(600),
        held_because=None, held_seconds=0.0,
    )  # fmt: skip


def test_only_figures_that_are_known_are_logged():
    """Zeros and the highest rate, before an answer has told the budget, look like facts."""

    async def story() -> list[dict[str, float]]:
        clock = VirtualClock()
        pacer = pacer_of(clock)
        figures = [pacer.state().log_fields(idle=False)]
        await answered(pacer, told(clock, remaining=200_000, resets_in=600))
        figures += [pacer.state().log_fields(idle=idle) for idle in (False, True)]
        await asyncio.sleep(700)
        return [*figures, pacer.state().log_fields(idle=False)]

    budget = {"remaining_requests": 200_000, "limit_requests": 250_000}
    pace = {"requests_per_minute": approx(15_000)}
    assert run_virtual(story()) == [{}, pace | budget, budget, {}]


def test_a_429_stops_everyone_until_the_reset_and_is_one_lesson():
    """Sixty-four 429s at once are one pause; after the reset one call probes."""

    async def resumed() -> tuple[float, int]:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=HOUR)
        for _ in range(64):
            await answered(pacer, told(clock, remaining=200_000, resets_in=300 - clock.monotonic()))
        for _ in range(64):
            await pacer.acquire()
        for _ in range(64):
            pacer.release(told(clock, remaining=0, resets_in=300 - clock.monotonic()), 0.05)
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


def test_a_429_at_the_very_end_of_a_window_costs_no_more_than_its_rest():
    """Half a second and a hundredth of it, by chance, and no pause beyond the window."""

    async def held_seconds() -> float:
        clock = VirtualClock()
        pacer = pacer_of(clock)
        await answered(pacer, told(clock, remaining=200_000, resets_in=0.5))
        pacer.record_throttled()
        return pacer.state().held_seconds

    assert 0.5 <= run_virtual(held_seconds()) <= 0.505


def test_429s_without_headers_back_off_longer_and_longer_up_to_an_hour():
    """Where nothing tells of a reset, pauses double and never exceed 61 minutes."""

    async def pauses() -> list[float]:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=2 * HOUR)
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


def test_an_overloaded_server_is_probed_by_one_call_and_recovers():
    """Ten failures in a row hold all calls; a probe that succeeds lets the ramp go on."""

    async def story() -> tuple[str | None, int, int]:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=HOUR)
        for _ in range(10):
            assert pacer.find_hold() is None
            await pacer.acquire()
            pacer.release(None, 0.05)
            pacer.record_failure()
        held = pacer.state().held_because
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


def test_a_halt_is_probed_every_ten_minutes_and_at_once_when_it_may_be_mended():
    """A new key is tried without delay; it lifts a halt, and no pause that Braze asked for."""

    async def story() -> tuple:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=HOUR)
        await answered(pacer)
        pacer.halt()
        await pacer.acquire()
        pacer.release(None, 0.05)
        probed = clock.monotonic()
        pacer.halt()
        pacer.lift()
        mended = pacer.state().held_because
        pacer.record_throttled()
        pacer.lift()
        return probed, mended, pacer.state().held_because, pacer.state().requests

    probed, *rest = run_virtual(story())
    assert probed == pytest.approx(600, abs=1)
    assert rest == [None, "throttled", 2]


def test_retries_stay_below_a_fifth_of_the_readings():
    """In a storm the wire sees at most 1.2 calls a reading, and a few to begin with."""

    async def allowed() -> int:
        clock = VirtualClock()
        pacer = pacer_of(clock)
        retried = 0
        for _ in range(1000):
            await answered(pacer)
            retried += pacer.may_retry()
        return retried

    assert 0.2 * 1000 <= run_virtual(allowed()) <= 0.2 * 1000 + 20


def test_stop_ends_every_wait_at_once():
    """A wait of an hour for budget ends the moment the harvest is told to stop."""

    async def stopped_after() -> float:
        clock = VirtualClock()
        pacer = pacer_of(clock, longest_wait_seconds=2 * HOUR)
        await answered(pacer, told(clock, remaining=10))
        waiting = [asyncio.create_task(pacer.acquire()) for _ in range(8)]
        await asyncio.sleep(10)
        pacer.stop()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Held) and each.hold.cause is HoldCause.STOPPING for each in ended)
        return clock.monotonic()

    assert run_virtual(stopped_after()) < 12


def test_a_lone_outlier_needs_a_second_answer():
    """One answer that says the budget is spent does not stop a harvest; two do."""
    budget = Budget(0.2)
    now = 100.0

    def report(remaining: int) -> BudgetReport:
        return BudgetReport(limit=1000, remaining=remaining, reset_at=5000.0, server_time=2000.0)

    budget.observe(report(900), now)
    budget.observe(report(0), now + 1)
    assert budget.remaining == 900
    assert budget.suspicious
    budget.observe(report(0), now + 2)
    assert (budget.remaining, budget.suspicious) == (0, False)


def test_each_window_is_a_new_one_and_an_answer_of_the_last_one_changes_nothing():
    """Answers come out of order; and a doubt ends with the window that it was about."""
    budget = Budget(0.2)
    seen(budget, 0.0, 900)
    seen(budget, 2999.0, 0)
    assert budget.suspicious
    seen(budget, 3001.0, 990, reset_at=8600.0)
    seen(budget, 3002.0, 899)
    assert (budget.remaining, budget.suspicious) == (990, False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Limit": "", "X-RateLimit-Remaining": "", "X-RateLimit-Reset": ""},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1767229200000"},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "-7"},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1767229200.5"},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "2082758400"},
        {"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "250000", "X-RateLimit-Reset": "1767229200"},
        {"X-RateLimit-Limit": "9" * 400, "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1767229200"},
    ],
)
def test_headers_that_make_no_sense_are_not_believed(headers):
    """Absent, empty, negative, in milliseconds, ten years ahead: the budget stays as it was."""
    budget = Budget(0.2)
    budget.observe(BudgetReport.from_headers(headers | {"Date": "Thu, 01 Jan 2026 00:30:00 GMT"}), 10.0)
    assert not budget.has_window


def test_a_date_that_no_calendar_has_is_not_believed():
    """A nonsense Date is a header that tells nothing, not an error."""
    assert BudgetReport.from_headers({"Date": "Thu, 01 Jan 99999999999 00:00:00 GMT"}).server_time is None


def seen(budget: Budget, now: float, remaining: int, *, limit: int = 1000, reset_at: float = 5000.0) -> None:
    """An answer, with Braze's clock 2000 s ahead of ours."""
    budget.observe(BudgetReport(limit, remaining, reset_at, now + 2000.0), now)


def test_the_headers_of_an_answer_are_read():
    """Limit, remaining, reset and the server's own clock, as Braze writes them."""
    headers = {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1767229200"}
    report = BudgetReport.from_headers(headers | {"Date": "Thu, 01 Jan 2026 00:30:00 GMT"})
    assert report == BudgetReport(250_000, 0, 1_767_229_200, 1_767_227_400.0)


def test_an_untouched_and_small_budget_is_used():
    """A thousand calls an hour, none of them spent yet: a call leaves every five seconds or so, not never."""
    budget = Budget(0.2)
    seen(budget, 0.0, 1000, reset_at=5600.0)
    assert budget.pace(0.0, in_flight=0, latency_seconds=0.1) == pytest.approx(800 / 3600, rel=0.01)


def test_what_was_left_lying_is_made_up_for_by_a_quarter_more_and_not_in_a_rush():
    """Half a window later nothing is spent: not twice the pace, which others would feel, but a quarter more."""
    budget = Budget(0.2)
    seen(budget, 0.0, 1000, reset_at=5600.0)
    assert budget.pace(1800.0, in_flight=0, latency_seconds=0.1) == approx(1.25 * 800 / 3600)


def test_calls_that_are_on_their_way_are_spent_already():
    """Ten calls above the reserve and ten in flight: the eleventh waits."""
    budget = Budget(0.2)
    seen(budget, 0.0, 210)
    pace = [budget.pace(0.0, in_flight=calls, latency_seconds=0.1) for calls in (0, 10)]
    assert pace[0] > 0 == pace[1]


def test_not_a_part_of_a_call_is_taken_from_the_reserve():
    """At the end of a window 0.2 calls are to spare, by the line and by the reserve; a call needs a whole one."""
    budget = Budget(0.2)
    seen(budget, 0.0, 1004, limit=1004)
    for _ in range(2):  # so deep a fall is not believed at once
        seen(budget, 2999.0, 201, limit=1004)
    assert budget.pace(2999.0, in_flight=0, latency_seconds=0.01) == 0


def test_calls_whose_answers_told_nothing_are_known_to_be_ours():
    """Our own timeouts do not pass for a neighbour; what falls without us does, and we take our share."""
    budget = Budget(0.2)
    seen(budget, 0.0, 900)
    for _ in range(3):
        budget.observe(BudgetReport(), 0.0)
    seen(budget, 0.0, 896)
    assert budget.share == 1.0
    seen(budget, 0.0, 892)
    assert budget.share == pytest.approx(5 / 8)
    assert budget.spare(10) == pytest.approx(892 - 16 - 200)  # others like us have six on their way
    seen(budget, 5.0, 891)
    assert budget.share == pytest.approx(1.0, rel=0.05)  # they have gone


@pytest.mark.parametrize(("missed_seconds", "window_seconds"), [(0, 100), (0, 1000), (36_000, 3600)])
def test_behind_the_line_we_wait_as_long_as_is_told(missed_seconds, window_seconds):
    """Two percent of the window behind the line nothing leaves; once the line has come down that far, calls do."""
    budget = Budget(0.2)
    seen(budget, 0.0, 1000, reset_at=2050.0)
    now, reset_at = missed_seconds + 60.0, missed_seconds + 2050.0 + window_seconds
    seen(budget, now, 1000, reset_at=reset_at)
    seen(budget, now, 960, reset_at=reset_at)  # at once, so some five percent ahead of time

    def pace(at: float) -> float:
        return budget.pace(at, in_flight=0, latency_seconds=0.01)

    wait = budget.wait_seconds(now, in_flight=0)
    assert wait == pytest.approx(0.03 * window_seconds, rel=0.2)
    assert pace(now + 0.9 * wait) == 0 < pace(now + 1.1 * wait)
    assert budget.wait_seconds(now + 1.1 * wait, in_flight=0) == 0


@settings(max_examples=300, deadline=None)
@given(
    answers=st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 300), st.integers(0, 8000), st.integers(0, 8000), st.floats(0, 60)
        ),
        max_size=60,
    ),
    in_flight=st.integers(0, 64),
)
def test_no_answers_make_the_budget_ask_for_the_impossible(answers, in_flight):
    """Whatever answers say and in whatever order, the pace is a finite number and the wait ends with the window."""
    budget, now = Budget(0.2), 0.0
    for limit, remaining, reset_at, server_time, elapsed in answers:
        now += elapsed
        budget.observe(BudgetReport(limit, remaining, float(reset_at), float(server_time)), now)
        if not budget.has_window:
            continue
        pace = budget.pace(now, in_flight=in_flight, latency_seconds=0.1)
        wait = budget.wait_seconds(now, in_flight=in_flight)
        assert -1e9 < pace < 1e9
        assert 0 <= wait <= 3700
        if budget.remaining <= 0.2 * budget.limit:
            assert pace == 0
