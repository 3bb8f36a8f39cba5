"""The stand-in's quota."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.simulator.budget import SharedBudget


@settings(deadline=None)
@given(limit=st.integers(0, 20), steps=st.lists(st.floats(0, 30), max_size=60))
def test_no_window_allows_more_than_the_limit_and_each_begins_full(limit, steps):
    """However the calls are spread, each clock-aligned window grants its limit and not one call more."""
    budget = SharedBudget(limit, 60.0)
    allowed: dict[float, int] = {}
    for now in itertools.accumulate(steps):
        grant = budget.take(now)
        assert now < grant.reset_at <= now + 60
        assert grant.reset_at % 60 == 0
        before = allowed.get(grant.reset_at, 0)
        assert grant.allowed == (before < limit)
        allowed[grant.reset_at] = before + grant.allowed
        assert grant.remaining == limit - allowed[grant.reset_at]
    assert budget.refused == len(steps) - sum(allowed.values())


def test_a_limit_that_changes_midway_holds_at_once():
    """Raised or lowered, the next answer tells the new limit; ``remaining`` never goes below 0."""
    budget = SharedBudget(10, 60.0)
    for _ in range(6):
        budget.take(0.0)
    budget.limit = 4
    assert not (lowered := budget.take(1.0)).allowed
    assert (lowered.limit, lowered.remaining) == (4, 0)
    budget.limit = 20
    assert (raised := budget.take(2.0)).allowed
    assert (raised.limit, raised.remaining) == (20, 13)


def test_a_clock_that_is_set_back_refills_nothing():
    """Time that has passed does not come again: the window of the later time stays, and so does what it gave away."""
    budget = SharedBudget(2, 60.0)
    assert [budget.take(now).remaining for now in (60.0, 59.0, 0.0)] == [1, 0, 0]
    assert budget.refused == 1
