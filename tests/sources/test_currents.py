"""Tests of Currents: which events report sends, their times, and files that cannot be read."""

import asyncio
import io
import json
import time
import uuid
from pathlib import Path

import pytest

from harvester.clock import SystemClock
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.model import BadLine, Batch, Captured, Pair, ReadingOutcome, Rejected, SentPair, Verdict
from harvester.sources import Input, RejectsFile
from harvester.storage.object_store import ObjectStore
from tests.support.currents import (
    DAY,
    EMAIL,
    NOW,
    SENT,
    TYPES,
    create_event,
    create_schema,
    encode_avro,
    read_currents,
    write_currents_file,
    write_events,
)


def test_events_of_one_send_in_many_files_are_one_send_with_the_earliest_time(tmp_path):
    """A send to millions of users has millions of events in any order. Its deadline counts from the first one."""
    write_events(tmp_path, [create_event(time=SENT + 9), create_event(time=SENT + 7)], name="a.avro")
    write_events(tmp_path, [create_event(time=SENT + 5), create_event("c2", time=SENT)], name="b.avro")
    write_events(tmp_path, [create_event(time=SENT + 6)], event_type="users.messages.pushnotification.Send")
    sends, bad, source = read_currents(tmp_path)
    assert sends == {("c", "s"): SENT + 5, ("c2", "s"): SENT}
    assert not bad
    assert source.lines == 5


def test_a_send_id_that_is_used_for_weeks_does_not_expire_with_its_oldest_event(tmp_path):
    """If the earliest event is beyond retention, the latest event counts."""
    write_events(tmp_path, [create_event(time=int(NOW) - age * DAY) for age in (40, 20, 2)], name="a.avro")
    write_events(tmp_path, [create_event(send_id="over", time=int(NOW) - age * DAY) for age in (40, 30)], name="b.avro")
    sends, _, _ = read_currents(tmp_path)
    assert sends == {("c", "s"): NOW - 2 * DAY, ("c", "over"): NOW - 30 * DAY}


def test_every_version_of_the_schema_is_read(tmp_path):
    """Braze adds, removes and moves fields, and one bucket contains files of many years."""
    oldest = {key: TYPES[key] for key in ("id", "user_id", "time", "email_address", "campaign_id", "send_id")}
    reversed_order = dict(reversed(TYPES.items()))
    with_annotations = TYPES | {
        "time": {"type": "int", "connect.doc": "unix timestamp"},
        "campaign_id": ["null", {"type": "string", "x": "y"}],
    }
    with_long_time = TYPES | {"time": "long", "link_tags": {"type": "array", "items": "string"}}
    without_send_id = {key: kind for key, kind in TYPES.items() if key != "send_id"}
    for at, types in enumerate((TYPES, oldest, reversed_order, with_annotations, with_long_time, without_send_id)):
        write_events(
            tmp_path, [create_event(send_id=f"s{at}", link_tags=["a"])], schema=create_schema(types), name=f"{at}.avro"
        )
    sends, bad, source = read_currents(tmp_path)
    assert sends == {("c", f"s{at}"): SENT for at in range(5)}
    assert not bad
    assert source.skipped == {"events without send_id": 1}


def test_events_without_a_send_id_are_skipped_and_counted_by_cause(tmp_path):
    """Most events of Currents belong to canvases or to campaigns without a send id. They are not bad lines."""
    events = [
        create_event(None, None, canvas_id="v"),
        create_event(None, "s", canvas_id="v"),
        create_event(None, None),
        create_event(send_id=None),
        create_event(send_id=None, canvas_id="v"),
        create_event("both", canvas_id="v"),
    ]
    write_events(tmp_path, events)
    sends, bad, source = read_currents(tmp_path)
    assert list(sends) == [("both", "s")]
    assert not bad
    causes = {"events of a canvas": 2, "events without campaign_id": 1, "events without send_id": 2}
    assert source.skipped == causes


@pytest.mark.parametrize("other", ["users.messages.email.Open", "users.messages.sms.CarrierSend", "users.SendX"])
def test_files_of_other_event_types_are_skipped_unopened(tmp_path, other):
    """Only types that end in .Send report sends. If the path names another type, the file is not opened."""
    write_currents_file(tmp_path, b"not an Avro file", event_type=other, name="a.avro")
    (tmp_path / "b.avro").write_bytes(
        encode_avro([create_event()], schema=create_schema(name=f"dataexport.S3.inner.{other}"))
    )
    write_events(tmp_path, [create_event("c2")], name="c.avro")
    sends, bad, source = read_currents(tmp_path)
    assert (list(sends), bad) == ([("c2", "s")], [])
    assert source.skipped == {"files of other event types": 2}


