"""Tests of Currents: what counts as a send, its time, and that a damaged file does not affect the others."""

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
from harvester.model import BadLine, Batch, Captured, Pair, Rejected, SentPair, Settlement, Verdict
from harvester.sources import Input, RejectsFile
from harvester.storage.object_store import ObjectStore
from tests.support.currents import (
    DAY,
    EMAIL,
    NOW,
    SENT,
    TYPES,
    avro,
    event,
    put,
    read,
    schema,
)


def test_events_of_one_send_in_many_files_are_one_send_with_the_earliest_time(tmp_path):
    """A send to millions has millions of events in any order; its deadline counts from the first."""
    put(tmp_path, avro([event(when=SENT + 9), event(when=SENT + 7)]), name="a.avro")
    put(tmp_path, avro([event(when=SENT + 5), event("c2", when=SENT)]), name="b.avro")
    put(tmp_path, avro([event(when=SENT + 6)]), event_type="users.messages.pushnotification.Send")
    sends, bad, source = read(tmp_path)
    assert sends == {("c", "s"): SENT + 5, ("c2", "s"): SENT}
    assert not bad
    assert source.lines == 5


def test_a_send_id_that_is_used_for_weeks_does_not_expire_with_its_oldest_event(tmp_path):
    """Once the earliest event is beyond retention, the latest one counts."""
    put(tmp_path, avro([event(when=int(NOW) - age * DAY) for age in (40, 20, 2)]), name="a.avro")
    put(tmp_path, avro([event(send_id="over", when=int(NOW) - age * DAY) for age in (40, 30)]), name="b.avro")
    sends, _, _ = read(tmp_path)
    assert sends == {("c", "s"): NOW - 2 * DAY, ("c", "over"): NOW - 30 * DAY}


def test_every_version_of_the_schema_is_read(tmp_path):
    """Braze adds, drops and moves fields; one bucket contains files of all years."""
    oldest = {key: TYPES[key] for key in ("id", "user_id", "time", "email_address", "campaign_id", "send_id")}
    backwards = dict(reversed(TYPES.items()))
    annotated = TYPES | {
        "time": {"type": "int", "connect.doc": "unix timestamp"}, "campaign_id": ["null", {"type": "string", "x": "y"}],
    }  # fmt: skip
    longer = TYPES | {"time": "long", "link_tags": {"type": "array", "items": "string"}}
    without_send_id = {key: kind for key, kind in TYPES.items() if key != "send_id"}
    for at, types in enumerate((TYPES, oldest, backwards, annotated, longer, without_send_id)):
        put(tmp_path, avro([event(send_id=f"s{at}", link_tags=["a"])], kind=schema(types)), name=f"{at}.avro")
    sends, bad, source = read(tmp_path)
    assert sends == {("c", f"s{at}"): SENT for at in range(5)}
    assert not bad
    assert source.skipped == {"events without send_id": 1}


def test_events_without_a_send_id_are_skipped_and_counted_by_cause(tmp_path):
    """Most events of Currents are of canvases and of campaigns without a send id; none of them is a bad line."""
    events = [
        event(None, None, canvas_id="v"), event(None, "s", canvas_id="v"), event(None, None), event(send_id=None),
        event(send_id=None, canvas_id="v"), event("both", canvas_id="v"),
    ]  # fmt: skip
    put(tmp_path, avro(events))
    sends, bad, source = read(tmp_path)
    assert list(sends) == [("both", "s")]
    assert not bad
    causes = {"events of a canvas": 2, "events without campaign_id": 1, "events without send_id": 2}
    assert source.skipped == causes


@pytest.mark.parametrize("other", ["users.messages.email.Open", "users.messages.sms.CarrierSend", "users.SendX"])
def test_files_of_other_event_types_are_skipped_unopened(tmp_path, other):
    """Only types that end in .Send report sends, and the path is enough to tell."""
    put(tmp_path, b"never looked at", event_type=other, name="a.avro")
    (tmp_path / "b.avro").write_bytes(avro([event()], kind=schema(name=f"dataexport.S3.inner.{other}")))
    put(tmp_path, avro([event("c2")]), name="c.avro")
    sends, bad, source = read(tmp_path)
    assert (list(sends), bad) == ([("c2", "s")], [])
    assert source.skipped == {"files of other event types": 2}


@pytest.mark.parametrize("name", [f"dataexport.GCS.inner.{EMAIL}", EMAIL, "users.messages.sms.send"])
def test_the_record_name_is_the_event_type_if_the_path_names_none(tmp_path, name):
    """Files that were moved out of their folders are read too."""
    (tmp_path / "moved.avro").write_bytes(avro([event()], kind=schema(name=name)))
    assert read(tmp_path / "moved.avro")[0] == {("c", "s"): SENT}


def test_the_innermost_event_type_of_a_path_counts(tmp_path):
    """A copy below the folder of another type keeps its own type."""
    path = tmp_path / "event_type=users.messages.email.Open" / f"event_type={EMAIL}" / "a.avro"
    path.parent.mkdir(parents=True)
    path.write_bytes(avro([event()]))
    assert read(tmp_path)[0] == {("c", "s"): SENT}


