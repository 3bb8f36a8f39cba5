"""What an answer means: its verdict and its rows, for what Braze documents and for whatever else it may send."""

import json

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.braze.counters import FIXED_COLUMNS
from harvester.braze.series import build_capture, encode_raw_row
from harvester.errors import ExchangeError
from harvester.model import Pair, Reading, Verdict

READING = Reading(1, Pair("eu", "c", "s"), "once", 1_767_225_600.0, 1_767_225_600.0, 1_767_225_600.0 - 86_400)


def capture_of(answer):
    """The capture of an answer, given as an object or as bytes."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return build_capture(body, READING, batch_id="batch", captured_at=1_767_225_600.5, new_counters=set())


def rows_of(answer) -> list[dict]:
    """Its rows, read back line by line."""
    capture = capture_of(answer)
    lines = capture.rows.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == capture.row_count
    return [json.loads(line) for line in lines]


def success(*days) -> dict:
    """An answer that Braze calls a success."""
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


def test_each_variation_each_day_and_the_capture_itself_is_a_row():
    """The rows of one day: three variations, the day's totals, and a trace of the capture."""
    rows = rows_of(success(DAY))
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
def test_an_empty_answer_has_an_honest_name(days, verdict):
    """No days is empty, days that count nothing are zero, and only what counts is activity."""
    assert capture_of(success(*days)).verdict is verdict


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
def test_what_is_no_answer_says_nothing_of_the_pair(body):
    """Broken JSON, another shape or another message is an error to try again, never a verdict."""
    with pytest.raises(ExchangeError):
        capture_of(body)


def test_an_answer_cut_at_any_byte_is_no_answer():
    """A body that ends early never counts, wherever it ends."""
    body = json.dumps(success(DAY)).encode()
    for at in range(len(body)):
        with pytest.raises(ExchangeError, match=r"unparsable: \w+"):
            capture_of(body[:at])


@pytest.mark.parametrize("days", [[], [DAY]])
def test_a_capture_tells_what_was_asked(days):
    """Up to when, and since when the pair's time counts: the rows alone can rebuild a ledger."""
    row = rows_of(success(*days))[-1]
    assert (row["level"], row["captured_at"]) == ("capture", "2026-01-01T00:00:00.500Z")
    assert (row["ending_at"], row["since"]) == ("2026-01-01T00:00:00.000Z", "2025-12-31T00:00:00.000Z")


def test_an_answer_is_kept_as_it_came():
    """Its spaces too, on one line that says whose it is, when it came and what was read from it."""
    body = b'{ "message": "success",\n "data": [] }'
    line = encode_raw_row(body, READING, capture_of(body), batch_id="batch")
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
def test_a_day_of_another_shape_is_kept_where_it_belongs_and_called_drift(day, row):
    """Nothing of it is lost, and someone is told."""
    assert rows_of(success(day))[0].items() >= row.items()
    assert capture_of(success(day)).drift


@pytest.mark.parametrize("odd", ["7", None, [1], {"a": 1}])
def test_an_odd_counter_passes_through_and_is_called_drift(odd):
    """What Braze changes one day is kept as it came, what is no number or text as JSON text, and told."""
    day = {"time": "2026-11-01", "messages": {"sms": [{"variation_name": "A", "sent": 1, "new_counter": odd}]}}
    rows = rows_of(success(day))
    kept = json.loads(rows[0].get("unrecognized", "{}")) | rows[0]
    assert (kept["new_counter"], rows[0]["sent"]) == (odd, 1)
    assert not any(isinstance(value, list | dict) for row in rows for value in row.values())
    assert capture_of(success(day)).drift
    assert not capture_of(success(DAY)).drift


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        ("7", Verdict.ACTIVITY), ("many", Verdict.ACTIVITY), ({"sum": 7}, Verdict.ACTIVITY), (["0"], Verdict.ZERO),
        ("0", Verdict.ZERO), ("0.0", Verdict.ZERO), ("", Verdict.ZERO), (None, Verdict.ZERO), ([1], Verdict.ACTIVITY),
        ([], Verdict.ZERO), ({"sum": 0}, Verdict.ZERO),
    ],
)  # fmt: skip
def test_zero_is_said_only_of_zeros(odd, verdict):
    """Counters that are no plain numbers are drift, and an answer that holds anything but zeros is not called zero."""
    capture = capture_of(success({"time": "2026-11-01", "messages": {"sms": [{"variation_name": "A", "sent": odd}]}}))
    assert (capture.verdict, capture.drift) == (verdict, True)


@pytest.mark.parametrize("counter", [b"18446744073709551617", b"9223372036854775808", b"1e300"])
def test_a_counter_too_large_to_be_exact_is_called_drift(counter):
    """A number beyond 64 bits is read as a rounded one: kept, and told."""
    other = b',{"time":"2026-11-02","messages":{}}]}'
    body = b'{"message":"success","data":[{"time":"2026-11-01","messages":{},"sent":' + counter + b"}" + other
    assert capture_of(body).drift
    assert rows_of(body)[0]["sent"] == float(counter)


def test_of_two_members_of_one_name_the_last_counts_in_every_row():
    """Which of them is meant is undocumented; what is kept is one of them, and the answer as it came is in --raw."""
    body = b'{"message":"x","data":[{"time":"2026-11-01","messages":{},"sent":1,"sent":2}],"message":"success"}'
    assert rows_of(body)[0]["sent"] == 2


def test_a_counter_that_bears_a_columns_name_does_not_hide_the_column():
    """Whatever Braze calls a counter, a row says which pair and day it is of."""
    day = {"time": "2026-11-01", "messages": {"sms": [{"campaign_id": 9, "level": 9, "date": 9, "sent": 1}]}}
    row = rows_of(success(day))[0]
    assert (row["campaign_id"], row["level"], row["date"], row["sent"]) == ("c", "variation", "2026-11-01", 1)


