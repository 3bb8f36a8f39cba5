"""Tests of the neighbours, the simulated other clients of the quota."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.simulator.neighbour import Bursty, Campaign, Steady, create_neighbour
from harvester.simulator.quota import SharedQuota
from tests.support.stand_in import neighbours


@settings(deadline=None)
@given(neighbour=neighbours, limit=st.integers(0, 300_000), cuts=st.lists(st.floats(0, 3600)))
def test_the_requests_of_a_neighbour_do_not_depend_on_how_often_it_is_charged(neighbour, limit, cuts):
    """Charged every 50 ms or once an hour, the sum is the same: no request is lost or counted twice."""
    times = sorted([0.0, *cuts, 3600.0])
    due = [neighbour.requests_due(limit, 3600.0, since, until) for since, until in itertools.pairwise(times)]
    assert min(due) >= 0
    assert sum(due) == neighbour.requests_due(limit, 3600.0, 0.0, 3600.0) <= neighbour.share * limit


def test_each_neighbour_follows_its_pattern():
    """Steady traffic is even, bursts have pauses between them, and a late campaign sends nothing before it starts."""
    minutes = [(60.0 * minute, 60.0 * minute + 60) for minute in range(60)]

    def per_minute(neighbour):
        return [neighbour.requests_due(6000, 3600.0, *minute) for minute in minutes]

    assert per_minute(Steady(0.5)) == [50] * 60
    assert per_minute(Bursty(0.5, burst_seconds=60, every_seconds=600)) == ([500] + [0] * 9) * 6
    late = per_minute(Campaign(0.5, starts_at_fraction=0.75, lasts_fraction=0.25))
    assert late[:45] == [0] * 45
    assert late[45:] == pytest.approx([200] * 15, abs=1)
    assert sum(late) == 3000
    assert sum(per_minute(Campaign(0.5, starts_at_fraction=0.75, lasts_fraction=0.5))) == 1500


@settings(deadline=None)
@given(neighbour=neighbours, times=st.lists(st.floats(0, 3599), min_size=1, max_size=40))
def test_our_requests_do_not_change_the_neighbour(neighbour, times):
    """The quota that is left depends on the clock and the number of our requests, not on their times."""
    quota = SharedQuota(1000, 3600.0, neighbour)
    grants = [quota.charge(now) for now in sorted(times)]
    ours = sum(grant.allowed for grant in grants)
    assert grants[-1].remaining == max(0, 1000 - ours - neighbour.requests_due(1000, 3600.0, 0.0, max(times)))


def test_refused_requests_of_the_neighbour_are_counted():
    """The count shows how a client that uses too much quota harms live sending."""
    quota = SharedQuota(100, 3600.0, Campaign(0.5, starts_at_fraction=0.5, lasts_fraction=0.5))
    assert sum(quota.charge(60.0).allowed for _ in range(80)) == 80
    quota.advance(3600.0)
    assert (quota.neighbour_refused, quota.neighbour_requests) == (30, 50)
    assert (quota.refused, quota.lowest_remaining) == (0, 0)
    assert quota.charge(3600.0).remaining == 99


def test_each_kind_of_neighbour_uses_its_share():
    """By the end of every window, each kind has used the given share."""
    for kind in ("steady", "bursty", "campaign"):
        assert create_neighbour(kind, 0.3, 600.0).requests_due(1000, 600.0, 0.0, 600.0) == pytest.approx(300, abs=1)
    assert create_neighbour("none", 0.3, 600.0) is None
    assert create_neighbour("steady", 0.0, 600.0) is None
    for kind, share in (("bursty", 0.0), ("noisy", 0.3)):
        with pytest.raises(UsageError, match=kind):
            create_neighbour(kind, share, 600.0)
