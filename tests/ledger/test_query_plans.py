"""The ledger's frequent statements on PostgreSQL: each searches an index, however many pairs there are."""

import pytest

from harvester.ledger import Ledger
from harvester.model import DATASET, DAY_SECONDS, Deferred, Probe, ReadingOutcome, Rejected, Released
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_cycles import NOW, capture, list_sends
from tests.support.ledger_file import find_full_scans, query, recorded_statements

pytestmark = pytest.mark.long


@pytest.fixture
def clock():
    """The ledger's clock."""
    return SettableClock(NOW)


@pytest.fixture
async def ledger(database_url, clock):
    """A ledger with thousands of pairs, confirmed time, and a plan of two readings."""
    async with await Ledger.open(database_url, clock=clock) as opened:
        opened.clock.observe(NOW, sent=NOW, received=NOW)
        await opened.intake.enqueue(list_sends(3000, first=1000), once=True)
        await opened.intake.set_plan("w", ReadingPlan((0.01, 13.0)))
        yield opened


async def test_no_frequent_method_reads_all_rows_of_a_table(ledger, database_url):
    """On a ledger of a million pairs, what a service does all the time takes milliseconds."""
    intake, batches, upkeep, reports = ledger.intake, ledger.batches, ledger.upkeep, ledger.reports
    with recorded_statements(ledger) as statements:
        for _ in range(2):
            await intake.enqueue(list_sends(9))
        await upkeep.schedule_due(["w"])
        await upkeep.expire(["w"])
        await batches.list_due(["w"])
        await batches.get_next_due_at("w")
        await batches.get_next_due_at("w", max_deferrals=3)
        readings = await batches.claim({"w": 5})
        assert len(readings) == 5
        (probe,) = await batches.claim({}, {"w": Probe(refused=())})
        batch, outcomes, parts = capture(readings[:2])
        others = (Rejected("status_400", "no"), Deferred("timeout"), Released())
        outcomes += [ReadingOutcome(*each) for each in zip(readings[2:], others, strict=True)]
        assert await batches.seal([(batch, outcomes, parts)])
        await batches.list_sealed_parts(batch.id)
        await batches.mark_stored(batch.id, dataset=DATASET, destination="d")
        await batches.release([probe])
        await batches.renew()
        await batches.has_leases_of_others("w")
        await batches.recover()
        await upkeep.find_time_probe(["w"])
        await upkeep.has_overdue_pairs("w")
        await intake.reset_deferrals(["w"])
        await intake.remove([probe.pair])
        await reports.get_outlooks()
        await reports.get_books()
        await reports.get_sealed_bytes()
        await reports.count_unstored_batches()
        await reports.list_parts(after=0, limit=9)
        await reports.find_sends("s1", limit=9)
        await reports.list_failed("rejected", "status_400", after=0, limit=9)
    assert find_full_scans(database_url, statements) == []


async def test_pruning_searches_indexes(ledger, database_url, clock):
    """The time that pruning takes depends on how much is old, not on the size of the ledger."""
    sealed = capture(await ledger.batches.claim({"w": 2000}))
    assert await ledger.batches.seal([sealed])
    await ledger.batches.mark_stored(sealed[0].id, dataset=DATASET, destination="d")
    clock.now += 100 * DAY_SECONDS
    with recorded_statements(ledger) as statements:
        assert (await ledger.upkeep.prune(keep_days=30)).rows["pairs"] == 2000
    assert find_full_scans(database_url, statements) == []


async def test_a_new_table_has_statistics_once_a_list_was_enqueued(database_url):
    """Without them, the server joins the pairs of the next list with the known ones by loops, which takes minutes."""
    async with await Ledger.open(database_url, clock=SettableClock(NOW)) as ledger:
        await ledger.intake.enqueue(list_sends(600))
    assert query(database_url, "SELECT reltuples FROM pg_class WHERE relname = 'pair'") == [(600.0,)]
