"""Tests of the quota of the stand-in."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.simulator.quota import SharedQuota


@settings(deadline=None)
@given(limit=st.integers(0, 20), steps=st.lists(st.floats(0, 30), max_size=60))
def test_each_window_grants_exactly_its_limit(limit, steps):
    """Whatever the times of the requests, each window allows its limit and no more."""
    quota = SharedQuota(limit, 60.0)
    allowed: dict[float, int] = {}
    for now in itertools.accumulate(steps):
        grant = quota.charge(now)
        assert now < grant.reset_at <= now + 60
        assert grant.reset_at % 60 == 0
        before = allowed.get(grant.reset_at, 0)
        assert grant.allowed == (before < limit)
        allowed[grant.reset_at] = before + grant.allowed
        assert grant.remaining == limit - allowed[grant.reset_at]
    assert quota.refused == len(steps) - sum(allowed.values())


def test_a_changed_limit_applies_at_once():
    """The next response has the new limit, higher or lower. ``remaining`` is never below 0."""
    quota = SharedQuota(10, 60.0)
    for _ in range(6):
        quota.charge(0.0)
    quota.limit = 4
    assert not (lowered := quota.charge(1.0)).allowed
    assert (lowered.limit, lowered.remaining) == (4, 0)
    quota.limit = 20
    assert (raised := quota.charge(2.0)).allowed
    assert (raised.limit, raised.remaining) == (20, 13)


def test_a_clock_that_is_set_back_does_not_start_a_new_window():
    """The later window stays the current one, with the requests that it has charged."""
    quota = SharedQuota(2, 60.0)
    assert [quota.charge(now).remaining for now in (60.0, 59.0, 0.0)] == [1, 0, 0]
    assert quota.refused == 1