ABSURD = (
    "campaign_id", "date", "since", "ending_at", "unrecognized", "captured_date", "level", "Sent", "SENT", "", " ",
    "a" * 65,
    "naïve", "a\nb", "\x1b[31m", "\0", "'; DROP TABLE", '"', "9lives", "__proto__", "sent ", "$.x", "a.b", "/", "~1",
)  # fmt: skip
"""Names that are another column's, that some readers take for another's, or that no reader could show."""


def test_a_counter_of_an_absurd_name_is_kept_as_text_and_called_drift():
    """It takes no other column's place, in whichever case; the other counters and the verdict stay as they are."""
    counters = {name: number for number, name in enumerate(ABSURD, 1)}
    for day in (
        {"time": "2026-11-01", "messages": {"sms": [{**counters, "sent": 7, "brand_new": 8}]}},
        {"time": "2026-11-01", "messages": {}, **counters, "sent": 7, "brand_new": 8},
    ):
        capture, row = capture_of(success(day)), rows_of(success(day))[0]
        assert (capture.drift, capture.verdict) == (True, Verdict.ACTIVITY)
        assert json.loads(row["unrecognized"]) == counters
        assert list(row) == [*FIXED_COLUMNS, "sent", "brand_new", "unrecognized"]
        assert (row["campaign_id"], row["date"], row["sent"], row["brand_new"]) == ("c", "2026-11-01", 7, 8)
    late = {"time": "2026-11-01", "messages": {}, "Sent": 5}
    assert capture_of(success(late)).verdict is Verdict.ACTIVITY


@pytest.mark.parametrize("count", [100, 101, 20_000])
def test_one_answer_brings_few_new_columns(count):
    """More than a hundred new names are kept as text and called drift, since columns stay in the dataset for ever."""
    new = {f"counter_{number}": number for number in range(count)}
    day = {"time": "2026-11-01", "messages": {"sms": [{"sent": 1, **new}]}, "conversions": 2}
    rows, many = rows_of(success(day)), count > 100
    assert capture_of(success(day)).drift is many
    assert (rows[0]["sent"], rows[1]["conversions"]) == (1, 2)
    assert (json.loads(rows[0]["unrecognized"]) if many else {name: rows[0][name] for name in new}) == new
    assert len(rows[0]) == len(FIXED_COLUMNS) + 1 + (1 if many else count)


def test_many_answers_together_bring_few_new_columns():
    """A few new names in each of many answers add up to no more columns than in one, and nothing of them is lost."""
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
def test_an_answer_whose_rows_no_reader_could_take_is_no_answer(day):
    """A small answer does not become gigabytes of rows, nor a line that is longer than readers of NDJSON take."""
    with pytest.raises(ExchangeError, match="oversized"):
        capture_of(success(day))


def test_a_thousand_channels_and_variations_are_rows_and_no_columns():
    """Whatever Braze adds of these, readers see the same columns."""
    channels = {f"channel {number}": [{"sent": 1}] * 10 for number in range(1000)}
    rows = rows_of(success({"time": "2026-11-01", "messages": channels}))
    assert len(rows) == 10_002
    assert set().union(*rows) == {*FIXED_COLUMNS, "sent", "ending_at", "since"}


@pytest.mark.parametrize("depth", [10, 90, 100, 130, 250, 260, 500, 1000, 1030, 100_000])
@pytest.mark.parametrize("day", ["%s", '{"x":%s}', '{"time":%s}', '{"messages":{"sms":[{"variation_name":%s}]}}'])
def test_nesting_is_kept_or_refused_at_any_depth(day, depth, tmp_path):
    """What can be read but not be written again is an error to try again; what is written, readers can read."""
    body = '{"message":"success","data":[' + day % ("[" * depth + "]" * depth) + "]}"
    try:
        capture = capture_of(body.encode())
    except ExchangeError as refused:
        assert depth > 200
        assert refused.cause == "unparsable"  # noqa: PT017 - it is refused at some depths only
    else:
        assert capture.drift
        part = tmp_path / "part.ndjson"
        part.write_bytes(capture.rows)
        assert duckdb.sql(f"SELECT count(*) FROM read_json('{part}', union_by_name = true)").fetchall()[0][0] >= 2


def test_text_with_line_ends_stays_on_one_line():
    """A variation named with newlines, NUL, escapes or U+2028 is one line of the part and comes back as it was."""
    name = 'a\nb\r\0\x1b[31m\u2028\u0085"\\'
    day = {"time": "2026-11-01", "messages": {"sms": [{"variation_name": name, "sent": 1}]}}
    assert rows_of(success(day))[0]["variation_name"] == name


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


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=5))
def test_no_success_is_ever_dropped_whatever_its_days_are(days):
    """Any list of anything makes rows that can be read back, each naming its pair; nothing raises."""
    rows = rows_of(success(*days))
    assert rows[-1]["level"] == "capture"
    for row in rows:
        assert (row["workspace"], row["campaign_id"], row["send_id"], row["batch_id"]) == ("eu", "c", "s", "batch")
        assert list(row)[: len(FIXED_COLUMNS)] == list(FIXED_COLUMNS)


def test_rows_load_in_duckdb(tmp_path):
    """The first thing a reader does with a part works on an odd one too."""
    part = tmp_path / "part.ndjson"
    part.write_bytes(capture_of(success(DAY, {"time": "2026-11-02", "messages": {"new": [{"sent": 2**60}]}})).rows)
    found = duckdb.sql(f"SELECT sum(sent) FROM read_json('{part}', union_by_name = true)").limit(1).fetchall()
    assert found == [(2**60 + 6,)]
