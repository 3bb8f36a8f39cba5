"""The verdict and rows of a response, for documented and for other content."""

import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.braze.columns import FIXED_COLUMNS
from harvester.braze.series import build_capture, encode_raw_row
from harvester.errors import ExchangeError
from harvester.model import Pair, Reading, Verdict

READING = Reading(1, Pair("eu", "c", "s"), "once", 1_767_225_600.0, 1_767_225_600.0, 1_767_225_600.0 - 86_400)


def make_capture(response):
    """Return the capture of a response, which is an object or bytes."""
    body = response if isinstance(response, bytes) else json.dumps(response).encode()
    return build_capture(body, READING, batch_id="batch", captured_at=1_767_225_600.5, new_counters=set())


def make_rows(response) -> list[dict]:
    """Return the rows of a response, parsed line by line."""
    capture = make_capture(response)
    lines = capture.rows.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == capture.row_count
    return [json.loads(line) for line in lines]


def success(*days) -> dict:
    """Return a successful response."""
    return {"message": "success", "data": list(days)}


DAY = {
    "time": "2026-11-01",
    "messages": {
        "email": [
            {"variation_name": "A", "variation_api_id": "v-1", "sent": 5, "opens": 2},
            {"variation_name": "Control Group", "enrolled": 3},
        ],
        "sms": [{"variation_name": "A", "sent": 1}],
    },
    "unique_recipients": 6, "conversions": 1, "revenue": 12.5,
}  # fmt: skip


def test_each_variation_each_day_and_the_capture_is_a_row():
    """One day becomes a row for each of three variations, one for the day's totals, and one for the capture."""
    rows = make_rows(success(DAY))
    assert [(row["level"], row["channel"], row["variation_name"]) for row in rows] == [
        ("variation", "email", "A"), ("variation", "email", "Control Group"), ("variation", "sms", "A"),
        ("day", None, None), ("capture", None, None),
    ]  # fmt: skip
    assert rows[0] | {"sent": 5, "opens": 2, "variation_api_id": "v-1", "date": "2026-11-01"} == rows[0]
    assert rows[1]["enrolled"] == 3
    assert rows[3]["revenue"] == 12.5
    assert "sent" not in rows[3]
    assert all(list(row)[: len(FIXED_COLUMNS)] == list(FIXED_COLUMNS) for row in rows)


@pytest.mark.parametrize(
    ("days", "verdict"),
    [
        ([], Verdict.EMPTY),
        ([{"time": "2026-11-01", "messages": {}}], Verdict.ZERO),
        ([{"time": "2026-11-01", "messages": {"sms": [{"sent": 0}]}, "conversions": 0, "revenue": 0.0}], Verdict.ZERO),
        ([{"time": "2026-11-01", "messages": {"sms": [{"sent": 1}]}}], Verdict.ACTIVITY),
        ([{"time": "2026-11-01", "messages": {}, "conversions": 1}], Verdict.ACTIVITY),
        ([{"time": "2026-11-01", "messages": {}, "conversions": 5, "revenue": -5.0}], Verdict.ACTIVITY),
        ([{"time": "2026-11-01", "messages": {}}, DAY], Verdict.ACTIVITY),
    ],
)
def test_a_response_without_activity_is_zero_or_empty(days, verdict):
    """The verdict is empty without days, zero for days with only zeros, and activity only if something was counted."""
    assert make_capture(success(*days)).verdict is verdict


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"\xef\xbb\xbf{}", b'{"message":"success","data":[]}x', b"[]", b"null", b"{}",
        b'{"message":"success"}', b'{"message":"success","data":{}}', b'{"message":"queued","data":[]}', b'{"data":[]}',
        b'{"message":"success","data":[NaN]}', b'{"message":"success","data":["\xff"]}',
        b'{"message":"success","data":["\\ud800"]}', b'{"message":"success","data":' + b"[" * 100_000,
        b'{"message":"success","data":[1e400]}',
    ],
)  # fmt: skip
def test_an_unusable_body_is_an_error_and_no_verdict(body):
    """Broken JSON, another shape or another message is a transient error."""
    with pytest.raises(ExchangeError):
        make_capture(body)


def test_a_body_cut_at_any_byte_is_an_error():
    """A body that ends early is an error, wherever it ends."""
    body = json.dumps(success(DAY)).encode()
    for at in range(len(body)):
        with pytest.raises(ExchangeError, match=r"unparsable: \w+"):
            make_capture(body[:at])