@pytest.mark.parametrize("name", [f"dataexport.GCS.inner.{EMAIL}", EMAIL, "users.messages.sms.send"])
def test_the_record_name_is_the_event_type_if_the_path_names_none(tmp_path, name):
    """Files that were moved out of their folders are read."""
    (tmp_path / "moved.avro").write_bytes(encode_avro([create_event()], schema=create_schema(name=name)))
    assert read_currents(tmp_path / "moved.avro")[0] == {("c", "s"): SENT}


def test_the_last_event_type_in_a_path_counts(tmp_path):
    """A folder that was copied into the folder of another type keeps its own type."""
    path = tmp_path / "event_type=users.messages.email.Open" / f"event_type={EMAIL}" / "a.avro"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_avro([create_event()]))
    assert read_currents(tmp_path)[0] == {("c", "s"): SENT}


@pytest.mark.parametrize(
    ("wrong", "field", "problem"),
    [
        ({"send_id": "x" * 65}, "send_id", "longer than 64"),
        ({"send_id": "é"}, "send_id", "printable ASCII"),
        ({"campaign_id": "a\0b"}, "campaign_id", "printable ASCII"),
        ({"campaign_id": ""}, "campaign_id", "empty"),
        ({"time": 2_033_802_504}, "time", "future"),
        ({"time": 7}, "time", "no time between 2000 and 2100"),
        ({"time": -1}, "time", "before 1970"),
    ],
)
def test_a_bad_event_is_reported_with_file_number_and_field_and_the_others_are_read(tmp_path, wrong, field, problem):
    """Ids follow the rules of lists, a time in the future is invalid, and the report quotes no email address."""
    path = write_events(
        tmp_path,
        [create_event("a"), create_event() | wrong, create_event("z")],
        schema=create_schema(TYPES | {"time": "long"}),
    )
    sends, (bad,), _ = read_currents(tmp_path)
    assert list(sends) == [("a", "s"), ("z", "s")]
    assert (bad.source, bad.line, bad.field) == (str(path), 2, field)
    assert problem in bad.problem
    assert "example.com" not in bad.text


@pytest.mark.parametrize(
    ("types", "field"),
    [
        ({"campaign_id": "string", "send_id": "double", "time": "int"}, "send_id"),
        ({"campaign_id": "string", "send_id": "string"}, "time"),
        ({"campaign_id": "string", "send_id": "string", "time": "string"}, "time"),
    ],
)
def test_a_field_of_an_unexpected_type_is_a_bad_line(tmp_path, types, field):
    """If Braze changes the type of a field, the rejects file shows it."""
    values = {"send_id": 7.5 if types["send_id"] == "double" else "s", "time": "soon" if field == "time" else SENT}
    write_events(tmp_path, [create_event() | values], schema=create_schema(types))
    sends, (bad,), _ = read_currents(tmp_path)
    assert not sends
    assert bad.field == field


def test_an_unreadable_file_is_one_bad_line_and_the_others_are_read(tmp_path):
    """A file that is not Avro, an empty file and a broken link are one bad line each."""
    write_events(tmp_path, [create_event("a")], name="1.avro")
    write_currents_file(tmp_path, b"no Avro at all", name="2.avro")
    write_currents_file(tmp_path, b"", name="3.avro")
    write_currents_file(tmp_path, b"", name="4.avro").with_name("5.avro").symlink_to("nowhere")
    write_events(tmp_path, [create_event("z")], name="6.avro")
    (tmp_path / "notes.txt").write_text("not ours")
    sends, bad, _ = read_currents(tmp_path)
    assert list(sends) == [("a", "s"), ("z", "s")]
    assert [Path(each.source).name for each in bad] == ["2.avro", "3.avro", "4.avro", "5.avro"]
    assert "No such file" in bad[3].problem


