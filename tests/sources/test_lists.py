"""Tests of lists as people have them: what spreadsheets, warehouses and mistakes leave in them is never misread."""

import io
import json
import os
import threading
from datetime import UTC, datetime

import duckdb
import pytest

from harvester.errors import UsageError
from harvester.model import BadLine, Enqueued
from harvester.sources import Input, RejectsFile
from harvester.sources.lines import MAX_CHARACTERS
from harvester.sources.send_times import SENDS_IN_MEMORY
from tests.sources.test_currents import EMAIL, avro, event, put, schema

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
DAY = 86_400
HEAD = "campaign_id,send_id,sent_at\n"


def read(text, *, name=None, now=NOW, workspaces=("w",)):
    """Read a list; return ``{(campaign, send): sent_at}``, the bad lines and the input."""
    stdin = io.BytesIO(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    source = Input([str(name or "-")], workspaces=workspaces, stdin=stdin, now=now)
    found = list(source.read())
    pairs = {each.pair[1:]: each.sent_at for each in found if isinstance(each, Enqueued)}
    return pairs, [each for each in found if isinstance(each, BadLine)], source


def write_parquet(path, select):
    """Write a Parquet list."""
    duckdb.execute(f"COPY ({select}) TO '{path}'")
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("campaign_id,send_id,send_id", "send_id twice, as columns 2 and 3"),
        ("campaign_id,send_id,sent_at,x, Sent_At ", "sent_at twice, as columns 3 and 5"),
        ("campaign_id,send_id,SEND_ID", "send_id twice, as columns 2 and 3"),
        ("campaign_api_id,x,campaign_api_id,send_id", "campaign_api_id twice, as columns 1 and 3"),
    ],
)
def test_a_header_that_names_a_column_twice_is_refused_with_both_positions(header, message):
    """A join in a warehouse leaves two columns of one name, and either could be meant."""
    with pytest.raises(UsageError, match=message):
        read(f"{header}\nc,s,t,u,v\n")


def test_other_columns_may_be_named_twice():
    """They are not read."""
    assert read("x,campaign_id,x,send_id\n1,c,2,s\n")[0] == {("c", "s"): None}


