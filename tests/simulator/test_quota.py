"""The stand-in's quota."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.simulator.quota import SharedQuota


@settings(deadline=None)
@given(limit=st.integers(0, 20), steps=st.lists(st.floats(0, 30), max_size=60))
def test_each_window_grants_exactly_its_limit(limit, steps):
    """However the requests are spread, each window grants its limit and no request more."""
    quota = SharedQuota(limit, 60.0)
    allowed: dict[float, int] = {}
    for now in itertools.accumulate(steps):
        grant = quota.take(now)
        assert now < grant.reset_at <= now + 60
        assert grant.reset_at % 60 == 0
        before = allowed.get(grant.reset_at, 0)
        assert grant.allowed == (before < limit)
        allowed[grant.reset_at] = before + grant.allowed
        assert grant.remaining == limit - allowed[grant.reset_at]
    assert quota.refused == len(steps) - sum(allowed.values())


def test_a_changed_limit_applies_at_once():
    """Raised or lowered, the next response has the new limit; ``remaining`` is never below 0."""
    quota = SharedQuota(10, 60.0)
    for _ in range(6):
        quota.take(0.0)
    quota.limit = 4
    assert not (lowered := quota.take(1.0)).allowed
    assert (lowered.limit, lowered.remaining) == (4, 0)
    quota.limit = 20
    assert (raised := quota.take(2.0)).allowed
    assert (raised.limit, raised.remaining) == (20, 13)


def test_a_clock_that_is_set_back_refills_no_window():
    """The window of the later time stays, with what it has granted."""
    quota = SharedQuota(2, 60.0)
    assert [quota.take(now).remaining for now in (60.0, 59.0, 0.0)] == [1, 0, 0]
    assert quota.refused == 1
