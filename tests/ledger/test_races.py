"""Eight owners use one ledger of a PostgreSQL server at the same time: nothing is lost, doubled or waited for."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import psycopg
import pytest

from harvester.ledger import Ledger
from harvester.model import DATASET, DAY_SECONDS
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_cycles import NOW, capture, list_sends, run_cycles
from tests.support.ledger_file import query

OWNERS = 8


@pytest.fixture
def location(postgresql):
    """The location of a new ledger. The server must log no error, such as a deadlock or a violated constraint."""
    postgresql.read_errors()
    with postgresql.database() as name:
        yield postgresql.url(name)
    assert postgresql.read_errors() == []


@pytest.fixture
def clock():
    """The clock of all owners."""
    return SettableClock(NOW)


@pytest.fixture
async def owners(location, clock):
    """Eight ledgers, as eight processes open them."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(OWNERS):
            opened.append(await stack.enter_async_context(await Ledger.open(location, clock=clock)))
            opened[-1].clock.observe(NOW, sent=NOW, received=NOW)
        yield opened
        assert (await opened[0].reports.get_books()).balanced
        assert await opened[0].reports.find_wrong_counts() == []


async def together(*operations):
    """Run operations at the same time; a deadlock ends them."""
    async with asyncio.timeout(60):
        return await asyncio.gather(*operations)


async def test_eight_owners_capture_each_pair_of_a_workspace_once(owners, location):
    """They claim, seal and store at the same time; each pair has one outcome, and each part one order."""
    await owners[0].intake.enqueue(list_sends(400), once=True)
    captured = await together(*(run_cycles(each, at_once=7) for each in owners))
    assert Counter(pair for each in captured for pair in each) == Counter(each.pair for each in list_sends(400))
    assert query(location, "SELECT count(*), count(DISTINCT pair_id) FROM outcome") == [(400, 400)]
    assert (await owners[0].reports.get_books()).captured == {"zero": 400}


async def test_a_loader_misses_no_part_while_eight_owners_store(owners):
    """The orders of stored parts have no gaps, and a part never appears before one with a lower order."""
    await owners[0].intake.enqueue(list_sends(40), once=True)
    batches = []
    for each in owners:
        batches.append([])
        for _ in range(5):
            batches[-1].append(capture(await each.batches.claim({"w": 1})))
        assert await each.batches.seal(batches[-1])

    async def store(owner: Ledger, sealed: list) -> None:
        for batch, _, _ in sealed:
            assert await owner.batches.mark_stored(batch.id, dataset=DATASET, destination="d")

    async def load() -> list[int]:
        loaded = []
        while len(loaded) < 40:
            page = await owners[0].reports.list_parts(after=loaded[-1] if loaded else 0, limit=99)
            loaded += [each.order for each in page.parts]
        return loaded

    *_, loaded = await together(*map(store, owners, batches), load())
    assert loaded == list(range(1, 41))


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_expired_pairs_are_recorded_once_by_eight_owners(owners, location, count):
    """Each pair has one outcome, and the numbers that the owners return add up."""
    await owners[0].intake.enqueue(list_sends(count, sent_at=NOW - 20 * DAY_SECONDS), once=True)
    expired = await together(*(each.upkeep.expire(["w"]) for each in owners))
    assert sum(expired) == count
    assert query(location, "SELECT count(*), count(DISTINCT pair_id) FROM outcome") == [(count, count)]


async def test_a_list_is_enqueued_in_eight_orders(owners):
    """Each pair is new to one owner and known to the others, and a later time of its send reaches every pair."""
    orders = [random.Random(number).sample(list_sends(500), 500) for number in range(OWNERS)]
    for sent_at in (NOW - 7200, NOW - 3600):
        lists = [[each._replace(sent_at=sent_at) for each in order] for order in orders]
        results = await together(*(each.intake.enqueue(sends) for each, sends in zip(owners, lists, strict=True)))
        assert sum(each.new for each in results) == (500 if sent_at == NOW - 7200 else 0)
        assert sum(each.new + each.known for each in results) == 500 * OWNERS
    found = await owners[0].reports.list_deadlines()
    assert set(found) == {NOW - 3600 + 14 * DAY_SECONDS}


