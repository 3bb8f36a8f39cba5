"""What the ledger says about one send: its readings and what it waits for, found by an index."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    Batch,
    Captured,
    Deferred,
    Pair,
    Part,
    ReadingOutcome,
    Rejected,
    SentPair,
    Verdict,
)
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_file import count_rows, explained, only_sqlite, recorded_statements

NOW = 1_795_527_667.0


@pytest.fixture
def clock() -> SettableClock:
    """The ledger's clock."""
    return SettableClock(NOW)


@pytest.fixture
async def ledger(location, clock) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    async with await Ledger.open(location, clock=clock) as opened:
        yield opened


async def enqueue(ledger: Ledger, *pairs: Pair, sent_at: float | None = NOW - 3600) -> None:
    """Enqueue pairs that were sent an hour ago."""
    await ledger.intake.enqueue([SentPair(pair, sent_at) for pair in pairs])


async def seal(ledger: Ledger, workspace: str, outcome: object, *, stored: bool = False) -> str:
    """Claim one reading of a workspace, and seal its outcome with one part; returns the part's name."""
    (reading,) = await ledger.batches.claim({workspace: 1})
    batch = Batch.open(NOW)
    part = Part(DATASET, f"{batch.id}.ndjson", "0", 1, 1, b"x", "d")
    assert await ledger.batches.seal([(batch, [ReadingOutcome(reading, outcome)], [part])])
    if stored:
        assert await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="d")
    return part.name


async def test_a_send_id_is_found_in_each_campaign_and_workspace(ledger):
    """A campaign, workspaces or a limit narrow the search."""
    everywhere = [Pair("eu", "c1", "s"), Pair("eu", "c2", "s"), Pair("us", "c1", "s")]
    await enqueue(ledger, *everywhere, Pair("eu", "c1", "other"))
    for which, expected in (
        ({}, everywhere),
        ({"campaign_id": "c1"}, [everywhere[0], everywhere[2]]),
        ({"workspaces": ["eu"]}, everywhere[:2]),
        ({"campaign_id": "c9"}, []),
    ):
        found = await ledger.reports.find_sends("s", **which, limit=10)
        assert ([each.pair for each in found.sends], found.more) == (expected, False)
    found = await ledger.reports.find_sends("s", limit=2)
    assert ([each.pair for each in found.sends], found.more) == (everywhere[:2], True)


async def test_the_id_of_a_campaign_leads_to_its_sends(ledger):
    """A search by the wrong id says so, and names a pair that exists."""
    await enqueue(ledger, Pair("eu", "c1", "s1"), Pair("us", "c2", "s2"))
    assert (await ledger.reports.find_sends("c2", limit=10)).example == Pair("us", "c2", "s2")
    assert (await ledger.reports.find_sends("c2", campaign_id="c1", limit=10)).example is None


async def test_a_send_has_its_readings_in_order_with_their_parts(ledger, clock):
    """A capture names the part of its rows, and says whether it is stored; the next reading follows."""
    await ledger.intake.set_plans({"eu": ReadingPlan((1, 3, 7))})
    await enqueue(ledger, Pair("eu", "c", "s"))
    clock.now = NOW + 86_400
    first = await seal(ledger, "eu", Captured(Verdict.EMPTY, clock.now, b"", 0), stored=True)
    clock.now = NOW + 3 * 86_400
    second = await seal(ledger, "eu", Captured(Verdict.ACTIVITY, clock.now, b"", 0))
    ((send,), *_) = [(await ledger.reports.find_sends("s", limit=1)).sends]
    readings = [(each.name, each.verdict, each.part, each.stored_at is not None) for each in send.readings]
    assert readings == [("d1", "empty", first, True), ("d3", "activity", second, False)]
    assert send.next is not None
    assert (send.state, send.next.name, send.next.failures) == ("pending", "final", 0)
    assert send.next.due_at == pytest.approx(NOW - 3600 + 7 * 86_400, abs=300)


