"""Tests of the parameters of a request."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.simulator.request import BadRequest, parse_request
from tests.support.stand_in import NOW


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["campaign_id", "send_id", "length", "ending_at"]), st.text()))
def test_any_query_is_parsed_or_refused(query):
    """Any query results in a request or a ``BadRequest``, never in another error."""
    try:
        request = parse_request(query, NOW)
    except BadRequest:
        return
    assert 1 <= request.length_days <= request.last_day


@pytest.mark.parametrize(
    ("ending_at", "last_day"),
    [
        (None, "2026-01-14"),
        ("2026-01-10T00:00:00Z", "2026-01-09"),
        ("2026-01-10T00:00:01Z", "2026-01-10"),
        ("2026-01-09T23:59:59-05:00", "2026-01-10"),
        ("2026-01-10T04:00:00+05:00", "2026-01-09"),
        ("2026-01-10T12:00:00", "2026-01-10"),
        ("2026-01-10", "2026-01-09"),
        ("9999-12-31T23:59:59Z", "9999-12-31"),
    ],
)
def test_the_series_ends_before_ending_at(ending_at, last_day):
    """With a midnight, the day that begins then is not included. A time without an offset is in UTC."""
    query = {"campaign_id": "c", "send_id": "s", "length": "1"} | ({"ending_at": ending_at} if ending_at else {})
    assert date.fromordinal(parse_request(query, NOW).last_day).isoformat() == last_day


@pytest.mark.parametrize(
    "ending_at",
    [
        "",
        "yesterday",
        "1e9",
        "0001-01-01",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-12:00",
        "2026-01-10T00:00:00 05:00",
    ],
)
def test_an_invalid_ending_at_is_refused(ending_at):
    """The error names the parameter if it is not an ISO 8601 datetime or is outside the calendar."""
    with pytest.raises(BadRequest, match="ending_at"):
        parse_request({"campaign_id": "c", "send_id": "s", "length": "100", "ending_at": ending_at}, NOW)