@pytest.mark.long
async def test_new_pairs_are_counted_by_the_owner_that_adds_them(owners):
    """Eight owners enqueue different pages; each reports its own pairs as new."""
    pages = [[list_sends(100, first=(owner * 5 + page) * 100) for page in range(5)] for owner in range(OWNERS)]

    async def enqueue(owner: Ledger, mine: list) -> list[tuple[int, int]]:
        results = [await owner.intake.enqueue(page, once=page is mine[0]) for page in mine]
        return [(each.new, each.known) for each in results]

    counts = await together(*map(enqueue, owners, pages))
    assert counts == [[(100, 0)] * 5] * OWNERS


@pytest.mark.long
async def test_the_later_of_two_times_of_a_new_pair_is_kept(owners):
    """Eight messages of one send arrive at the same time, in any order."""
    await owners[0].intake.set_plan("w", ReadingPlan((1.0, 13.0)))
    for number in range(20):
        times = [NOW - 3600 * (1 + (number + at) % OWNERS) for at in range(OWNERS)]
        sends = [list_sends(1, first=number, sent_at=sent_at) for sent_at in times]
        results = await together(*(each.intake.enqueue(send) for each, send in zip(owners, sends, strict=True)))
        assert sum(each.new for each in results) == 1
    assert set(await owners[0].reports.list_deadlines()) == {NOW - 3600 + 14 * DAY_SECONDS}


async def test_pairs_are_enqueued_again_while_they_are_sealed(owners, clock):
    """A seal and messages of the same pairs exclude each other without a deadlock: each pair begins another round."""
    await owners[0].intake.enqueue(list_sends(400), once=True)
    sealed = capture(await owners[0].batches.claim({"w": 400}))
    clock.now += 7200
    again = [random.Random(number).sample(list_sends(400, sent_at=clock.now), 400) for number in range(7)]
    enqueuing = (each.intake.enqueue(sends) for each, sends in zip(owners[1:], again, strict=True))
    done, *results = await together(owners[0].batches.seal([sealed]), *enqueuing)
    assert done
    assert [each.known for each in results] == [400] * 7
    books = await owners[0].reports.get_books()
    assert (books.pending, await owners[0].reports.count_readings()) == (400, {"captured": 400, "pending": 400})


@pytest.mark.long
async def test_the_first_claims_by_eight_owners_share_what_falls_due(owners, clock):
    """Waiting pairs fall due for all of them at once, and each is claimed by one."""
    await owners[0].intake.enqueue(list_sends(800, sent_at=NOW))
    clock.now += 13.5 * DAY_SECONDS
    claimed = []
    for _ in range(20):  # a claim may return nothing while another owner has locked what is due
        for readings in await together(*(each.batches.claim({"w": 100}) for each in owners)):
            claimed += [each.pair for each in readings]
    assert Counter(claimed) == Counter(each.pair for each in list_sends(800))


async def test_no_claim_waits_for_another(owners, location):
    """While a transaction holds the most urgent pairs, a claim returns the next ones at once."""
    await owners[0].intake.enqueue(list_sends(20), once=True)
    with psycopg.connect(location.url) as other:
        held = other.execute("SELECT send_id FROM pair ORDER BY id LIMIT 5 FOR UPDATE").fetchall()
        async with asyncio.timeout(5):
            readings = await owners[0].batches.claim({"w": 99})
            assert await owners[0].batches.seal([capture(readings)])
    assert len(readings) == 15
    assert {each.pair.send_id for each in readings}.isdisjoint(name for (name,) in held)
    assert len(await owners[1].batches.claim({"w": 99})) == 5
