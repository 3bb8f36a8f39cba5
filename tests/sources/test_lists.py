"""Tests of lists from spreadsheets and warehouses, and of lists with mistakes. None is misread."""

import json
import os
import threading
from datetime import UTC, datetime

import pytest

from harvester.errors import UsageError
from harvester.sources.send_times import SENDS_IN_MEMORY
from tests.support.currents import EMAIL, create_event, create_schema, encode_avro, write_currents_file, write_events
from tests.support.lists import DAY, HEADER, NOW, read_list, write_parquet


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("campaign_id,send_id,send_id", "fit send_id: 'send_id' is column 2, and 'send_id' is column 3"),
        ("campaign_id,send_id,sent_at,x, Sent_At ", "fit sent_at: 'sent_at' is column 3, and 'Sent_At' is column 5"),
        ("campaign_id,Send ID,sendId", "fit send_id: 'Send ID' is column 2, and 'sendId' is column 3"),
        (
            "campaign_id,send_id,sent_at,time",
            "'time' is column 4; remove one, or choose one with --column sent_at=NAME",
        ),
        ("campaign_api_id,x,campaign_api_id,send_id", "fit campaign_api_id: 'campaign_api_id' is column 1"),
    ],
)
def test_a_header_that_names_a_column_twice_is_refused_with_both_positions(header, message):
    """A join in a warehouse can produce two columns with the same name. Only the user knows which one is right."""
    with pytest.raises(UsageError, match=message):
        read_list(f"{header}\nc,s,t,u,v\n")


def test_other_columns_may_be_named_twice():
    """Columns that harvester does not use are ignored."""
    assert read_list("x,campaign_id,x,send_id\n1,c,2,s\n")[0] == {("c", "s"): None}


def test_a_parquet_file_that_names_a_column_twice_is_refused(tmp_path):
    """DuckDB would silently rename the second one."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 'c' AS campaign_id, 's' AS send_id, 't' AS send_ix")
    path.write_bytes(path.read_bytes().replace(b"send_ix", b"SEND_ID"))
    with pytest.raises(UsageError, match="'send_id' is column 2, and 'SEND_ID' is column 3"):
        read_list("", name=path)


@pytest.mark.parametrize(
    "line",
    [
        '{"campaign_id":"c","send_id":"s","send_id":"t"}',
        '{"campaign_id":"c","send_id":"s","send\\u005fid":"t"}',
        '{"campaign_id":"c","send_id":"s","SEND_ID":"t"}',
    ],
)
def test_an_object_that_names_a_field_twice_is_a_bad_line(line):
    """A parser would silently use the last one. Nested objects may contain the same name."""
    pairs, (bad,), _ = read_list(f'{{"campaign_id":"c","send_id":"good","x":{{"send_id":"y"}}}}\n{line}\n')
    assert (list(pairs), bad.field, "remove one" in bad.problem) == ([("c", "good")], "send_id", True)


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "c.csv", "a.ndjson", "b.ndjson", "a.parquet"])
def test_an_empty_list_causes_a_note_but_no_error(tmp_path, name):
    """A list may be empty on a day without sends: no bytes, only a header, or no rows."""
    contents = {"a.csv": "", "b.csv": HEADER, "c.csv": "\ufeff\r\n\n", "a.ndjson": "", "b.ndjson": "\n\n"}
    path = tmp_path / name
    if name == "a.parquet":
        write_parquet(path, "SELECT 'c' AS campaign_id, 's' AS send_id WHERE false")
    else:
        path.write_text(contents[name])
    pairs, bad, source = read_list("", name=path)
    assert (pairs, bad) == ({}, [])
    assert source.notes == [f"{path} contains no rows"]


def test_the_columns_of_an_empty_parquet_file_are_checked(tmp_path):
    """An empty list with the wrong columns is an error."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 1 AS user_id, 'x' AS name WHERE false")
    with pytest.raises(UsageError, match="must contain the columns campaign_id and send_id; found: user_id, name"):
        read_list("", name=path)