async def test_failed_attempts_and_the_reason_of_a_rejection_are_kept(ledger, clock):
    """A deferred reading counts its failures; a rejected one has Braze's response."""
    await enqueue(ledger, Pair("eu", "c", "s"))
    await seal(ledger, "eu", Deferred("timeout"))
    (send,) = (await ledger.reports.find_sends("s", limit=1)).sends
    assert send.next is not None
    assert (send.next.failures, send.next.due_at > NOW) == (1, True)
    clock.now += 60
    await seal(ledger, "eu", Rejected("status_404", "no such campaign"))
    (send,) = (await ledger.reports.find_sends("s", limit=1)).sends
    assert (send.state, send.next) == ("rejected", None)
    assert [(each.reason, each.detail, each.part) for each in send.readings] == [
        ("status_404", "no such campaign", None)
    ]


async def test_audit_and_show_agree_on_what_has_expired(ledger, clock):
    """A pair that came in time stays pending until it was attempted, since it is still requested once."""
    attempted, unattempted = Pair("eu", "c", "attempted"), Pair("us", "c", "unattempted")
    await enqueue(ledger, attempted, unattempted)
    await seal(ledger, "eu", Deferred("timeout"))
    clock.now = NOW + 20 * DAY_SECONDS
    states = {attempted: "expired", unattempted: "pending"}
    assert await ledger.reports.find(list(states)) == states
    for pair, state in states.items():
        (found,) = (await ledger.reports.find_sends(pair.send_id, limit=1)).sends
        assert found.state == state
    (claimed,) = await ledger.batches.claim({"eu": 1, "us": 1})
    assert claimed.pair == unattempted


async def test_a_due_send_counts_the_more_urgent_ones(ledger):
    """Only due readings of its workspace count, in the order in which they are claimed."""
    for hours, name in enumerate(("late", "later", "latest")):
        await enqueue(ledger, Pair("eu", "c", name), Pair("us", "c", name), sent_at=NOW - 86_400 + 3600 * hours)
    for hours, name in enumerate(("late", "later", "latest")):
        found = await ledger.reports.find_sends(name, workspaces=["eu"], limit=1)
        assert [each.next.ahead for each in found.sends if each.next] == [hours]


@only_sqlite
async def test_no_search_reads_all_pairs(ledger, location):
    """With ten million pairs a search takes milliseconds, since each statement uses an index."""
    await enqueue(ledger, *(Pair("eu", "c", f"s{n}") for n in range(50)))
    await seal(ledger, "eu", Captured(Verdict.ZERO, NOW, b"", 0))
    with recorded_statements(ledger) as statements:
        for which in ({}, {"campaign_id": "c"}, {"workspaces": ["eu", "us"]}):
            await ledger.reports.find_sends("s30", **which, limit=10)
        await ledger.reports.find_sends("c", limit=10)
    plan = explained(location, statements)
    assert not [line for line in plan if line.split()[:2] in (["SCAN", "pair"], ["SCAN", "outcome"], ["SCAN", "part"])]
    assert [line for line in plan if "pair_next (workspace=? AND (yields" in line], plan
    assert not [line for line in plan if "B-TREE" in line], plan


async def test_a_ledger_is_opened_to_read_beside_its_service(ledger, location, tmp_path, clock):
    """A reader sees what the service has committed, takes no lock, and changes nothing."""
    await enqueue(ledger, Pair("eu", "c", "s"))
    await ledger.batches.claim({"eu": 1})
    before = count_rows(location), list(tmp_path.glob("ledger.db.owners/*"))
    async with Ledger.open_to_read(location, clock=clock) as reports:
        assert len((await reports.find_sends("s", limit=1)).sends) == 1
        assert (count_rows(location), list(tmp_path.glob("ledger.db.owners/*"))) == before


async def test_a_ledger_that_does_not_exist_is_not_created_to_read(tmp_path, clock):
    """A wrong path is an error, and leaves no file."""
    with pytest.raises(LedgerError):
        async with Ledger.open_to_read(tmp_path / "none.db", clock=clock):
            pass
    assert not list(tmp_path.iterdir())


async def test_a_ledger_of_an_earlier_schema_is_not_upgraded_to_read(tmp_path, clock):
    """The error names the command that upgrades the ledger, and the file does not change."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent.parent / "ledgers" / "schema-5.sql").read_text())
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"has schema 5, .* run harvester ledger migrate"):
        async with Ledger.open_to_read(path, clock=clock):
            pass
    assert path.read_bytes() == before