@pytest.mark.parametrize("days", [[], [DAY]])
def test_the_row_of_a_capture_contains_its_request(days):
    """The row of a capture has ``ending_at`` and ``since``, so that a ledger can be rebuilt from rows."""
    row = make_rows(success(*days))[-1]
    assert (row["level"], row["captured_at"]) == ("capture", "2026-01-01T00:00:00.500Z")
    assert (row["ending_at"], row["since"]) == ("2026-01-01T00:00:00.000Z", "2025-12-31T00:00:00.000Z")


def test_a_raw_row_contains_the_response_unchanged():
    """With ``--raw``, the response is kept unchanged, spaces included, on one line with pair, time and verdict."""
    body = b'{ "message": "success",\n "data": [] }'
    line = encode_raw_row(body, READING, make_capture(body), batch_id="batch")
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "workspace": "eu", "campaign_id": "c", "send_id": "s", "reading": "once", "verdict": "empty",
        "captured_at": "2026-01-01T00:00:00.500Z", "batch_id": "batch", "answer": body.decode(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("day", "row"),
    [
        ("x", {"level": "day", "date": None, "unrecognized": '{"day":"x"}'}),
        ({"time": 5, "messages": {}, "sent": 1}, {"level": "day", "date": "5", "sent": 1}),
        ({"time": "d", "sent": 1}, {"level": "day", "date": "d", "sent": 1}),
        ({"time": "d", "messages": [7]}, {"level": "day", "date": "d", "unrecognized": '{"messages":[7]}'}),
        (
            {"time": "d", "messages": {"sms": 7}},
            {"level": "variation", "channel": "sms", "unrecognized": '{"variation":7}'},
        ),
        (
            {"time": "d", "messages": {"sms": [{"variation_name": ["A"], "variation_api_id": 7}]}},
            {"level": "variation", "channel": "sms", "variation_name": '["A"]', "variation_api_id": "7"},
        ),
    ],
)
def test_a_day_of_another_shape_is_kept_as_drift(day, row):
    """The content of an unexpected day is kept, and the capture is marked as drift."""
    assert make_rows(success(day))[0].items() >= row.items()
    assert make_capture(success(day)).drift


@pytest.mark.parametrize("odd", ["7", None, [1], {"a": 1}])
def test_a_counter_of_an_unexpected_type_is_kept_as_drift(odd):
    """The value of a counter that is not a number is kept as JSON text; null stays null."""
    day = {"time": "2026-11-01", "messages": {"sms": [{"variation_name": "A", "sent": 1, "new_counter": odd}]}}
    rows = make_rows(success(day))
    kept = json.loads(rows[0].get("unrecognized", "{}")) | rows[0]
    assert (kept["new_counter"], rows[0]["sent"]) == (odd, 1)
    assert rows[0].get("new_counter") is None
    assert make_capture(success(day)).drift
    assert not make_capture(success(DAY)).drift


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        ("7", Verdict.ACTIVITY), ("many", Verdict.ACTIVITY), ({"sum": 7}, Verdict.ACTIVITY), (["0"], Verdict.ZERO),
        ("0", Verdict.ZERO), ("0.0", Verdict.ZERO), ("", Verdict.ZERO), (None, Verdict.ZERO), ([1], Verdict.ACTIVITY),
        ([], Verdict.ZERO), ({"sum": 0}, Verdict.ZERO),
    ],
)  # fmt: skip
def test_only_zeros_are_the_verdict_zero(odd, verdict):
    """Counters of other types are drift, and a response with anything except zeros is not zero."""
    capture = make_capture(success({"time": "2026-11-01", "messages": {"sms": [{"variation_name": "A", "sent": odd}]}}))
    assert (capture.verdict, capture.drift) == (verdict, True)


@pytest.mark.parametrize("counter", [b"18446744073709551617", b"9223372036854775808", b"1e300"])
def test_a_counter_too_large_to_be_exact_is_drift(counter):
    """A counter beyond 64 bits fits no integer column, so it is kept as text and marked as drift."""
    other = b',{"time":"2026-11-02","messages":{}}]}'
    body = b'{"message":"success","data":[{"time":"2026-11-01","messages":{},"sent":' + counter + b"}" + other
    assert make_capture(body).drift
    assert json.loads(make_rows(body)[0]["unrecognized"]) == {"sent": float(counter)}