def test_the_name_of_a_parquet_file_does_not_affect_its_content(tmp_path):
    """A name with wildcards is one file, and names of folders such as ``a=b`` add no columns."""
    folder = tmp_path / "send_id=other"
    folder.mkdir()
    for name in ("a?.parquet", "ab.parquet", "a[1].parquet"):
        path = write_parquet(folder / "x.parquet", f"SELECT 'c' AS campaign_id, '{name}' AS send_id").rename(
            folder / name
        )
        assert list(read_list("", name=path)[0]) == [("c", name)]
    with pytest.raises(UsageError, match="must contain the columns"):
        read_list("", name=write_parquet(folder / "y.parquet", "SELECT 'c' AS campaign_id"))


def test_parquet_types_that_warehouses_write_are_read(tmp_path):
    """These are UUIDs, text as bytes, and times with a zone."""
    campaign = "4055e0cb-d5c3-4d52-8055-e0cbd5c3ad52"
    columns = (
        f"'{campaign}'::UUID AS campaign_id, 's'::BLOB AS send_id, TIMESTAMPTZ '2026-11-20 01:00:00+01' AS sent_at"
    )
    pairs, _, source = read_list("", name=write_parquet(tmp_path / "p.parquet", f"SELECT {columns}"))
    assert pairs == {(campaign, "s"): datetime(2026, 11, 20, tzinfo=UTC).timestamp()}
    assert source.naive_times == 0


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("['s'] AS send_id", r"column send_id is of type VARCHAR\[\]; write it as text"),
        ("16777217::FLOAT AS send_id", "column send_id is of type FLOAT, which rounds numbers of more than 7 digits"),
        ("'s' AS send_id, 1795161600::FLOAT AS sent_at", "column sent_at is of type FLOAT"),
        (r"'\xFF'::BLOB AS send_id", "bytes that are not UTF-8, for example UUIDs of 16 bytes; write it as text"),
    ],
)
def test_parquet_types_that_could_be_misread_are_refused(tmp_path, columns, problem):
    """The error says what to write instead."""
    path = write_parquet(tmp_path / "p.parquet", f"SELECT 'c' AS campaign_id, {columns}")
    with pytest.raises(UsageError, match=problem):
        read_list("", name=path)


SHARE_HEADER = "id,campaign_id,campaign_api_id,canvas_id,send_id,time\n"


def test_the_campaign_api_id_of_brazes_share_is_used():
    """The share's campaign_id is an internal id that the API refuses. Rows of a canvas are skipped."""
    rows = "e,bson,api,,s1,1795507209\ne,bson,api,,s1,1795507200\ne,bson,api,,,1795507200\ne,,,v,,1795507200\n"
    pairs, bad, source = read_list(SHARE_HEADER + rows, now=1795600000)
    assert (pairs, bad) == ({("api", "s1"): 1795507200}, [])
    assert source.skipped == {"events without send_id": 1, "events of a canvas": 1}
    assert "campaign_api_id is used as the campaign id" in source.notes[0]
    _, (bad,), _ = read_list(SHARE_HEADER + "e,bson,,,s1,1795507200\n", now=1795600000)
    assert bad.field == "campaign_api_id"
    line = '{"campaign_id":"bson","campaign_api_id":"api","send_id":"s1"}'
    assert list(read_list(line)[0]) == [("api", "s1")]


@pytest.mark.parametrize("sends", [1, SENDS_IN_MEMORY + 5])
def test_of_several_times_in_one_list_the_earliest_counts(sends):
    """An export may have one row for each user. A note reports it. The rule also applies to sends on disk."""
    at = [f"2026-11-2{day}T00:00:00Z" for day in (1, 0, 2)]
    text = HEADER + "".join(f"c,s{number},{when}\n" for when in at for number in range(sends))
    pairs, _, source = read_list(text)
    assert pairs == {("c", f"s{number}"): datetime(2026, 11, 20, tzinfo=UTC).timestamp() for number in range(sends)}
    assert f"{sends} of {sends} sends have several times; the earliest counts" in source.notes[0]


def test_the_latest_time_counts_once_the_earliest_is_beyond_retention():
    """The same rule applies to Currents. A missing time is ignored."""
    pairs, _, source = read_list(f"{HEADER}c,s,2026-10-01\nc,s,2026-11-20\nc,t,\nc,t,2026-11-20\nc,t,\n")
    assert set(pairs.values()) == {datetime(2026, 11, 20, tzinfo=UTC).timestamp()}
    assert "1 of 2 sends" in source.notes[0]


