"""The data series of a send."""

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from harvester.model import DAY_SECONDS, Verdict
from tests.support.stand_in import NOW, TODAY, numbers, request_series, sends_of


def test_the_verdict_matches_the_body():
    """All three verdicts occur, mostly activity; each is true of the body, whatever days are requested."""
    verdicts = Counter()
    for each, length in itertools.product(sends_of(1000), (1, 14)):
        verdict, found = request_series(each, length=length)
        true = Verdict.ACTIVITY if any(value for *_, value in numbers(found)) else Verdict.ZERO
        assert verdict == (true if found["data"] else Verdict.EMPTY)
        assert found["message"] == "success"
        if length == 14:
            verdicts[verdict] += 1
    assert verdicts[Verdict.ACTIVITY] > 850
    assert min(verdicts[Verdict.ZERO], verdicts[Verdict.EMPTY]) > 5


def test_every_documented_channel_occurs():
    """Variations have names, e-mail can have a control group without ``sent``, revenue is a float."""
    channels, control = set(), 0
    for each in sends_of(2000):
        for _, place, name, value in numbers(request_series(each, length=1)[1]):
            assert isinstance(value, float if name == "revenue" else int)
            if place != "day":
                channels.add(place[0])
            if place == ("email", "Control Group"):
                control += name == "enrolled"
                assert name != "sent"
    assert channels == {
        "email", "ios_push", "android_push", "web_push", "sms", "whats_app", "content_cards", "webhook",
    }  # fmt: skip
    assert control


@pytest.mark.parametrize("length", [1, 14, 100])
def test_days_are_consecutive_and_filled_with_zeros(length):
    """As many days as requested, without a gap, each with every channel and counter, as recorded."""
    for each in sends_of(100):
        _, found = request_series(each, length=length)
        if found["data"]:
            days = [date.fromisoformat(day["time"]) for day in found["data"]]
            assert days == [TODAY - timedelta(days=back) for back in range(length - 1, -1, -1)]
            names = [[(place, name) for _, place, name, _ in numbers({"data": [day]})] for day in found["data"]]
            assert names == [names[0]] * length


def test_nothing_counts_before_the_send_or_after_now():
    """Days before the send and future days are zeros; the day of the send has everything that was sent."""
    for each in sends_of():
        verdict, found = request_series(each, ending_at=NOW + 5 * DAY_SECONDS, length=30)
        sent_on = datetime.fromtimestamp(each.sent_at, UTC).date().isoformat()
        busy = {day for day, *_, value in numbers(found) if value}
        assert busy <= {day["time"] for day in found["data"] if sent_on <= day["time"] <= TODAY.isoformat()}
        assert {day for day, _, name, value in numbers(found) if name == "sent" and value} <= {sent_on}
        assert (sent_on in busy) == (verdict == Verdict.ACTIVITY)


def test_late_conversions_change_a_past_day():
    """The day of the send has all conversions so far, whenever they happened: one reading is too early."""
    grown = 0
    for each in sends_of():
        totals = []
        for age_days in (1, 3, 13):
            _, found = request_series(each, each.sent_at + age_days * DAY_SECONDS, length=20)
            by_day = sum(value for _, place, name, value in numbers(found) if (place, name) == ("day", "conversions"))
            by_send = [value for _, place, name, value in numbers(found)
                       if (place, name) == ("day", "conversions_by_send_time") and value]  # fmt: skip
            assert by_send == ([by_day] if by_day else [])
            totals.append(by_day)
        assert totals == sorted(totals)
        grown += totals[-1] > totals[0]
    assert grown > 200


def test_counters_never_fall_until_the_send_expires():
    """As time passes each number of each day stays or grows; within an hour it stays."""
    for each in sends_of(60):
        before = None
        for hours in range(1, 14 * 24, 17):
            now = each.sent_at + hours * 3600
            found = request_series(each, now, ending_at=each.sent_at + 14 * DAY_SECONDS, length=16)[1]
            values = [value for *_, value in numbers(found)]
            assert before is None or all(old <= new for old, new in zip(before, values, strict=True))
            before = values
            hour = now // 3600 * 3600
            assert request_series(each, hour, ending_at=NOW) == request_series(each, hour + 3599, ending_at=NOW)


def test_a_future_send_is_unknown():
    """Its response equals that of a send that does not exist."""
    for each in sends_of(100):
        assert request_series(each, each.sent_at - 1, unknown_pairs="empty")[0] == Verdict.EMPTY


@pytest.mark.parametrize("unknown_pairs", ["zero", "empty"])
def test_an_expired_send_equals_an_unknown_one(unknown_pairs):
    """14 days after the send nothing is left, and no error says so. The user chooses days of zeros or no days."""
    for each in sends_of(100):
        expired = each.sent_at + 14 * DAY_SECONDS + 1
        series = request_series(each, expired, unknown_pairs=unknown_pairs)
        assert series[0] == Verdict(unknown_pairs)
        assert series == request_series(each, expired, sent_at=None, unknown_pairs=unknown_pairs)
        if request_series(each)[0] == Verdict.ACTIVITY:
            assert request_series(each, expired - 1, unknown_pairs=unknown_pairs, length=16)[0] == Verdict.ACTIVITY
