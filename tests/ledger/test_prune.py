"""Pruning deletes old history from the ledger in short transactions, and keeps what is open or recent."""

from collections.abc import AsyncIterator

import pytest

from harvester.ledger import Ledger, PartsPage, prune
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    Batch,
    Captured,
    LastCapture,
    Outcome,
    Pair,
    Part,
    Reading,
    ReadingOutcome,
    Rejected,
    SentPair,
    Verdict,
)
from harvester.schedule import ONCE, ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_file import count_rows, explained, only_sqlite, recorded_statements

NOW = 1_795_527_667.0
ZERO = Captured(Verdict.ZERO, NOW, b"", 1)
REJECTED = Rejected("status_400", "no such send")
KEEP_DAYS = 30.0


@pytest.fixture
def clock() -> SettableClock:
    """The ledger's clock."""
    return SettableClock(NOW)


@pytest.fixture
async def ledger(location, clock) -> AsyncIterator[Ledger]:
    """A ledger with confirmed time, and a plan of two readings."""
    async with await Ledger.open(location, clock=clock) as opened:
        opened.clock.observe(NOW, sent=NOW, received=NOW)
        await opened.intake.set_plan("w", ReadingPlan((1.0, 13.0)))
        yield opened


async def enqueue(ledger: Ledger, send_id: str, sent_at: float, **options) -> None:
    """Enqueue a send."""
    await ledger.intake.enqueue([SentPair(Pair("w", "c", send_id), sent_at)], **options)


async def seal(ledger: Ledger, clock: SettableClock, outcome: Outcome = ZERO, *, to: str | None = "d") -> Batch:
    """Claim and seal the due readings; with ``to`` their batch has a part for that dataset."""
    readings: list[Reading] = await ledger.batches.claim({"w": 100})
    batch = Batch.open(clock.now)
    sealed_parts = [] if to is None else [Part(DATASET, f"{batch.id}.ndjson", "0", 7, 1, b"x", to)]
    assert await ledger.batches.seal([(batch, [ReadingOutcome(each, outcome) for each in readings], sealed_parts)])
    return batch


async def store(ledger: Ledger, batch: Batch, to: str = "d") -> None:
    """Mark the part of a batch as stored."""
    assert await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination=to)


async def store_parts(ledger: Ledger, clock: SettableClock, count: int, to: str = "d") -> None:
    """Store parts, one per day."""
    for _ in range(count):
        await store(ledger, await seal(ledger, clock, to=to), to)
        clock.now += DAY_SECONDS


async def test_the_ledger_of_a_service_stops_growing(ledger, location, clock):
    """Once the first history is old, no table grows in two more weeks, whatever the service does each day."""
    rows = {}
    for day in range(45):
        await ledger.upkeep.schedule_due(["w"])
        await enqueue(ledger, f"new-{day}", clock.now - 0.5 * DAY_SECONDS)
        await store(ledger, await seal(ledger, clock))
        await enqueue(ledger, f"late-{day}", clock.now - 20 * DAY_SECONDS)
        await enqueue(ledger, f"forced-{day}", clock.now - 20 * DAY_SECONDS, forced=True, once=True)
        await enqueue(ledger, f"refused-{day}", clock.now, once=True)
        if day % 7 == 0:
            await enqueue(ledger, "again", clock.now, once=True)
        await seal(ledger, clock, REJECTED, to=None)
        await ledger.upkeep.expire(["w"])
        assert (await ledger.upkeep.prune(keep_days=0)).complete
        rows[day] = count_rows(location)
        clock.now += DAY_SECONDS
    assert rows[44] == rows[30]
    assert rows[44]["part"] == 15 + 1
    assert (await ledger.reports.get_books()).balanced
    assert await ledger.reports.find_wrong_counts() == []


async def test_only_pairs_that_expired_long_ago_are_pruned(ledger, clock):
    """Open pairs and pairs that expired less than ``keep_days`` ago stay, with their outcomes; the books balance."""
    await enqueue(ledger, "old", NOW, once=True)
    await seal(ledger, clock, to=None)
    clock.now = NOW + 10 * DAY_SECONDS
    await enqueue(ledger, "recent", clock.now, once=True)
    await seal(ledger, clock, to=None)
    clock.now = NOW + 46 * DAY_SECONDS
    await enqueue(ledger, "open", clock.now)
    assert (await ledger.upkeep.prune(keep_days=KEEP_DAYS)).rows["pairs"] == 1
    assert await ledger.reports.find([Pair("w", "c", each) for each in ("old", "recent", "open")]) == {
        Pair("w", "c", "recent"): "captured",
        Pair("w", "c", "open"): "pending",
    }
    books = await ledger.reports.get_books()
    assert (books.accepted, books.balanced) == (2, True)
    assert await ledger.reports.count_readings() == {"captured": 1, "pending": 1}


