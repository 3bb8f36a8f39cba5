"""Tests of the data series of a send."""

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from harvester.model import DAY_SECONDS, Verdict
from tests.support.stand_in import NOW, TODAY, compute_series_of, generate_sends, list_counters


def test_the_verdict_matches_the_body():
    """All three verdicts occur, mostly activity. Each is correct for the body, whatever days are requested."""
    verdicts = Counter()
    for each, length in itertools.product(generate_sends(1000), (1, 14)):
        verdict, series = compute_series_of(each, length=length)
        expected = Verdict.ACTIVITY if any(value for *_, value in list_counters(series)) else Verdict.ZERO
        assert verdict == (expected if series["data"] else Verdict.EMPTY)
        assert series["message"] == "success"
        if length == 14:
            verdicts[verdict] += 1
    assert verdicts[Verdict.ACTIVITY] > 850
    assert min(verdicts[Verdict.ZERO], verdicts[Verdict.EMPTY]) > 5


def test_every_documented_channel_occurs():
    """Variations have names, email can have a control group without ``sent``, and revenue is a float."""
    channels, control_groups = set(), 0
    for each in generate_sends(2000):
        for _, place, name, value in list_counters(compute_series_of(each, length=1)[1]):
            assert isinstance(value, float if name == "revenue" else int)
            if place != "day":
                channels.add(place[0])
            if place == ("email", "Control Group"):
                control_groups += name == "enrolled"
                assert name != "sent"
    expected = "email ios_push android_push web_push sms whats_app content_cards webhook"
    assert channels == set(expected.split())
    assert control_groups


@pytest.mark.parametrize("length", [1, 14, 100])
def test_days_are_consecutive_and_filled_with_zeros(length):
    """The series has as many days as requested, without gaps. Each has every channel and counter, as recorded."""
    for each in generate_sends(100):
        _, series = compute_series_of(each, length=length)
        if series["data"]:
            days = [date.fromisoformat(day["time"]) for day in series["data"]]
            assert days == [TODAY - timedelta(days=back) for back in range(length - 1, -1, -1)]
            names = [[(place, name) for _, place, name, _ in list_counters({"data": [day]})] for day in series["data"]]
            assert names == [names[0]] * length


def test_nothing_counts_before_the_send_or_after_now():
    """Days before the send and future days contain zeros. ``sent`` counts only on the day of the send."""
    for each in generate_sends():
        verdict, series = compute_series_of(each, ending_at=NOW + 5 * DAY_SECONDS, length=30)
        sent_on = datetime.fromtimestamp(each.sent_at, UTC).date().isoformat()
        active_days = {day for day, *_, value in list_counters(series) if value}
        assert active_days <= {day["time"] for day in series["data"] if sent_on <= day["time"] <= TODAY.isoformat()}
        assert {day for day, _, name, value in list_counters(series) if name == "sent" and value} <= {sent_on}
        assert (sent_on in active_days) == (verdict == Verdict.ACTIVITY)


def test_late_conversions_change_a_past_day():
    """The row of the day of the send contains all conversions so far, so one early reading is not enough."""
    sends_with_growth = 0
    for each in generate_sends():
        totals = []
        for age_days in (1, 3, 13):
            _, series = compute_series_of(each, each.sent_at + age_days * DAY_SECONDS, length=20)
            by_day = sum(
                value for _, place, name, value in list_counters(series) if (place, name) == ("day", "conversions")
            )
            by_send = [
                value
                for _, place, name, value in list_counters(series)
                if (place, name) == ("day", "conversions_by_send_time") and value
            ]
            assert by_send == ([by_day] if by_day else [])
            totals.append(by_day)
        assert totals == sorted(totals)
        sends_with_growth += totals[-1] > totals[0]
    assert sends_with_growth > 200


def test_counters_never_fall_until_the_send_expires():
    """Each number of each day stays the same or grows. Within an hour it stays the same."""
    for each in generate_sends(20):
        before = None
        for hours in range(1, 14 * 24, 17):
            now = each.sent_at + hours * 3600
            series = compute_series_of(each, now, ending_at=each.sent_at + 14 * DAY_SECONDS, length=16)[1]
            values = [value for *_, value in list_counters(series)]
            assert before is None or all(old <= new for old, new in zip(before, values, strict=True))
            before = values
            hour = now // 3600 * 3600
            assert compute_series_of(each, hour, ending_at=NOW) == compute_series_of(each, hour + 3599, ending_at=NOW)


def test_a_future_send_is_unknown():
    """Its response is the same as that for a send that does not exist."""
    for each in generate_sends(100):
        assert compute_series_of(each, each.sent_at - 1, unknown_pairs="empty")[0] == Verdict.EMPTY


@pytest.mark.parametrize("unknown_pairs", ["zero", "empty"])
def test_an_expired_send_gets_the_response_of_an_unknown_one(unknown_pairs):
    """14 days after the send, the response has no numbers. A setting chooses days of zeros or no days."""
    for each in generate_sends(100):
        expired = each.sent_at + 14 * DAY_SECONDS + 1
        series = compute_series_of(each, expired, unknown_pairs=unknown_pairs)
        assert series[0] == Verdict(unknown_pairs)
        assert series == compute_series_of(each, expired, sent_at=None, unknown_pairs=unknown_pairs)
        if compute_series_of(each)[0] == Verdict.ACTIVITY:
            assert compute_series_of(each, expired - 1, unknown_pairs=unknown_pairs, length=16)[0] == Verdict.ACTIVITY