@pytest.mark.parametrize(
    ("wrong", "field", "problem"),
    [
        ({"send_id": "x" * 65}, "send_id", "longer than 64"),
        ({"send_id": "é"}, "send_id", "printable ASCII"),
        ({"campaign_id": "a\0b"}, "campaign_id", "printable ASCII"),
        ({"campaign_id": ""}, "campaign_id", "empty"),
        ({"time": 2_033_802_504}, "time", "future"),
        ({"time": int(NOW) * 1000}, "time", "future"),
        ({"time": -1}, "time", "before 1970"),
    ],
)
def test_a_bad_event_is_reported_with_file_number_and_field_and_the_others_are_read(tmp_path, wrong, field, problem):
    """Ids follow the rules of lists, test events of a dashboard are years ahead, and no address is quoted."""
    path = put(tmp_path, avro([event("a"), event() | wrong, event("z")], kind=schema(TYPES | {"time": "long"})))
    sends, (bad,), _ = read(tmp_path)
    assert list(sends) == [("a", "s"), ("z", "s")]
    assert (bad.source, bad.line, bad.field) == (str(path), 2, field)
    assert problem in bad.problem
    assert "example.com" not in bad.text


@pytest.mark.parametrize(
    ("types", "field"),
    [
        ({"campaign_id": "string", "send_id": "long", "time": "int"}, "send_id"),
        ({"campaign_id": "string", "send_id": "string"}, "time"),
        ({"campaign_id": "string", "send_id": "string", "time": "string"}, "time"),
    ],
)
def test_a_field_of_an_unexpected_type_is_a_bad_line(tmp_path, types, field):
    """If Braze changes a field, the rejects show it and nothing is guessed."""
    values = {"send_id": 7 if types["send_id"] == "long" else "s", "time": "soon" if field == "time" else SENT}
    put(tmp_path, avro([event() | values], kind=schema(types)))
    sends, (bad,), _ = read(tmp_path)
    assert not sends
    assert bad.field == field


def test_an_unreadable_file_is_one_bad_line_and_the_others_are_read(tmp_path):
    """Noise, an empty file and a dangling link are one bad line each."""
    put(tmp_path, avro([event("a")]), name="1.avro")
    put(tmp_path, b"no Avro at all", name="2.avro")
    put(tmp_path, b"", name="3.avro")
    put(tmp_path, b"", name="4.avro").with_name("5.avro").symlink_to("nowhere")
    put(tmp_path, avro([event("z")]), name="6.avro")
    (tmp_path / "notes.txt").write_text("not ours")
    sends, bad, _ = read(tmp_path)
    assert list(sends) == [("a", "s"), ("z", "s")]
    assert [Path(each.source).name for each in bad] == ["2.avro", "3.avro", "4.avro", "5.avro"]
    assert "No such file" in bad[3].problem


def test_a_wrong_place_is_a_usage_error_before_anything_is_read(tmp_path):
    """A wrong folder, a missing file and a missing workspace are reported with what to do."""
    with pytest.raises(UsageError, match=r"no \.avro file"):
        read(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "missing.avro")
    put(tmp_path, avro([event()]))
    with pytest.raises(UsageError, match="--workspace NAME"):
        read(tmp_path, workspaces=("one", "two"))


def test_a_file_name_that_is_not_text_can_be_reported(tmp_path):
    """File names are bytes; a name that is not UTF-8 can be written to the rejects."""
    rejects = RejectsFile(tmp_path / "rejects.ndjson")
    rejects.add(BadLine("a\udcff.avro", 0, "", "cannot be read", ""))
    assert json.loads(rejects.path.read_text())["source"] == "a\\udcff.avro"


async def test_enqueue_and_plan_take_a_folder_of_currents(harvester, tmp_path):
    """As with any list: pairs are new once and known later, and skipped events are counted."""
    now = int(time.time())
    put(tmp_path / "currents", avro([event(f"c{at}", when=now - DAY) for at in range(5)] + [event(None)]))
    (tmp_path / "empty").mkdir()
    _, out, _ = await harvester.run("plan", "currents", "--json")
    assert json.loads(out)["requests"] == 5
    code, out, _ = await harvester.run("enqueue", "currents")
    assert (code, out) == (0, "5 pairs are new, 0 were known\nskipped    events without campaign_id: 1\n")
    put(tmp_path / "currents", b"broken", name="b.avro")
    code, out, _ = await harvester.run("enqueue", "currents")
    assert code == 3
    assert out.startswith("0 pairs are new, 5 were known, 1 line unreadable")
    assert "b.avro" in (tmp_path / "harvest/.harvester/rejects.ndjson").read_text()
    code, _, err = await harvester.run("enqueue", "empty")
    assert code == 2
    assert err.startswith("harvester: empty: the folder and its subfolders contain no .avro files")


