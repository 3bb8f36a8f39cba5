"""The state of a pacer: what the status page, metrics and logs show."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from harvester.braze.pace_state import PaceState
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.pacer import HOUR, complete_request, make_pacer, make_report

approx = partial(pytest.approx, rel=0.01)


def test_state_returns_quota_hold_and_counts():
    """The status page, metrics and progress show the quota, the cause of a hold, and its duration."""

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
    """Before the first response, the logs show no quota and no rate."""

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