def test_a_folder_whose_name_is_percent_encoded_is_read(tmp_path):
    """Tools that copy between buckets encode names, sometimes twice."""
    for name in (f"event_type%3D{EMAIL}", f"event_type%253D{EMAIL}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.avro").write_bytes(encode_avro([create_event()], schema=create_schema(name="moved")))
    other = tmp_path / "event_type%3Dusers.messages.email.Open"
    other.mkdir()
    (other / "b.avro").write_bytes(b"not an Avro file")
    pairs, bad, source = read_list("", name=tmp_path)
    assert (list(pairs), bad, source.skipped) == ([("c", "s")], [], {"files of other event types": 1})
    assert source.lines == 2


async def test_currents_without_send_events_is_a_usage_error(harvester, tmp_path):
    """If the files have the right type but contain no events, this is not an error."""
    write_currents_file(tmp_path / "currents", b"not an Avro file", event_type="users.messages.email.Open")
    code, _, err = await harvester.run("enqueue", "currents")
    assert (code, "no file contains send events" in err) == (2, True), err
    write_events(tmp_path / "currents", [])
    code, out, _ = await harvester.run("enqueue", "currents")
    assert (code, "currents contains no events" in out) == (0, True), out


async def test_plan_shows_the_first_bad_lines_and_ends_with_3(harvester, tmp_path):
    """``enqueue`` and ``audit`` do the same. The readable part of the list is planned."""
    (tmp_path / "sends.csv").write_text(HEADER + "c,s,\n" + "".join(f"c,NULL,{at}\n" for at in range(5)))
    code, out, _ = await harvester.run("plan", "sends.csv")
    assert code == 3
    assert "requests   1" in out
    assert "unread     5 of 6 lines" in out
    assert [line.split(":")[1] for line in out.splitlines() if "sends.csv:" in line][1:] == ["3", "4", "5"]
    code, out, _ = await harvester.run("plan", "sends.csv", "--json")
    assert (code, json.loads(out)["bad_lines"], len(json.loads(out)["bad_line_reasons"])) == (3, 5, 3)
    code, out, _ = await harvester.run("enqueue", "sends.csv")
    assert (code, "sends.csv:3: send_id is 'NULL'" in out) == (3, True)
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert (code, "sends.csv:3: send_id is 'NULL'" in out) == (3, True)
    (tmp_path / "sends.csv").write_text("")
    code, out, _ = await harvester.run("plan", "sends.csv")
    assert (code, "note       sends.csv contains no rows" in out) == (0, True)


def test_an_infinite_time_is_a_bad_line(tmp_path):
    """DuckDB returns no value for an infinite time with a zone, which would look like a missing time."""
    path = write_parquet(
        tmp_path / "p.parquet", "SELECT 'c' AS campaign_id, 's' AS send_id, 'infinity'::TIMESTAMPTZ AS sent_at"
    )
    _, (bad,), _ = read_list("", name=path)
    assert bad.field == "sent_at"


def test_a_pipe_is_read_once_and_devices_are_refused(tmp_path):
    """A device may never end, and a pipe in a folder of Currents may never have a writer."""
    pipe, device, folder = tmp_path / "pipe.csv", tmp_path / "device.csv", tmp_path / "currents"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("campaign_id,send_id\nc,s\n",))
    writer.start()
    assert list(read_list("", name=pipe)[0]) == [("c", "s")]
    writer.join()
    device.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="it is a pipe, a device or a socket"):
        read_list("", name=device)
    os.mkfifo(write_events(folder, [create_event("c", "s", time=int(NOW) - DAY)]).with_name("pipe.avro"))
    pairs, (bad,), _ = read_list("", name=folder)
    assert list(pairs) == [("c", "s")]
    assert "it is a pipe" in bad.problem


def test_a_file_that_cannot_be_read_any_more_is_named(tmp_path):
    """The error contains the name if the disk fails, or if the file was removed meanwhile."""
    failing = tmp_path / "failing.csv"
    failing.symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match=r"failing\.csv: Input/output error; check the file"):
        read_list("", name=failing)


def test_events_without_any_ids_cause_a_note(tmp_path):
    """Events of another schema must not look like a day without sends."""
    write_events(tmp_path, [create_event("c", None, time=int(NOW) - DAY)])
    _, _, source = read_list("", name=tmp_path)
    assert source.skipped == {"events without send_id": 1}
    assert source.notes == [f"{tmp_path}: no event has a campaign_id and a send_id"]
