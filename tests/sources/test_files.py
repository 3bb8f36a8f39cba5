"""Tests of files of pairs: which lines are read, and how bad lines are reported."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.model import BadLine, SentPair
from harvester.sources import Input, RejectsFile

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def read_file(name, *, stdin=b"", workspaces=("default",)):
    """Read one file, and return its pairs and bad lines in order."""
    found = Input([str(name)], workspaces=workspaces, stdin=io.BytesIO(stdin), now=NOW).read()
    return [each for each in found if each is not None]


def get_ids(found):
    """Return the ids of the pairs in a result."""
    return [(each.pair.campaign_id, each.pair.send_id) for each in found if isinstance(each, SentPair)]


def get_problems(found):
    """Return the line, the field and the problem of each bad line in a result."""
    return [(each.line, each.field, each.problem) for each in found if isinstance(each, BadLine)]


def test_csv_is_read_as_spreadsheets_write_it(tmp_path):
    """The file has a BOM, mixed line ends, quotes, blanks around fields, other columns, and no final line end."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(b'\xef\xbb\xbfother,campaign_id , send_id\r\n1, c1 ,s1\n2,"c,2","s ""2"""\r\n\n3,c3,s3')
    assert get_ids(read_file(path)) == [("c1", "s1"), ("c,2", 's "2"'), ("c3", "s3")]


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ("c,", "send_id", "empty"),
        ("c," + "x" * 65, "send_id", "longer than 64"),
        ("c,é", "send_id", "other than printable ASCII"),
        ("c", "", "has 1 fields, but the header has 2"),
        ("c,s,more", "", "3 fields"),
    ],
)
def test_a_bad_csv_line_is_reported_with_line_and_field_and_the_others_are_read(tmp_path, line, field, problem):
    """The lines before and after the bad line are read."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"campaign_id,send_id\na,b\n{line}\ny,z\n")
    found = read_file(path)
    assert get_ids(found) == [("a", "b"), ("y", "z")]
    ((number, where, what),) = get_problems(found)
    assert (number, where) == (3, field)
    assert problem in what


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"campaign_id": "c"}', "missing"),
        (b'{"campaign_id": "c", "send_id": 7.5}', "is 7.5, not text or a whole number"),
        (b'{"campaign_id": "c", "send_id": true}', "is true, not text"),
        (b'{"campaign_id": "c", "send_id": "a\\u0000b"}', "printable ASCII"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": 1764}', "no time between 2000 and 2100"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": true}', "is true, not an ISO 8601 time"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "soon"}', "ISO 8601"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "2030-01-01"}', "future"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "0001-01-01T00:00:00+14:00"}', "before 1970"),
        (
            b'{"campaign_id": "c", "send_id": "s", "workspace": "x"}',
            "the only workspace is default; configure the other one",
        ),
        (b'{"campaign_id": "c", "send_id": "\xff"}', "printable ASCII"),
    ],
)
def test_a_bad_ndjson_line_is_reported_and_the_others_are_read(line, problem):
    """Standard input is NDJSON if its first line is an object. The lines before and after the bad line are read."""
    good = b'{"campaign_id": "a", "send_id": "b"}\n'
    found = read_file("-", stdin=good + line + b"\n" + good)
    assert get_ids(found) == [("a", "b")]
    assert problem in get_problems(found)[0][2]


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv"])
def test_the_text_of_a_bad_row_is_json(tmp_path, name):
    """A program can read the row from the rejects file, correct it and use it again."""
    row = {"campaign_id": "ç\udcff" if name == "a.csv" else "ç", "send_id": "s", "sent_at": "1 May"}
    path = tmp_path / name
    lines = ",".join(row) + "\n" + ",".join(row.values()) if name == "a.csv" else json.dumps(row)
    path.write_text(lines, errors="surrogateescape")
    (bad,) = read_file(path)
    assert json.loads(bad.text) == row


