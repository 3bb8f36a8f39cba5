"""The quota of a window: parsing of headers, the line down to the reserve, and the share of this process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.braze.quota import Quota, QuotaReport


def test_a_sudden_fall_needs_a_second_response():
    """One response that reports a used-up quota does not stop requests, but a second one does."""
    quota = Quota(0.2)
    now = 100.0

    def report(remaining: int) -> QuotaReport:
        return QuotaReport(limit=1000, remaining=remaining, reset_at=5000.0, server_time=2000.0)

    quota.observe(report(900), now)
    quota.observe(report(0), now + 1)
    assert quota.remaining == 900
    assert quota.suspicious
    quota.observe(report(0), now + 2)
    assert (quota.remaining, quota.suspicious) == (0, False)


def test_responses_of_the_last_window_change_nothing():
    """A late response of the last window changes nothing, and a doubt ends with its window."""
    quota = Quota(0.2)
    observe(quota, 0.0, 900)
    observe(quota, 2999.0, 0)
    assert quota.suspicious
    observe(quota, 3001.0, 990, reset_at=8600.0)
    observe(quota, 3002.0, 899)
    assert (quota.remaining, quota.suspicious) == (990, False)


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
def test_invalid_headers_are_ignored(headers):
    """Headers that are absent, empty, negative, in milliseconds or ten years ahead leave the quota unchanged."""
    quota = Quota(0.2)
    quota.observe(QuotaReport.from_headers(headers | {"Date": "Thu, 01 Jan 2026 00:30:00 GMT"}), 10.0)
    assert not quota.has_window


def test_an_invalid_date_is_ignored():
    """The quota of a response counts even if its ``Date`` is invalid."""
    assert QuotaReport.from_headers({"Date": "Thu, 01 Jan 99999999999 00:00:00 GMT"}).server_time is None


def observe(quota: Quota, now: float, remaining: int, *, limit: int = 1000, reset_at: float = 5000.0) -> None:
    """Observe a response, with Braze's clock 2000 s ahead of ours."""
    quota.observe(QuotaReport(limit, remaining, reset_at, now + 2000.0), now)


def test_the_headers_of_a_response_are_parsed():
    """The limit, the remaining requests, the reset and Braze's time are parsed as Braze writes them."""
    headers = {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1767229200"}
    report = QuotaReport.from_headers(headers | {"Date": "Thu, 01 Jan 2026 00:30:00 GMT"})
    assert report == QuotaReport(250_000, 0, 1_767_229_200, 1_767_227_400.0)


def test_a_small_unused_quota_is_used():
    """With an unused quota of a thousand requests an hour, one request is sent about every five seconds."""
    quota = Quota(0.2)
    observe(quota, 0.0, 1000, reset_at=5600.0)
    assert quota.pace(0.0, in_flight=0, latency_seconds=0.1) == pytest.approx(800 / 3600, rel=0.01)


def test_unused_quota_is_made_up_at_a_quarter_more():
    """If nothing was used for half a window, the pace is a quarter higher, and not twice as high."""
    quota = Quota(0.2)
    observe(quota, 0.0, 1000, reset_at=5600.0)
    assert quota.pace(1800.0, in_flight=0, latency_seconds=0.1) == pytest.approx(1.25 * 797 / 3600)


def test_requests_in_flight_count_as_used():
    """With ten requests left above the reserve and ten in flight, the eleventh waits."""
    quota = Quota(0.2)
    observe(quota, 0.0, 210)
    pace = [quota.pace(0.0, in_flight=in_flight, latency_seconds=0.1) for in_flight in (0, 10)]
    assert pace[0] > 0 == pace[1]


def test_no_fraction_of_a_request_is_taken_from_the_reserve():
    """If only 0.2 requests are left above the reserve, no request is sent."""
    quota = Quota(0.2)
    observe(quota, 0.0, 1004, limit=1004)
    for _ in range(2):  # so deep a fall is not believed at once
        observe(quota, 2999.0, 201, limit=1004)
    assert quota.pace(2999.0, in_flight=0, latency_seconds=0.01) == 0


@pytest.mark.parametrize(("limit", "remaining", "allowed"), [(1000, 203, False), (1000, 204, True), (20, 6, True)])
def test_requests_that_do_not_know_the_quota_leave_the_reserve_alone(limit, remaining, allowed):
    """Three requests above the reserve of 20 % stay for processes that start at the end of a window, or fewer."""
    quota = Quota(0.2)
    observe(quota, 0.0, limit, limit=limit)
    for _ in range(2):  # so deep a fall is not believed at once
        observe(quota, 3500.0, remaining, limit=limit)
    assert (quota.spare(0) >= 1) is allowed


def test_requests_without_a_report_count_as_ours():
    """Requests that timed out count as our own. A larger fall means other clients, and reduces the share."""
    quota = Quota(0.2)
    observe(quota, 0.0, 900)
    for _ in range(3):
        quota.observe(QuotaReport(), 0.0)
    observe(quota, 0.0, 896)
    assert quota.share == 1.0
    observe(quota, 0.0, 892)
    assert quota.share == pytest.approx(5 / 8)
    assert quota.spare(10) == pytest.approx(892 - 16 - 203)  # others like us have six on their way
    observe(quota, 5.0, 891)
    assert quota.share == pytest.approx(1.0, rel=0.05)  # they have gone


@pytest.mark.parametrize(("missed_seconds", "window_seconds"), [(0, 100), (0, 1000), (36_000, 3600)])
def test_below_the_line_we_wait_as_long_as_wait_seconds_returns(missed_seconds, window_seconds):
    """If the quota is two percent of the window below the line, no request is sent until the line has come down."""
    quota = Quota(0.2)
    observe(quota, 0.0, 1000, reset_at=2050.0)
    now, reset_at = missed_seconds + 60.0, missed_seconds + 2050.0 + window_seconds
    observe(quota, now, 1000, reset_at=reset_at)
    observe(quota, now, 960, reset_at=reset_at)  # at once, so some five percent ahead of time

    def pace(at: float) -> float:
        return quota.pace(at, in_flight=0, latency_seconds=0.01)

    wait = quota.wait_seconds(now, in_flight=0)
    assert wait == pytest.approx(0.03 * window_seconds, rel=0.2)
    assert pace(now + 0.9 * wait) == 0 < pace(now + 1.1 * wait)
    assert quota.wait_seconds(now + 1.1 * wait, in_flight=0) == 0


@settings(max_examples=300, deadline=None)
@given(
    reports=st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 300), st.integers(0, 8000), st.integers(0, 8000), st.floats(0, 60)
        ),
        max_size=60,
    ),
    in_flight=st.integers(0, 64),
)
def test_the_pace_is_finite_for_any_responses(reports, in_flight):
    """For any responses in any order, the pace is finite and the wait ends with the window."""
    quota, now = Quota(0.2), 0.0
    for limit, remaining, reset_at, server_time, elapsed in reports:
        now += elapsed
        quota.observe(QuotaReport(limit, remaining, float(reset_at), float(server_time)), now)
        if not quota.has_window:
            continue
        pace = quota.pace(now, in_flight=in_flight, latency_seconds=0.1)
        wait = quota.wait_seconds(now, in_flight=in_flight)
        assert -1e9 < pace < 1e9
        assert 0 <= wait <= 3700
        if quota.remaining <= 0.2 * quota.limit:
            assert pace == 0