async def test_a_pair_keeps_the_part_of_each_reading(ledger, clock):
    """As long as the ledger has an expired pair, ``show`` finds its readings and their parts."""
    await enqueue(ledger, "s", NOW)
    for age in (1.1, 13.1):
        clock.now = NOW + age * DAY_SECONDS
        await ledger.upkeep.schedule_due(["w"])
        await store(ledger, await seal(ledger, clock))
    clock.now = NOW + (15 + KEEP_DAYS) * DAY_SECONDS - 1
    await ledger.upkeep.prune(keep_days=KEEP_DAYS)
    (found,) = (await ledger.reports.find_sends("s", limit=1)).sends
    assert [(each.name, each.part is not None) for each in found.readings] == [("d1", True), ("final", True)]


async def test_a_pair_keeps_its_last_reading_however_old(ledger, clock):
    """The reason of a refusal can be looked up until the pair is pruned; readings before the last one cannot."""
    await enqueue(ledger, "scheduled", NOW + 200 * DAY_SECONDS, once=True)
    await seal(ledger, clock, Rejected("status_400", "first"), to=None)
    await ledger.intake.requeue(outcome="rejected")
    await seal(ledger, clock, Rejected("status_400", "last"), to=None)
    clock.now += 100 * DAY_SECONDS
    assert (await ledger.upkeep.prune(keep_days=KEEP_DAYS)).rows["readings"] == 1
    assert [each.detail for each in await ledger.reports.list_rejections(limit=9)] == ["last"]


async def test_nothing_is_pruned_before_the_time_is_confirmed(location, clock):
    """A clock that is years ahead makes everything look old."""
    tables = ("pair", "outcome", "part", "batch")
    async with await Ledger.open(location, clock=clock) as ledger:
        await enqueue(ledger, "s", NOW, once=True)
        await store_parts(ledger, clock, 2)
        clock.now += 1000 * DAY_SECONDS
        before = [count_rows(location)[table] for table in tables]
        pruned = await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        assert (sum(pruned.rows.values()), [count_rows(location)[table] for table in tables]) == (0, before)


async def test_a_batch_that_is_not_stored_is_never_pruned(ledger, clock):
    """The bytes of sealed and conflicting batches stay, however long their place is unavailable."""
    sealed, conflict, _ = [await seal(ledger, clock, to=to) for to in ("d", "d", None)]
    await ledger.batches.mark_conflict(conflict.id)
    await store_parts(ledger, clock, 2)
    clock.now += 1000 * DAY_SECONDS
    assert (await ledger.upkeep.prune(keep_days=KEEP_DAYS)).rows["batches"] == 2
    assert [len(await ledger.batches.list_sealed_parts(each.id)) for each in (sealed, conflict)] == [1, 1]
    await store(ledger, sealed)


async def test_a_backlog_is_pruned_in_short_transactions(ledger, clock, monkeypatch):
    """Each transaction deletes a page of rows, and a call a limited number of pages; later calls continue."""
    monkeypatch.setattr(prune, "PAGE", 2)
    monkeypatch.setattr(prune, "PAGES_AT_ONCE", 2)
    for number in range(5):
        await enqueue(ledger, f"s{number}", NOW, once=True)
    await seal(ledger, clock, to=None)
    clock.now += 100 * DAY_SECONDS
    results = [await ledger.upkeep.prune(keep_days=KEEP_DAYS) for _ in range(2)]
    assert [(each.rows["pairs"], each.complete) for each in results] == [(4, False), (1, False)]
    assert (await ledger.upkeep.prune(keep_days=KEEP_DAYS)).complete