def test_a_deeply_nested_row_is_a_bad_line():
    """Deep nesting does not end a run."""
    (bad,) = read_file("-", stdin=b'{"campaign_id":' + b"[" * 1000 + b"]" * 1000 + b"}")
    assert isinstance(bad, BadLine)


def test_times_without_a_zone_are_utc_and_counted():
    """A time may also be a date, or have an offset or Z."""
    lines = ["2026-11-20", "2026-11-20T01:00:00+01:00", "2026-11-20T00:00:00Z", ""]
    text = "campaign_id,send_id,sent_at\n" + "".join(f"c,s{at},{time}\n" for at, time in enumerate(lines))
    pairs = Input(["-"], workspaces=["default"], stdin=io.BytesIO(text.encode()), now=NOW)
    midnight = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
    assert [each.sent_at for each in pairs.read()] == [midnight, midnight, midnight, None]
    assert pairs.naive_times == 1


def test_parquet_keeps_text_and_times(tmp_path):
    """Ids of digits keep their leading zeros, and a timestamp is a time."""
    path = tmp_path / "pairs.parquet"
    duckdb.execute(
        "COPY (SELECT '007' AS campaign_id, 's' || i AS send_id, TIMESTAMP '2026-11-20' AS sent_at, 1 AS x "
        f"FROM range(5000) t(i)) TO '{path}'"
    )
    found = read_file(path)
    assert len(get_ids(found)) == 5000
    assert get_ids(found)[7] == ("007", "s7")
    assert found[0].sent_at == datetime(2026, 11, 20, tzinfo=UTC).timestamp()


def test_a_parquet_column_name_that_is_not_utf8_is_a_usage_error(tmp_path):
    """The error says that the file cannot be read as Parquet."""
    path = tmp_path / "pairs.parquet"
    duckdb.execute(f"COPY (SELECT 'c' AS campaign_id, 's' AS send_id, 1 AS remark) TO '{path}'")
    path.write_bytes(path.read_bytes().replace(b"remark", b"re\xffark"))
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "No such file"),
        ("nofolder", None, "No such file or directory"),
        ("a.csv", b"sent_at\n", "must contain the columns campaign_id and send_id"),
        ("a.csv", b"x,y\n1,2\n", "found: x, y"),
        ("a.zip", b"PK\x03\x04", "cannot be read as a workbook"),
        ("a.csv", "campaign_id,send_id\n".encode("utf-16-le"), "neither UTF-8 nor UTF-16 with a byte order mark"),
        ("a.csv", "campaign_id,send_id\n".encode("utf-32"), "its encoding is UTF-32"),
        ("a.parquet", b"no", "Parquet"),
    ],
)
def test_a_file_that_is_not_a_list_is_a_usage_error(tmp_path, name, content, message):
    """The error contains the name of the file."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_file(path)
    assert name in str(error.value)


def test_a_missing_file_is_a_usage_error_before_anything_is_read(tmp_path):
    """All files are checked before the first one is read."""
    (tmp_path / "a.csv").write_text("campaign_id,send_id\nc,s\n")
    with pytest.raises(UsageError):
        Input([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], workspaces=["w"], stdin=io.BytesIO(), now=NOW)


@given(st.binary(max_size=300))
def test_any_bytes_are_pairs_or_bad_lines(noise):
    """No error is raised, whatever bytes follow the first line."""
    for first in (b"campaign_id,send_id\n", b'{"campaign_id":"c","send_id":"s"}\n'):
        for each in read_file("-", stdin=first + noise):
            assert isinstance(each, SentPair | BadLine)


def test_each_run_replaces_the_rejects_file(tmp_path):
    """A second run of the same command does not append the same bad lines again."""
    path = tmp_path / "rejects.ndjson"
    for _ in range(2):
        rejects = RejectsFile(path)
        rejects.add(BadLine("a.csv", 3, "send_id", "empty", "c,\x1b[31m"))
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["line"] == 3
    assert "\x1b" not in line
    RejectsFile(path)
    assert not Path(path).exists()