def test_a_parquet_file_that_names_a_column_twice_is_refused(tmp_path):
    """DuckDB would silently rename the second one."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 'c' AS campaign_id, 's' AS send_id, 't' AS send_ix")
    path.write_bytes(path.read_bytes().replace(b"send_ix", b"SEND_ID"))
    with pytest.raises(UsageError, match="send_id twice, as columns 2 and 3"):
        read("", name=path)


@pytest.mark.parametrize(
    "line",
    [
        '{"campaign_id":"c","send_id":"s","send_id":"t"}',
        '{"campaign_id":"c","send_id":"s","send\\u005fid":"t"}',
        '{"campaign_id":"c","send_id":"s","SEND_ID":"t"}',
    ],
)
def test_an_object_that_names_a_field_twice_is_a_bad_line(line):
    """Parsers keep the last one; nested objects may use the name again."""
    pairs, (bad,), _ = read(f'{{"campaign_id":"c","send_id":"good","x":{{"send_id":"y"}}}}\n{line}\n')
    assert (list(pairs), bad.field, "twice" in bad.problem) == ([("c", "good")], "send_id", True)


def test_an_open_quote_is_reported_with_its_line_and_the_lines_it_includes():
    """All lines inside the quote count as unread, and those before it are read."""
    pairs, (bad,), source = read(f'{HEAD}c,s0,\n"c,s1,\nc,s2,\nc,s3,\n')
    assert list(pairs) == [("c", "s0")]
    assert (bad.line, bad.lines, source.lines) == (3, 3, 4)
    assert "begins in line 3 and never ends" in bad.problem


def test_a_quote_that_ends_in_a_cell_of_a_later_line_is_a_bad_line():
    """A stray quote ends at the next quote: the row between would be lost without notice."""
    pairs, (bad,), _ = read('campaign_id,send_id,name\nc,s1,"half\nc,s2,"whole"\nc,s3,x\n')
    assert (list(pairs), bad.line, bad.lines) == ([("c", "s3")], 2, 2)
    assert "begins in line 2 ends in the middle of a cell in line 3" in bad.problem


def test_line_numbers_count_line_ends_inside_cells():
    """A bad row after a cell of three lines is reported with its own line."""
    pairs, (bad,), source = read('campaign_id,send_id,x\nc,s1,"a\n""b""\nc"\nc,\n')
    assert (list(pairs), bad.line, source.lines) == ([("c", "s1")], 5, 4)


@pytest.mark.parametrize("length", [65_530, 131_073, 300_000])
def test_long_cells_headers_and_lines_are_read(length):
    """Exports contain message bodies, and pivot tables have wide headers. The next row is read too."""
    body = "x" * length
    assert list(read(f'campaign_id,send_id,body\nc,s1,"{body}"\nc,s2,{body}\n')[0]) == [("c", "s1"), ("c", "s2")]
    wide = ",".join(f"column{at}" for at in range(length // 9))
    assert list(read(f"campaign_id,{wide},send_id\nc,{',' * (length // 9 - 1)},s\n")[0]) == [("c", "s")]
    pairs, bad, source = read(
        f'{{"campaign_id":"c","send_id":"s1","x":"{body}"}}\n{{"campaign_id":"c","send_id":"s2"}}\n'
    )
    assert (list(pairs), bad, source.lines) == ([("c", "s1"), ("c", "s2")], [], 2)


@pytest.mark.parametrize(
    ("long", "after"),
    [
        ('{"campaign_id":"c","send_id":"s1","x":"%s"}', '{"campaign_id":"c","send_id":"s2"}'),
        ('c,"%s\n\n""\n",', "c,s2,"),
        ("c,%s,", "c,s2,"),
    ],
    ids=["ndjson", "quoted", "csv"],
)
def test_a_row_above_a_megabyte_is_one_bad_line(long, after):
    """The next row is read, whatever quotes and line ends the long one contains."""
    head = "" if long[0] == "{" else HEAD
    pairs, (bad,), _ = read(f"{head}{long.replace('%s', 'x' * MAX_CHARACTERS)}\n{after}\n")
    assert list(pairs) == [("c", "s2")]
    assert str(MAX_CHARACTERS) in bad.problem


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "c.csv", "a.ndjson", "b.ndjson", "a.parquet"])
def test_an_empty_list_is_not_an_error_and_has_a_note(tmp_path, name):
    """An empty day: no bytes, only a header, no object, no row."""
    contents = {"a.csv": "", "b.csv": HEAD, "c.csv": "\ufeff\r\n\n", "a.ndjson": "", "b.ndjson": "\n\n"}
    path = tmp_path / name
    if name == "a.parquet":
        write_parquet(path, "SELECT 'c' AS campaign_id, 's' AS send_id WHERE false")
    else:
        path.write_text(contents[name])
    pairs, bad, source = read("", name=path)
    assert (pairs, bad) == ({}, [])
    assert source.notes == [f"{path} contains no rows"]


def test_the_columns_of_an_empty_parquet_file_are_checked(tmp_path):
    """An empty day of the wrong table is the wrong table."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 1 AS user_id, 'x' AS name WHERE false")
    with pytest.raises(UsageError, match="must contain the columns campaign_id and send_id; found: user_id, name"):
        read("", name=path)