def test_a_wrong_place_is_a_usage_error_before_anything_is_read(tmp_path):
    """The error for a wrong folder, a missing file or a missing workspace says what is wrong."""
    with pytest.raises(UsageError, match="no lists and no files of Currents"):
        read_currents(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        read_currents(tmp_path / "missing.avro")
    write_events(tmp_path, [create_event()])
    with pytest.raises(UsageError, match="--workspace NAME"):
        read_currents(tmp_path, workspaces=("one", "two"))


def test_a_file_name_that_is_not_utf8_can_be_reported(tmp_path):
    """The rejects file contains it with escapes."""
    rejects = RejectsFile(tmp_path / "rejects.ndjson")
    rejects.add(BadLine("a\udcff.avro", 0, "", "cannot be read", ""))
    assert json.loads(rejects.path.read_text())["source"] == "a\\udcff.avro"


async def test_enqueue_and_plan_take_a_folder_of_currents(harvester, tmp_path):
    """Pairs are new the first time and known later, skipped events are counted, and a broken file is a bad line."""
    now = int(time.time())
    write_events(
        tmp_path / "currents", [create_event(f"c{at}", time=now - DAY) for at in range(5)] + [create_event(None)]
    )
    (tmp_path / "empty").mkdir()
    _, out, _ = await harvester.run("plan", "currents", "--json")
    assert json.loads(out)["requests"] == 5
    code, out, _ = await harvester.run("enqueue", "currents")
    assert (code, out.splitlines()[-1]) == (0, "skipped    events without campaign_id: 1")
    write_currents_file(tmp_path / "currents", b"broken", name="b.avro")
    code, out, _ = await harvester.run("enqueue", "currents")
    assert code == 3
    assert out.startswith("0 pairs are new, 5 were known, 1 line unreadable")
    assert "b.avro" in (tmp_path / "harvest/.harvester/rejects.ndjson").read_text()
    code, _, err = await harvester.run("enqueue", "empty")
    assert code == 2
    assert err.startswith("harvester: empty: there are no lists and no files of Currents")


async def prepare_ledger(path, now):
    """Create a ledger and return the states of its pairs.

    ``s1`` is captured, ``s2`` rejected, ``s3`` and ``again`` expired, ``s4`` pending, and ``overdue`` not read in time.
    """
    captured, rejected = Captured(Verdict.ACTIVITY, now, b"", 1), Rejected("status_400", "no")
    old = now - 20 * DAY
    sent = {"s1": now - DAY, "s2": now - DAY, "s3": old, "again": old, "s4": now - DAY}
    async with await Ledger.open(path, clock=SystemClock()) as ledger:
        arrivals = [SentPair(Pair("default", "c", send), when) for send, when in sent.items()]
        await ledger.intake.enqueue(arrivals)
        readings = await ledger.batches.claim({"default": 2})
        outcomes = {"s1": captured, "s2": rejected}
        settled = [ReadingOutcome(each, outcomes[each.pair.send_id]) for each in readings]
        assert await ledger.batches.seal([(Batch.open(now), settled, [])])
        await ledger.intake.enqueue([SentPair(Pair("default", "c", "overdue"), old)])
        wanted = [Pair("default", "c", send) for send in (*sent, "overdue", "nobody")]
        return await ledger.reports.find(wanted)


async def test_the_ledger_finds_the_state_of_many_pairs_at_once(tmp_path):
    """An overdue pair counts as expired, even if no capture has run since its deadline."""
    states = await prepare_ledger(tmp_path / "ledger.db", time.time())
    assert {pair.send_id: state for pair, state in states.items()} == {
        "s1": "captured",
        "s2": "rejected",
        "s3": "expired",
        "again": "expired",
        "s4": "pending",
        "overdue": "expired",
    }


async def test_audit_reports_the_sends_that_the_ledger_misses(harvester, tmp_path):
    """It lists unknown, expired and rejected sends, and whether they are still readable. The exit code is 3."""
    now = int(time.time())
    ledger = tmp_path / "harvest/.harvester/ledger.db"
    ledger.parent.mkdir(parents=True)
    await prepare_ledger(ledger, now)
    rejects = ledger.with_name("rejects.ndjson")
    rejects.write_text("of the last run")
    recent = [create_event(send_id=send, time=now - DAY) for send in ("s1", "s2", "s4", "again", "new")]
    write_events(
        tmp_path / "currents", [*recent, create_event(send_id="s3", time=now - 20 * DAY), create_event(send_id=None)]
    )
    write_events(tmp_path / "currents", [create_event(send_id="gone", time=now - 16 * DAY)], name="b.avro")
    code, out, err = await harvester.run("audit", "currents", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert {each["send_id"]: (each["state"], each["readable"]) for each in listed} == {
        "s2": ("rejected", True),
        "s3": ("expired", False),
        "again": ("expired", True),
        "new": ("unknown", True),
        "gone": ("unknown", False),
    }
    counts = json.loads(err)
    assert (counts["sends"], counts["covered"], counts["enqueued"]) == (7, 2, 0)
    assert counts["unknown"] == {"readable": 1, "lost": 1}
    assert counts["skipped"] == {"events without send_id": 1}
    code, out, _ = await harvester.run("audit", "currents", "--enqueue")
    assert (code, "enqueued   2; harvester run" in out, "\x1b" in out) == (3, True, False)
    _, _, err = await harvester.run("audit", "currents", "--json")
    assert json.loads(err)["covered"] == 4
    assert rejects.read_text() == "of the last run"


async def test_audit_of_a_list_ends_with_0_once_all_sends_are_covered(harvester, tmp_path):
    """It works for more pairs than one page. Without a ledger, audit is a usage error."""
    lines = "".join(f"c,s{at}\n" for at in range(4500))
    (tmp_path / "sends.csv").write_text(f"campaign_id,send_id\n{lines}")
    code, _, err = await harvester.run("audit", "sends.csv")
    assert code == 2
    assert "there is no ledger" in err
    code, out, _ = await harvester.run("audit", "sends.csv", "--enqueue", "--json")
    assert (code, len(out.splitlines())) == (0, 4500)
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert (code, out.splitlines()[0]) == (0, "covered    4500 of 4500 sends")
    (tmp_path / "sends.csv").write_text(f"campaign_id,send_id\n{lines}c,\n")
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert code == 3
    assert "audit-rejects.ndjson" in out


async def test_a_long_scan_does_not_block_the_event_loop(tmp_path):
    """The input yields a page after each file, so an interrupt or the progress view is handled in between."""
    for at in range(5):
        write_events(tmp_path, [create_event()], name=f"{at}.avro")
    source = Input([str(tmp_path)], workspaces=["w"], stdin=io.BytesIO(), now=NOW)
    pages = source.read_pages(RejectsFile(tmp_path / "rejects.ndjson"))
    progress = []
    for page in pages:
        await asyncio.sleep(0)
        progress.append((len(page), source.lines))
    assert progress == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5)]