@pytest.mark.parametrize("value", ["5", "5.0", "-5", "5.5", "0", "true", '"5"', "null", "1e300", "[5]"])
@pytest.mark.parametrize("name", ["sent", "revenue", "brand_new", "revenue_eur"])
def test_a_column_has_the_same_type_in_every_part(name, value):
    """Whatever a response contains, a counter is an integer, a revenue is a decimal, and no value is lost."""
    body = '{"message":"success","data":[{"time":"2026-11-01","messages":{"sms":[{"opens":1,"%s":%s}]}}]}'
    row = make_rows((body % (name, value)).encode())[0]
    assert type(row.get(name)) in ({float, type(None)} if "revenue" in name else {int, type(None)})
    assert json.loads(row.get("unrecognized", "{}")).get(name, row.get(name)) == json.loads(value)
    assert (row["opens"], list(row)[-1] in (name, "unrecognized")) == (1, True)


def test_a_whole_number_has_the_type_of_its_column_without_drift():
    """Braze may write a sum of money as 0 and a count as 5.0, which changes neither type nor meaning."""
    capture = make_capture(success({"time": "2026-11-01", "messages": {"sms": [{"sent": 5.0, "revenue": 0}]}}))
    assert not capture.drift
    assert b'"sent":5,"revenue":0.0}' in capture.rows


def test_the_last_of_two_members_of_one_name_counts_in_every_row():
    """If a counter is named twice, the last value counts in every row."""
    body = b'{"message":"x","data":[{"time":"2026-11-01","messages":{},"sent":1,"sent":2}],"message":"success"}'
    assert make_rows(body)[0]["sent"] == 2


def test_a_counter_with_the_name_of_a_column_does_not_replace_it():
    """A counter with the name of a column does not replace the pair or the day of its row."""
    day = {"time": "2026-11-01", "messages": {"sms": [{"campaign_id": 9, "level": 9, "date": 9, "sent": 1}]}}
    row = make_rows(success(day))[0]
    assert (row["campaign_id"], row["level"], row["date"], row["sent"]) == ("c", "variation", "2026-11-01", 1)


ABSURD = (
    "campaign_id", "date", "since", "ending_at", "unrecognized", "captured_date", "level", "Sent", "SENT", "", " ",
    "a" * 65,
    "naïve", "a\nb", "\x1b[31m", "\0", "'; DROP TABLE", '"', "9lives", "__proto__", "sent ", "$.x", "a.b", "/", "~1",
)  # fmt: skip
"""Names that are another column's, that some readers take for another's, or that no reader could show."""


def test_a_counter_with_an_unusual_name_is_kept_as_text_and_drift():
    """A counter with an unusual name replaces no column, and changes no other counter and no verdict."""
    counters = {name: number for number, name in enumerate(ABSURD, 1)}
    for day in (
        {"time": "2026-11-01", "messages": {"sms": [{**counters, "sent": 7, "brand_new": 8}]}},
        {"time": "2026-11-01", "messages": {}, **counters, "sent": 7, "brand_new": 8},
    ):
        capture, row = make_capture(success(day)), make_rows(success(day))[0]
        assert (capture.drift, capture.verdict) == (True, Verdict.ACTIVITY)
        assert json.loads(row["unrecognized"]) == counters
        assert list(row) == [*FIXED_COLUMNS, "sent", "brand_new", "unrecognized"]
        assert (row["campaign_id"], row["date"], row["sent"], row["brand_new"]) == ("c", "2026-11-01", 7, 8)
    late = {"time": "2026-11-01", "messages": {}, "Sent": 5}
    assert make_capture(success(late)).verdict is Verdict.ACTIVITY


@pytest.mark.parametrize("count", [100, 101, 20_000])
def test_one_response_adds_few_columns(count):
    """More than a hundred new names are kept as text and drift, since columns stay in the dataset forever."""
    new = {f"counter_{number}": number for number in range(count)}
    day = {"time": "2026-11-01", "messages": {"sms": [{"sent": 1, **new}]}, "conversions": 2}
    rows, many = make_rows(success(day)), count > 100
    assert make_capture(success(day)).drift is many
    assert (rows[0]["sent"], rows[1]["conversions"]) == (1, 2)
    assert (json.loads(rows[0]["unrecognized"]) if many else {name: rows[0][name] for name in new}) == new
    assert len(rows[0]) == len(FIXED_COLUMNS) + 1 + (1 if many else count)


