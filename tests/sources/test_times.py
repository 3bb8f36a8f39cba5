"""Tests of times as databases, spreadsheets and programs write them."""

import itertools
import json
from datetime import UTC, datetime

import pytest

from harvester.errors import UsageError
from harvester.sources import ListOptions
from harvester.sources.times import EARLIEST_NUMBER, LATEST_NUMBER, UNITS
from tests.support.lists import HEADER, read_list, write_parquet

SENT_AT = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T08:00:00Z", "2026-11-20t08:00:00z", "2026-11-20 08:00:00 UTC", "2026-11-20 08:00:00 Z",
        "2026-11-20 08:00:00.000 +0000", "2026-11-20T09:00:00 +01:00", "2026-11-20T09:00:00+01", "20261120T080000Z",
        "2026-11-20 08:00", "2026-11-20T08", "2026-W47-5T08:00:00Z", "2026-11-20  08:00:00.000000000 gmt",
        "2026-11-20 08:00:00 +0000 UTC", "2026-11-20T08:00Z[UTC]", "2026-11-20T09:00:00+01:00[Europe/Berlin]",
        "2026/11/20 08:00:00", "2026W475T08:00Z", "2026-11-20T08:00:00,000-00:00",
        f"{SENT_AT:.0f}", f"{SENT_AT:.1f}", f"{SENT_AT:.0f}000", f"{SENT_AT:.0f}000000", f"{SENT_AT:.0f}000000000",
    ],
)  # fmt: skip
def test_a_time_is_read_in_every_spelling(text):
    """Each database has its own. Blanks around a time are ignored."""
    pairs, bad, _ = read_list(f'{HEADER}c,s," {text} "\n')
    assert (list(pairs.values()), bad) == ([SENT_AT], [])


@pytest.mark.parametrize(
    "text", ["2026-11-19T24:00:00Z", "2026-11-19 24:00", "2026-324", "2026-11-20", "20261120", "2026-11-20 Z"]
)
def test_a_day_may_be_a_date_its_number_or_the_end_of_the_day_before(text):
    """ISO 8601 has several forms. A number of eight digits is a date."""
    assert list(read_list(f"{HEADER}c,s,{text}\n")[0].values()) == [SENT_AT - 8 * 3600]


@pytest.mark.parametrize("text", ["", "NULL", "\\N", "NaN", "None", "nan", "NaT", "<NA>", "(null)"])
def test_a_placeholder_is_no_time(text):
    """Then the send's time is unknown."""
    pairs, bad, _ = read_list(f"{HEADER}c,s,{text}\n")
    assert (list(pairs.values()), bad) == ([None], [])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("24/11/2026", "day and month could be swapped"),
        ("11.12.2026 08:00", "day and month could be swapped"),
        ("24 Nov 2026", "for other formats use --time-format"),
        (True, "is true, not an ISO 8601 time"),
        (46350.25, "no time between 2000 and 2100"),
        (20261124080000, "no time between 2000 and 2100"),
        (1e300, "no time between 2000 and 2100"),
        ([1], "is a list"),
        ("2026-11-20T08:00:00[Europe/Berlin]", "not an ISO 8601 time"),
        ("17/11/2026 10:19", "--time-format with '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'"),
        ("20.11.26", "--time-format with '%d.%m.%y' or '%m.%d.%y'"),
        ("9999-12-31T24:00:00Z", "not an ISO 8601 time"),
        ("2026-11-20-08:00", "not an ISO 8601 time"),
        ("2026/11/20-08:00", "not an ISO 8601 time"),
        ("2026-11-20 +0100", "not an ISO 8601 time"),
        ("2026W475x08:00", "not an ISO 8601 time"),
        ("2026-W47-08:00", "not an ISO 8601 time"),
        ("2026-11-20+02:00", "not an ISO 8601 time"),
        ("20261120.0800", "not an ISO 8601 time"),
    ],
)
def test_a_doubtful_time_is_a_bad_line(value, problem):
    """A wrong guess would move the deadline of a send. The error says which option settles it."""
    _, (bad,), _ = read_list(json.dumps({"campaign_id": "c", "send_id": "s", "sent at": value}))
    assert (bad.line, bad.field) == (1, "sent at")
    assert problem in bad.problem


def test_the_ranges_of_numbers_do_not_overlap():
    """So the size of a number tells its unit."""
    ranges = [(EARLIEST_NUMBER * per_second, LATEST_NUMBER * per_second) for per_second in UNITS.values()]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def test_a_time_format_settles_ambiguous_dates():
    """Times in ISO 8601 are still read. Ambiguous formats and formats without a date are refused."""
    options = ListOptions.parse(time_format="%d/%m/%Y %H:%M")
    text = f"{HEADER}c,s,20/11/2026 08:00\nc,t,2026-11-20T08:00:00Z\nc,u,11/20/2026 08:00\n"
    pairs, (bad,), source = read_list(text, options=options)
    assert (set(pairs.values()), bad.line, source.naive_times) == ({SENT_AT}, 4, 1)
    assert "nor in the format '%d/%m/%Y %H:%M'" in bad.problem
    for wrong in ("%H:%M", "%Q", "%d", "%d/%m/%Y %Z", "%d/%m/%Y%f%f"):
        with pytest.raises(UsageError, match="--time-format"):
            ListOptions.parse(time_format=wrong)


@pytest.mark.parametrize(
    "cell",
    ["TIMESTAMP '2026-11-20 08:00'", "TIMESTAMP_NS '2026-11-20 08:00'", "TIMESTAMPTZ '2026-11-20 09:00+01'",
     "1795161600", "1795161600000::BIGINT", "1795161600.0::DOUBLE", "'2026-11-20 08:00:00 UTC'"],
)  # fmt: skip
def test_parquet_times_are_read_in_every_type(tmp_path, cell):
    """They may be logical types, numbers or text."""
    path = write_parquet(tmp_path / "p.parquet", f"SELECT 'c' AS campaign_id, 's' AS send_id, {cell} AS sent_at")
    assert list(read_list("", name=path)[0].values()) == [SENT_AT]