async def prepare_ledger(path, now):
    """A ledger in which ``s1`` is captured, ``s2`` rejected, ``s3`` and ``again`` expired, and ``s4`` pending."""
    captured, rejected = Captured(Verdict.ACTIVITY, now, b"", 1), Rejected("status_400", "no")
    old = now - 20 * DAY
    sent = {"s1": now - DAY, "s2": now - DAY, "s3": old, "again": old, "s4": now - DAY}
    async with await Ledger.open(path, clock=SystemClock()) as ledger:
        arrivals = [SentPair(Pair("default", "c", send), when) for send, when in sent.items()]
        await ledger.intake.enqueue(arrivals)
        readings = await ledger.batches.claim({"default": 2})
        outcomes = {"s1": captured, "s2": rejected}
        settled = [Settlement(each, outcomes[each.pair.send_id]) for each in readings]
        assert await ledger.batches.seal(Batch.open(now), settled, [])
        await ledger.intake.enqueue([SentPair(Pair("default", "c", "overdue"), old)])
        wanted = [Pair("default", "c", send) for send in (*sent, "overdue", "nobody")]
        return await ledger.reports.find(wanted)


async def test_the_ledger_finds_the_state_of_many_pairs_at_once(tmp_path):
    """An overdue pair counts as expired even if no capture has run since."""
    states = await prepare_ledger(tmp_path / "ledger.db", time.time())
    assert {pair.send_id: state for pair, state in states.items()} == {
        "s1": "captured", "s2": "rejected", "s3": "expired", "again": "expired", "s4": "pending", "overdue": "expired",
    }  # fmt: skip


async def test_audit_reports_the_sends_that_the_ledger_misses(harvester, tmp_path):
    """It separates unknown, expired and rejected sends, and readable from lost ones; 3 until nothing is missing."""
    now = int(time.time())
    ledger = tmp_path / "harvest/.harvester/ledger.db"
    ledger.parent.mkdir(parents=True)
    await prepare_ledger(ledger, now)
    rejects = ledger.with_name("rejects.ndjson")
    rejects.write_text("of the last run")
    recent = [event(send_id=send, when=now - DAY) for send in ("s1", "s2", "s4", "again", "new")]
    put(tmp_path / "currents", avro([*recent, event(send_id="s3", when=now - 20 * DAY), event(send_id=None)]))
    put(tmp_path / "currents", avro([event(send_id="gone", when=now - 16 * DAY)]), name="b.avro")
    code, out, err = await harvester.run("audit", "currents", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert {each["send_id"]: (each["state"], each["readable"]) for each in listed} == {
        "s2": ("rejected", True), "s3": ("expired", False), "again": ("expired", True), "new": ("unknown", True),
        "gone": ("unknown", False),
    }  # fmt: skip
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
    """More pairs than a page are enqueued and then found; without a ledger, audit is a usage error."""
    lines = "".join(f"c,s{at}\n" for at in range(4500))
    (tmp_path / "sends.csv").write_text(f"campaign_id,send_id\n{lines}")
    code, _, err = await harvester.run("audit", "sends.csv")
    assert code == 2
    assert "there is no ledger" in err
    code, out, _ = await harvester.run("audit", "sends.csv", "--enqueue", "--json")
    assert (code, len(out.splitlines())) == (0, 4500)
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert (code, out.splitlines()[0]) == (0, "covered    4500 of 4500 sends")
    (tmp_path / "sends.csv").write_text(f"campaign_id,send_id\n{lines},\n")
    code, out, _ = await harvester.run("audit", "sends.csv")
    assert code == 3
    assert "audit-rejects.ndjson" in out


async def test_a_long_scan_does_not_block_the_event_loop(tmp_path):
    """An interrupt or the progress view need not wait until all files are read."""
    for at in range(5):
        put(tmp_path, avro([event()]), name=f"{at}.avro")
    source = Input([str(tmp_path)], workspaces=["w"], stdin=io.BytesIO(), now=NOW)
    pages = source.read_pages(RejectsFile(tmp_path / "rejects.ndjson"))
    seen = []
    for page in pages:
        await asyncio.sleep(0)
        seen.append((len(page), source.lines))
    assert seen == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5)]


async def test_audit_reads_currents_in_a_bucket(stores, harvester, tmp_path, monkeypatch):
    """A bucket is read like a folder: damaged files and other objects do not stop the rest."""
    bucket = stores("moto")
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    place = ObjectStore(f"{bucket.url}/{uuid.uuid4()}/currents")
    recent = int(time.time()) - DAY
    objects = {
        f"event_type={EMAIL}/date=2026-11-20-17/a.avro": avro([event("c", "s1", recent), event("c", "s2", recent)]),
        f"event_type={EMAIL}/date=2026-11-20-18/b.avro": avro([event("c", "s1", recent - 60)], codec="deflate"),
        f"event_type={EMAIL}/date=2026-11-20-18/broken.avro": b"Obj\x01 and no more",
        "event_type=users.messages.email.Open/date=2026-11-20-18/c.avro": avro([event("c", "s9", recent)]),
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
    assert (code, "no .avro object" in err) == (2, True)