async def test_audit_reads_currents_in_a_bucket(stores, harvester, tmp_path, monkeypatch):
    """A bucket is read like a folder. Damaged files and other objects do not prevent reading the others."""
    bucket = stores("moto")
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    place = ObjectStore(f"{bucket.url}/{uuid.uuid4()}/currents")
    recent = int(time.time()) - DAY
    objects = {
        f"event_type={EMAIL}/date=2026-11-20-17/a.avro": encode_avro(
            [create_event("c", "s1", recent), create_event("c", "s2", recent)]
        ),
        f"event_type={EMAIL}/date=2026-11-20-18/b.avro": encode_avro(
            [create_event("c", "s1", recent - 60)], codec="deflate"
        ),
        f"event_type={EMAIL}/date=2026-11-20-18/broken.avro": b"Obj\x01 and no more",
        "event_type=users.messages.email.Open/date=2026-11-20-18/c.avro": encode_avro(
            [create_event("c", "s9", recent)]
        ),
        "a note.txt": b"no Avro",
    }
    for name, data in objects.items():
        await place.create(name, data)
    harvester.env |= bucket.env
    code, out, err = await harvester.run("audit", place.url, "--enqueue", "--json")
    assert code == 3, err
    assert {json.loads(line)["send_id"] for line in out.splitlines()} == {"s1", "s2"}
    assert "broken.avro" in (tmp_path / "harvest/.harvester/audit-rejects.ndjson").read_text()
    code, out, err = await harvester.run("enqueue", f"{place.url}/event_type={EMAIL}/date=2026-11-20-18/b.avro")
    assert (code, out.split(",")[0]) == (0, "0 pairs are new"), err
    code, _, err = await harvester.run("audit", f"{bucket.url}/{uuid.uuid4()}")
    assert (code, "no lists and no files of Currents" in err) == (2, True)