def test_many_responses_together_add_few_columns():
    """A few new names in each of many responses add no more columns than one response, and none is lost."""
    new_counters: set[str] = set()
    columns, drifted = set(), []
    for number in range(30):
        counters = {f"new_{number}_{each}": each for each in range(9)}
        body = json.dumps(success({"time": "2026-11-01", "messages": {}, **counters, "new_0_1": 7})).encode()
        capture = build_capture(body, READING, batch_id="b", captured_at=1_767_225_600.5, new_counters=new_counters)
        row = json.loads(capture.rows.split(b"\n")[0])
        text = json.loads(row.pop("unrecognized", "{}"))
        assert row["new_0_1"] == 7
        assert {**row, **text}.items() >= counters.items() - {("new_0_1", 1)}
        columns |= row.keys() - set(FIXED_COLUMNS)
        drifted.append(capture.drift)
    assert len(columns) == 99
    assert (drifted[:11], drifted[11:]) == ([False] * 11, [True] * 19)


@pytest.mark.parametrize(
    "day",
    [
        {"time": "t" * 1_000_000, "messages": {"sms": [{}] * 500}},
        {"time": "t", "messages": {"s" * 1_000_000: [{}] * 500}},
        {"time": "t", "messages": {}, "text": "x" * 9_000_000},
        {"time": "t", "messages": {}, **{f"{number:0100}": 0 for number in range(90_000)}},
    ],
    ids=["date", "channel", "value", "names"],
)
def test_a_response_whose_rows_no_reader_accepts_is_an_error(day):
    """A small response does not become gigabytes of rows, or a line that readers of NDJSON refuse."""
    with pytest.raises(ExchangeError, match="oversized"):
        make_capture(success(day))


def test_channels_and_variations_are_rows_and_not_columns():
    """A thousand channels and variations add rows, but no columns."""
    channels = {f"channel {number}": [{"sent": 1}] * 10 for number in range(1000)}
    rows = make_rows(success({"time": "2026-11-01", "messages": channels}))
    assert len(rows) == 10_002
    assert set().union(*rows) == {*FIXED_COLUMNS, "sent", "ending_at", "since"}


@pytest.mark.parametrize("depth", [10, 90, 100, 130, 250, 260, 500, 1000, 1030, 100_000])
@pytest.mark.parametrize("day", ["%s", '{"x":%s}', '{"time":%s}', '{"messages":{"sms":[{"variation_name":%s}]}}'])
def test_nested_values_are_kept_or_refused_at_any_depth(day, depth, tmp_path):
    """A body that can be parsed but not encoded is a transient error; readers can read every row."""
    body = '{"message":"success","data":[' + day % ("[" * depth + "]" * depth) + "]}"
    try:
        capture = make_capture(body.encode())
    except ExchangeError as refused:
        assert depth > 200
        assert refused.cause == "unparsable"  # noqa: PT017 - it is refused at some depths only
    else:
        assert capture.drift
        part = tmp_path / "part.ndjson"
        part.write_bytes(capture.rows)
        assert duckdb.sql(f"SELECT count(*) FROM read_json('{part}', union_by_name = true)").fetchall()[0][0] >= 2


def test_text_with_line_ends_stays_on_one_line():
    """A name with newlines, NUL, escapes or U+2028 is one line of the part, and is read back unchanged."""
    name = 'a\nb\r\0\x1b[31m\u2028\u0085"\\'
    day = {"time": "2026-11-01", "messages": {"sms": [{"variation_name": name, "sent": 1}]}}
    assert make_rows(success(day))[0]["variation_name"] == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["time", "messages", "sms", "sent", "date", "variation_name", "workspace", "x\n"])
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.lists(JSON, max_size=5))
def test_any_list_of_days_becomes_rows(days):
    """Whatever the days contain, every row can be read back and names its pair."""
    rows = make_rows(success(*days))
    assert rows[-1]["level"] == "capture"
    for row in rows:
        assert (row["workspace"], row["campaign_id"], row["send_id"], row["batch_id"]) == ("eu", "c", "s", "batch")
        assert list(row)[: len(FIXED_COLUMNS)] == list(FIXED_COLUMNS)


def test_rows_load_in_duckdb(tmp_path):
    """DuckDB loads a part that contains unexpected values."""
    part = tmp_path / "part.ndjson"
    part.write_bytes(make_capture(success(DAY, {"time": "2026-11-02", "messages": {"new": [{"sent": 2**60}]}})).rows)
    found = duckdb.sql(f"SELECT sum(sent) FROM read_json('{part}', union_by_name = true)").limit(1).fetchall()
    assert found == [(2**60 + 6,)]