@only_sqlite
async def test_pruning_searches_indexes(ledger, location, clock):
    """The time that pruning takes depends on how much is old, not on the size of the ledger."""
    await enqueue(ledger, "s", NOW, once=True)
    await store_parts(ledger, clock, 2)
    clock.now += 100 * DAY_SECONDS
    with recorded_statements(ledger) as statements:
        await ledger.upkeep.prune(keep_days=KEEP_DAYS)
    scans = [each for each in explained(location, statements) if each.startswith("SCAN")]
    assert [each for each in scans if "pair_count" not in each and "part USING INDEX" not in each] == []


class TestParts:
    """The parts of a ledger after the older ones were pruned."""

    async def test_a_page_reports_which_parts_after_a_bookmark_are_not_listed(self, ledger, clock):
        """Parts are missing after a bookmark before the last pruned part of its place, but not after that part."""
        await store_parts(ledger, clock, 2, to="quiet")
        await store_parts(ledger, clock, 3)
        clock.now += 100 * DAY_SECONDS
        await store_parts(ledger, clock, 1)
        await ledger.upkeep.save_dataset("./harvest", "d")
        before = await ledger.reports.list_parts(after=0, limit=9)
        await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        page = await ledger.reports.list_parts(after=4, limit=9)
        assert (page.parts, page.pruned.order, page.pruned.places) == (before.parts[5:], 5, ("./harvest",))
        assert page.pruned.stored_at == before.parts[4].stored_at
        assert await ledger.reports.list_parts(after=5, limit=9) == PartsPage(before.parts[5:], None, 6)
        await ledger.upkeep.save_dataset("./harvest", "other")
        assert (await ledger.reports.list_parts(after=0, limit=9)).pruned.places == ("an unknown place",)
        assert (await ledger.reports.list_parts(after=1, limit=9, dataset_id="quiet")).pruned.order == 2
        assert await ledger.reports.list_parts(after=2, limit=9, dataset_id="quiet") == PartsPage([], None, 6)

    async def test_the_order_continues_after_all_parts_are_old(self, ledger, clock):
        """A loader's bookmark stays valid: a part that is stored later never gets an order that was used before."""
        await store_parts(ledger, clock, 3)
        clock.now += 1000 * DAY_SECONDS
        await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        await store_parts(ledger, clock, 1)
        assert [each.order for each in (await ledger.reports.list_parts(after=3, limit=9)).parts] == [4]

    async def test_pruned_parts_count_as_stored(self, ledger, clock):
        """The warning of a place that has lost its parts counts all of them, also after several prunings."""
        for _ in range(2):
            await store_parts(ledger, clock, 3)
            clock.now += 100 * DAY_SECONDS
            await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        assert await ledger.reports.count_stored_parts("d") == 6
        assert (await ledger.reports.find_pruned_parts("d")).count == 5

    @pytest.mark.parametrize("ahead_days", [1000, -1000])
    async def test_a_part_stored_while_the_clock_was_wrong_is_as_old_as_its_neighbours(self, ledger, clock, ahead_days):
        """It does not keep older parts in the ledger forever, and recent ones are not pruned because of it."""
        await store_parts(ledger, clock, 2)
        clock.now += ahead_days * DAY_SECONDS
        await store(ledger, await seal(ledger, clock))
        clock.now -= ahead_days * DAY_SECONDS
        await store_parts(ledger, clock, 2)
        await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        assert len((await ledger.reports.list_parts(after=0, limit=9)).parts) == 5
        clock.now += 100 * DAY_SECONDS
        await ledger.upkeep.prune(keep_days=KEEP_DAYS)
        assert len((await ledger.reports.list_parts(after=0, limit=9)).parts) == 1


async def test_a_rebuilt_ledger_is_pruned_to_its_recent_pairs(location, clock):
    """A rebuild adds every pair that was ever captured; the next pruning deletes the old ones again."""
    times = {f"s{days}": NOW - days * DAY_SECONDS for days in (400, 5, 60)}
    captures = [LastCapture(Pair("w", "c", name), ONCE, Verdict.ZERO, at, at, 1) for name, at in times.items()]
    async with await Ledger.open(location, clock=clock) as ledger:
        await ledger.rebuild("lost", captures, {})
        ledger.clock.observe(NOW, sent=NOW, received=NOW)
        assert (await ledger.upkeep.prune(keep_days=KEEP_DAYS)).rows["pairs"] == 2
        assert await ledger.reports.find([each.pair for each in captures]) == {captures[1].pair: "captured"}
        assert (await ledger.reports.get_books()).balanced