@pytest.mark.parametrize(("separator", "what"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_separator_is_refused_with_advice(separator, what):
    """Spreadsheets of many countries export semicolons."""
    advice = f"Columns must be separated by commas, but these are {what}: export the list again with commas"
    with pytest.raises(UsageError, match=advice):
        read(separator.join(("Campaign_ID", '"send_id"', "sent_at")) + "\n")


def test_the_name_of_a_parquet_file_does_not_affect_its_content(tmp_path):
    """A name with wildcards is one file, and folders add no columns."""
    folder = tmp_path / "send_id=other"
    folder.mkdir()
    for name in ("a?.parquet", "ab.parquet", "a[1].parquet"):
        path = write_parquet(folder / "x.parquet", f"SELECT 'c' AS campaign_id, '{name}' AS send_id").rename(
            folder / name
        )
        assert list(read("", name=path)[0]) == [("c", name)]
    with pytest.raises(UsageError, match="must contain the columns"):
        read("", name=write_parquet(folder / "y.parquet", "SELECT 'c' AS campaign_id"))


def test_parquet_types_that_warehouses_write_are_read(tmp_path):
    """UUIDs, bytes that are text, and times with a zone."""
    campaign = "4055e0cb-d5c3-4d52-8055-e0cbd5c3ad52"
    columns = (
        f"'{campaign}'::UUID AS campaign_id, 's'::BLOB AS send_id, TIMESTAMPTZ '2026-11-20 01:00:00+01' AS sent_at"
    )
    pairs, _, source = read("", name=write_parquet(tmp_path / "p.parquet", f"SELECT {columns}"))
    assert pairs == {(campaign, "s"): datetime(2026, 11, 20, tzinfo=UTC).timestamp()}
    assert source.naive_times == 0
    with pytest.raises(UsageError, match="column send_id is of type VARCHAR\\[\\]"):
        read("", name=write_parquet(tmp_path / "q.parquet", "SELECT 'c' AS campaign_id, ['s'] AS send_id"))


NO_IDS = [
    "NULL", "null", "\\N", "None", "nan", "NaN", "NaT", "<NA>", "N/A", "(null)", "undefined", "-",
    "#N/A", "#REF!", "#VALUE!", "#NAME?", "####", "1.23457E+11", "4.5E+15", "1E+11", "1,2E+10", "1.2e-7",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_IDS)
def test_placeholders_and_errors_of_databases_and_spreadsheets_are_bad_lines(text):
    """They are named, in either field and in every format."""
    lines = f'c,"{text}",\n"{text}",s,\n"=""{text}""",s,\nc,good,\n'
    pairs, bad, _ = read(HEAD + lines)
    assert list(pairs) == [("c", "good")]
    assert [(each.line, each.field) for each in bad] == [(2, "send_id"), (3, "campaign_id"), (4, "campaign_id")]
    assert all(f"'{text}'" in each.problem for each in bad)
    (again,) = read(json.dumps({"campaign_id": "c", "send_id": text}))[1]
    assert again.problem == bad[0].problem


def test_the_text_notation_of_spreadsheets_is_removed_from_ids():
    """Excel's ``="x"`` is x."""
    assert list(read(HEAD + '="c",="s-1",\n"=""c""","=""s """"2""""""",\n')[0]) == [("c", "s-1"), ("c", 's "2"')]


@pytest.mark.parametrize(
    "text", ["none", "NA", "24-Nov", "11/24/2026", "Nov-26", "'123", "=A1", "123.0", "1E11", "000"]
)
def test_a_doubtful_id_is_read_and_has_a_note(text):
    """A customer may use it as an id; a note names the first one and the number."""
    pairs, bad, source = read(f"{HEAD}c,{text},\nd,{text},\n")
    assert (list(pairs), bad) == ([("c", text), ("d", text)], [])
    (note,) = source.notes
    assert note.startswith(f"standard input:2: send_id {text!r} looks like")
    assert "(and 1 more)" in note


@pytest.mark.parametrize(
    "text",
    [
        "4055e0cb-d5c3-4d52-8055-e0cbd5c3ad52", "4055E0CB-D5C3-4D52-8055-E0CBD5C3AD52", "5f2ab3c4d5e6f708192a3b4c",
        "send-0000000", "2026-11-24T08:00:00", "20261124", "12E5", "c", "7", "Null Island", "autumn/1 a&b", "e+1",
    ],
)  # fmt: skip
def test_ordinary_ids_have_no_note(text):
    """UUIDs, hex, times and a customer's own words."""
    pairs, bad, source = read(f"{HEAD}{text},{text},\n")
    assert (list(pairs), bad, source.notes) == ([(text, text)], [], [])


def test_an_id_with_other_characters_is_a_bad_line_that_quotes_it_escaped(tmp_path):
    """Escapes, bells, C1 controls and direction marks."""
    ids = ["\x1b[31mred", "a\x07", "a\x9bb", "a\u202eb", "a\tb", "é", "a\x7f", "a\udcff"]
    rejects = RejectsFile(tmp_path / "rejects.ndjson")
    pairs, bad, _ = read(HEAD + "".join(f"c,{each},{each}\n" for each in ids))
    for each in bad:
        rejects.add(each)
    assert (pairs, len(bad)) == ({}, len(ids))
    written = rejects.path.read_text()
    assert all(line.isprintable() for line in written.splitlines() + rejects.reasons)
    assert [json.loads(json.loads(line)["text"])["send_id"] for line in written.splitlines()] == ids


def test_a_header_is_quoted_without_its_control_characters():
    """A file cannot send commands to a terminal."""
    with pytest.raises(UsageError) as refused:
        read("\x1b[31mcampaign\x1b[0m;send_id\n")
    assert "\\u001b[31mcampaign" in str(refused.value)
    assert str(refused.value).isprintable()


SHARE = "id,campaign_id,campaign_api_id,canvas_id,send_id,time\n"


def test_the_campaign_api_id_of_brazes_share_is_used():
    """Its campaign_id is internal, and the API refuses it; rows of a canvas are skipped."""
    rows = "e,bson,api,,s1,1795507209\ne,bson,api,,s1,1795507200\ne,bson,api,,,1795507200\ne,,,v,,1795507200\n"
    pairs, bad, source = read(SHARE + rows, now=1795600000)
    assert (pairs, bad) == ({("api", "s1"): 1795507200}, [])
    assert source.skipped == {"events without send_id": 1, "events of a canvas": 1}
    assert "campaign_api_id is used as the campaign id" in source.notes[0]
    _, (bad,), _ = read(SHARE + "e,bson,,,s1,1795507200\n", now=1795600000)
    assert bad.field == "campaign_api_id"
    line = '{"campaign_id":"bson","campaign_api_id":"api","send_id":"s1"}'
    assert list(read(line)[0]) == [("api", "s1")]


@pytest.mark.parametrize("sends", [1, SENDS_IN_MEMORY + 5])
def test_of_several_times_in_one_list_the_earliest_counts(sends):
    """An export may have one row for each user; a note says so. It also holds for sends beyond memory."""
    at = [f"2026-11-2{day}T00:00:00Z" for day in (1, 0, 2)]
    text = HEAD + "".join(f"c,s{number},{when}\n" for when in at for number in range(sends))
    pairs, _, source = read(text)
    assert pairs == {("c", f"s{number}"): datetime(2026, 11, 20, tzinfo=UTC).timestamp() for number in range(sends)}
    assert f"{sends} of {sends} sends have several times; the earliest counts" in source.notes[0]


def test_the_latest_time_counts_once_the_earliest_is_beyond_retention():
    """A missing time does not count. Events of Currents follow the same rule."""
    pairs, _, source = read(f"{HEAD}c,s,2026-10-01\nc,s,2026-11-20\nc,t,\nc,t,2026-11-20\nc,t,\n")
    assert set(pairs.values()) == {datetime(2026, 11, 20, tzinfo=UTC).timestamp()}
    assert "1 of 2 sends" in source.notes[0]


def test_a_folder_whose_name_is_percent_encoded_is_read(tmp_path):
    """Tools that copy between buckets encode names, some twice."""
    for name in (f"event_type%3D{EMAIL}", f"event_type%253D{EMAIL}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.avro").write_bytes(avro([event()], kind=schema(name="moved")))
    other = tmp_path / "event_type%3Dusers.messages.email.Open"
    other.mkdir()
    (other / "b.avro").write_bytes(b"not looked at")
    pairs, bad, source = read("", name=tmp_path)
    assert (list(pairs), bad, source.skipped) == ([("c", "s")], [], {"files of other event types": 1})
    assert source.lines == 2


async def test_currents_without_send_events_is_a_usage_error(harvester, tmp_path):
    """For audit and enqueue alike; a place of send files without events is an empty day."""
    put(tmp_path / "currents", b"never looked at", event_type="users.messages.email.Open")
    code, _, err = await harvester.run("enqueue", "currents")
    assert (code, "no file contains send events" in err) == (2, True), err
    put(tmp_path / "currents", avro([]))
    code, out, _ = await harvester.run("enqueue", "currents")
    assert (code, "currents contains no events" in out) == (0, True), out


async def test_plan_shows_the_first_bad_lines_and_ends_with_3(harvester, tmp_path):
    """As run and enqueue do; the readable part of the list is planned."""
    (tmp_path / "sends.csv").write_text(HEAD + "c,s,\n" + "".join(f"c,NULL,{at}\n" for at in range(5)))
    code, out, _ = await harvester.run("plan", "sends.csv")
    assert code == 3
    assert "calls      1" in out
    assert "unread     5 of 6 lines" in out
    assert [line.split(":")[1] for line in out.splitlines() if "sends.csv:" in line] == ["3", "4", "5"]
    code, out, _ = await harvester.run("plan", "sends.csv", "--json")
    assert (code, json.loads(out)["bad_lines"], len(json.loads(out)["bad_line_reasons"])) == (3, 5, 3)
    code, out, _ = await harvester.run("enqueue", "sends.csv")
    assert (code, "sends.csv:3: send_id is 'NULL'" in out) == (3, True)
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert (code, "sends.csv:3: send_id is 'NULL'" in out) == (3, True)
    (tmp_path / "sends.csv").write_text("")
    code, out, _ = await harvester.run("plan", "sends.csv")
    assert (code, "note       sends.csv contains no rows" in out) == (0, True)


def test_blanks_around_an_id_are_ignored_in_every_format(tmp_path):
    """Columns of a fixed width are padded with blanks, and Braze answers zeros for an unknown id."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 'c  '::VARCHAR AS campaign_id, ' s' AS send_id")
    folder = tmp_path / "currents"
    put(folder, avro([event("c  ", " s", when=int(NOW) - DAY)]))
    for pairs in (
        read('{"campaign_id": "c  ", "send_id": "\\ts "}\n')[0], read('campaign_id,send_id\nc ," s"\n')[0],
        read("", name=path)[0], read("", name=folder)[0],
    ):  # fmt: skip
        assert list(pairs) == [("c", "s")]


def test_a_repeated_header_between_rows_is_a_bad_line():
    """``cat a.csv b.csv`` leaves it there."""
    pairs, bad, _ = read("campaign_id,send_id\nc,s1\ncampaign_id,send_id\nc,s2\n")
    assert list(pairs) == [("c", "s1"), ("c", "s2")]
    assert [(each.line, each.field) for each in bad] == [(3, "campaign_id")]
    assert "repeats its header" in bad[0].problem


@pytest.mark.parametrize("second", ["send_id,campaign_id,x", "\ufeffsend_id,x,campaign_id", "x,campaign_id,send_id"])
def test_a_second_header_in_another_order_is_refused(second):
    """All rows after it would be misread."""
    with pytest.raises(UsageError, match=":3: a second header names the columns in another order"):
        read(f"campaign_id,send_id,x\nc,s1,1\n{second}\ns2,c,1\n")


@pytest.mark.parametrize("field", ["sent_at", "workspace", "time"])
def test_an_error_quotes_only_the_beginning_of_a_cell(field):
    """A cell of a megabyte is not printed to a terminal."""
    record = {"campaign_api_id": "c", "send_id": "s", field: "9" * 200_000}
    _, (bad,), _ = read(json.dumps(record) + "\n")
    assert bad.field == field
    assert len(bad.problem) < 300


def test_an_infinite_time_is_a_bad_line(tmp_path):
    """For one with a zone, DuckDB returns no value, which would be an unknown time."""
    path = write_parquet(
        tmp_path / "p.parquet", "SELECT 'c' AS campaign_id, 's' AS send_id, 'infinity'::TIMESTAMPTZ AS sent_at"
    )
    _, (bad,), _ = read("", name=path)
    assert bad.field == "sent_at"


def test_a_pipe_is_read_once_and_devices_are_refused(tmp_path):
    """A device may never end, and a pipe in a folder of Currents may never begin."""
    pipe, device, folder = tmp_path / "pipe.csv", tmp_path / "device.csv", tmp_path / "currents"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=("campaign_id,send_id\nc,s\n",))
    writing.start()
    assert list(read("", name=pipe)[0]) == [("c", "s")]
    writing.join()
    device.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="it is a pipe, a device or a socket"):
        read("", name=device)
    os.mkfifo(put(folder, avro([event("c", "s", when=int(NOW) - DAY)])).with_name("pipe.avro"))
    pairs, (bad,), _ = read("", name=folder)
    assert list(pairs) == [("c", "s")]
    assert "it is a pipe" in bad.problem


def test_a_file_that_cannot_be_read_any_more_is_named(tmp_path):
    """A disk that fails, or a file that was removed before its turn."""
    failing = tmp_path / "failing.csv"
    failing.symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match=r"failing\.csv: Input/output error; check the file"):
        read("", name=failing)


def test_events_without_any_ids_have_a_note(tmp_path):
    """Events of another schema must not look like an empty day."""
    put(tmp_path, avro([event("c", None, when=int(NOW) - DAY)]))
    _, _, source = read("", name=tmp_path)
    assert source.skipped == {"events without send_id": 1}
    assert source.notes == [f"{tmp_path}: no event names a send that has a campaign_id and a send_id"]
