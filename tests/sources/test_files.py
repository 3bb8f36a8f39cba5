"""Tests of pairs from files: what is read, what is reported, and that a bad line does not affect the others."""

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


def read(name, *, stdin=b"", workspaces=("default",)):
    """Read one file, and return pairs and bad lines."""
    found = Input([str(name)], workspaces=workspaces, stdin=io.BytesIO(stdin), now=NOW).read()
    return [each for each in found if each is not None]


def ids(found):
    """The ids of the pairs in a result."""
    return [(each.pair.campaign_id, each.pair.send_id) for each in found if isinstance(each, SentPair)]


def problems(found):
    """Line, field and problem of the bad lines."""
    return [(each.line, each.field, each.problem) for each in found if isinstance(each, BadLine)]


def test_csv_is_read_as_spreadsheets_write_it(tmp_path):
    """With a BOM, mixed line ends, quotes, blanks around fields, other columns, and no line end at the end."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(b'\xef\xbb\xbfother,campaign_id , send_id\r\n1, c1 ,s1\n2,"c,2","s ""2"""\r\n\n3,c3,s3')
    assert ids(read(path)) == [("c1", "s1"), ("c,2", 's "2"'), ("c3", "s3")]


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
    """Every kind of bad line has its line number, and its neighbours are read."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"campaign_id,send_id\na,b\n{line}\ny,z\n")
    found = read(path)
    assert ids(found) == [("a", "b"), ("y", "z")]
    ((number, where, what),) = problems(found)
    assert (number, where) == (3, field)
    assert problem in what


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"campaign_id": "c"}', "missing"),
        (b'{"campaign_id": "c", "send_id": 7}', "leading zeros"),
        (b'{"campaign_id": "c", "send_id": "a\\u0000b"}', "printable ASCII"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": 1764000000}', "ambiguous"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "soon"}', "ISO 8601"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "2030-01-01"}', "future"),
        (b'{"campaign_id": "c", "send_id": "s", "sent_at": "0001-01-01T00:00:00+14:00"}', "before 1970"),
        (b'{"campaign_id": "c", "send_id": "s", "workspace": "x"}', "not configured; the workspaces are: default"),
        (b'{"campaign_id": "c", "send_id": "\xff"}', "is not JSON"),
    ],
)
def test_a_bad_ndjson_line_is_reported_and_the_others_are_read(line, problem):
    """Standard input whose first line is an object is NDJSON."""
    good = b'{"campaign_id": "a", "send_id": "b"}\n'
    found = read("-", stdin=good + line + b"\n" + good)
    assert ids(found) == [("a", "b")]
    assert problem in problems(found)[0][2]


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv"])
def test_the_text_of_a_bad_row_is_json(tmp_path, name):
    """A program can read the row in a rejects file and send it again."""
    row = {"campaign_id": "ç\udcff" if name == "a.csv" else "ç", "send_id": "s", "sent_at": "1 May"}
    path = tmp_path / name
    lines = ",".join(row) + "\n" + ",".join(row.values()) if name == "a.csv" else json.dumps(row)
    path.write_text(lines, errors="surrogateescape")
    (bad,) = read(path)
    assert json.loads(bad.text) == row


def test_a_deeply_nested_row_is_a_bad_line():
    """Depth alone does not end a run."""
    (bad,) = read("-", stdin=b'{"campaign_id":' + b"[" * 1000 + b"]" * 1000 + b"}")
    assert isinstance(bad, BadLine)


def test_times_without_a_zone_are_utc_and_counted():
    """Dates, offsets and Z are understood."""
    lines = ["2026-11-20", "2026-11-20T01:00:00+01:00", "2026-11-20T00:00:00Z", ""]
    text = "campaign_id,send_id,sent_at\n" + "".join(f"c,s{at},{time}\n" for at, time in enumerate(lines))
    pairs = Input(["-"], workspaces=["default"], stdin=io.BytesIO(text.encode()), now=NOW)
    midnight = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
    assert [each.sent_at for each in pairs.read()] == [midnight, midnight, midnight, None]
    assert pairs.naive_times == 1


def test_parquet_keeps_text_and_times(tmp_path):
    """Ids of digits keep their zeros; timestamps and dates are times."""
    path = tmp_path / "pairs.parquet"
    duckdb.execute(
        "COPY (SELECT '007' AS campaign_id, 's' || i AS send_id, TIMESTAMP '2026-11-20' AS sent_at, 1 AS x "
        f"FROM range(5000) t(i)) TO '{path}'"
    )
    found = read(path)
    assert len(ids(found)) == 5000
    assert ids(found)[7] == ("007", "s7")
    assert found[0].sent_at == datetime(2026, 11, 20, tzinfo=UTC).timestamp()


def test_a_parquet_column_name_that_is_not_text_is_a_usage_error(tmp_path):
    """The error names the file."""
    path = tmp_path / "pairs.parquet"
    duckdb.execute(f"COPY (SELECT 'c' AS campaign_id, 's' AS send_id, 1 AS remark) TO '{path}'")
    path.write_bytes(path.read_bytes().replace(b"remark", b"re\xffark"))
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "No such file"),
        ("nofolder", None, "No such file or directory"),
        ("a.csv", b"sent_at\n", "must contain the columns campaign_id and send_id"),
        ("a.csv", b"x,y\n1,2\n", "found: x, y"),
        ("a.txt", b"", "unknown file type"),
        ("a.parquet", b"no", "Parquet"),
    ],
)
def test_a_file_that_is_not_a_list_is_a_usage_error(tmp_path, name, content, message):
    """The error names the file."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read(path)
    assert name in str(error.value)


def test_a_missing_file_is_a_usage_error_before_anything_is_read(tmp_path):
    """All files are checked first."""
    (tmp_path / "a.csv").write_text("campaign_id,send_id\nc,s\n")
    with pytest.raises(UsageError):
        Input([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], workspaces=["w"], stdin=io.BytesIO(), now=NOW)


@given(st.binary(max_size=300))
def test_any_bytes_are_pairs_or_bad_lines(noise):
    """Whatever bytes follow a header, no error is raised."""
    for first in (b"campaign_id,send_id\n", b'{"campaign_id":"c","send_id":"s"}\n'):
        for each in read("-", stdin=first + noise):
            assert isinstance(each, SentPair | BadLine)


def test_the_rejects_file_begins_anew_with_each_run(tmp_path):
    """A second run of the same command does not add the same bad lines again."""
    path = tmp_path / "rejects.ndjson"
    for _ in range(2):
        rejects = RejectsFile(path)
        rejects.add(BadLine("a.csv", 3, "send_id", "empty", "c,\x1b[31m"))
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["line"] == 3
    assert "\x1b" not in line
    RejectsFile(path)
    assert not Path(path).exists()
