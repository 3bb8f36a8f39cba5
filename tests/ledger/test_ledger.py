"""The ledger that several processes share: claims and leases."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.ledger import Ledger, leases
from harvester.ledger.due import PAGE
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    Batch,
    Captured,
    Pair,
    Part,
    Reading,
    ReadingOutcome,
    SentPair,
    Verdict,
)
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_file import pass_time, recorded_statements

NOW = 1_767_225_600.0


def pair(number: int) -> Pair:
    """Return one of a few pairs."""
    return Pair("w", "c", f"s{number}")


async def test_sixteen_processes_claim_each_pair_once(location):
    """Processes that claim at the same time never claim the same pair, and none is left out."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        await ledger.intake.enqueue([SentPair(pair(number)) for number in range(400)])
    ledgers = [await Ledger.open(location, clock=SettableClock(NOW)) for _ in range(16)]

    async def claim_all(ledger: Ledger) -> list[Pair]:
        found = []
        while readings := await ledger.batches.claim({"w": 7}):
            found += [reading.pair for reading in readings]
        return found

    found = [each for part in await asyncio.gather(*map(claim_all, ledgers)) for each in part]
    for ledger in ledgers:
        await ledger.close()
    assert Counter(found) == Counter(pair(number) for number in range(400))


async def seal_one(ledger: Ledger, readings: list[Reading] | None = None) -> Batch | None:
    """Claim one reading, or take those given, and seal it as captured with a part; None if that is refused."""
    if readings is None:
        readings = await ledger.batches.claim({"w": 1})
    ended = [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
    batch = Batch.open(NOW)
    part = Part(DATASET, f"{batch.id}.ndjson", "digest", 4, 1, b"rows", "d")
    return batch if await ledger.batches.seal([(batch, ended, [part])]) else None


async def test_batches_and_leases_of_a_dead_owner_are_recovered_at_once(location):
    """Sealed batches are returned and leased readings released before the lease expires.

    Stored and conflicting batches stay.
    """
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ours:
        await ours.intake.enqueue([SentPair(pair(number)) for number in range(4)])
        await ours.batches.mark_stored((await seal_one(ours)).id, dataset=DATASET, destination="d")
        await ours.batches.mark_conflict((await seal_one(ours)).id)
        async with (
            await Ledger.open(location, clock=SettableClock(NOW)) as one,
            await Ledger.open(location, clock=SettableClock(NOW)) as other,
        ):
            waiting = await seal_one(one)
            unsealed = await other.batches.claim({"w": 1})
            assert await ours.batches.recover() == []
        assert [(each.batch_id, each.size_bytes) for each in await ours.batches.recover()] == [(waiting.id, 4)]
        reclaimed = await ours.batches.claim({"w": 1})
        assert [each.pair for each in reclaimed] == [each.pair for each in unsealed]


async def test_leases_that_are_not_renewed_expire(location):
    """The lease time is one minute; one renewal keeps all readings. Another owner then claims them."""
    clock = SettableClock(NOW)
    async with await Ledger.open(location, clock=clock) as ours, await Ledger.open(location, clock=clock) as theirs:
        await ours.intake.enqueue([SentPair(pair(number)) for number in range(2)])
        held = [*await ours.batches.claim({"w": 1}), *await ours.batches.claim({"w": 1})]
        for _ in range(2):
            pass_time(location, clock, 50)
            assert await ours.batches.renew()
            assert await theirs.batches.recover() == []
            assert await theirs.batches.claim({"w": 2}) == []
        pass_time(location, clock, 61)
        assert await theirs.batches.recover() == []
        assert not await ours.batches.renew()
        assert [each.pair for each in await theirs.batches.claim({"w": 2})] == [each.pair for each in held]
        assert await seal_one(ours, held) is None


async def test_readings_of_a_dead_owner_are_released_in_pages(location, monkeypatch):
    """Each page is a transaction, so that other processes can claim in between."""
    monkeypatch.setattr(leases, "PAGE", 10)
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ours:
        await ours.intake.enqueue([SentPair(pair(number)) for number in range(25)])
        async with await Ledger.open(location, clock=SettableClock(NOW)) as theirs:
            assert len(await theirs.batches.claim({"w": 25})) == 25
        with recorded_statements(ours) as statements:
            await ours.batches.recover()
        assert len([sql for sql, _ in statements if sql.startswith("UPDATE pair")]) == 3
        assert len(await ours.batches.claim({"w": 99})) == 25


async def test_a_late_claim_of_an_owner_whose_epoch_is_over_is_released(location):
    """A process that was stopped claims after another one recovered it; nothing stays leased forever."""
    clock = SettableClock(NOW)
    async with await Ledger.open(location, clock=clock) as late, await Ledger.open(location, clock=clock) as ours:
        await ours.intake.enqueue([SentPair(pair(number)) for number in range(2)])
        await late.batches.claim({"w": 1})
        pass_time(location, clock, 61)
        await ours.batches.recover()
        assert len(await late.batches.claim({"w": 2})) == 2
        await ours.batches.recover()
        assert len(await ours.batches.claim({"w": 2})) == 2


async def test_a_claim_serves_many_workspaces_each_up_to_its_limit(location):
    """A claim takes exactly as many readings of each workspace as its limit allows, and none of other workspaces."""
    limits = {f"w{number}": number for number in range(20)}
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        pairs = [Pair(workspace, "c", f"s{number}") for workspace in [*limits, "other"] for number in range(12)]
        await ledger.intake.enqueue([SentPair(each) for each in pairs])
        counts = Counter(each.pair.workspace for each in await ledger.batches.claim(limits))
        assert counts == {name: min(limit, 12) for name, limit in limits.items() if limit}
        due = await ledger.batches.list_due([*limits, "other", "unknown"])
    assert due == {name: 0.0 for name, limit in limits.items() if limit < 12} | {"other": 0.0}


async def test_a_part_of_each_place_is_sealed_and_stored_on_its_own(location):
    """A batch with readings of two workspaces may have a part of the same dataset in each of two places."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        await ledger.intake.enqueue([SentPair(Pair(workspace, "c", "s")) for workspace in ("eu", "us")])
        readings = await ledger.batches.claim({"eu": 1, "us": 1})
        ended = [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
        batch = Batch.open(NOW)
        parts = [Part(DATASET, f"{batch.id}.ndjson", "0", 4, 1, b"rows", place) for place in ("a", "b")]
        assert await ledger.batches.seal([(batch, ended, parts)])
        assert [each.destination for each in await ledger.batches.recover()] == ["a", "b"]
        assert await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="a")
        assert await ledger.batches.list_sealed_parts(batch.id) == parts[1:]
        assert await ledger.reports.count_batches() == {"sealed": 1}
        assert await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="b")
        assert await ledger.reports.count_batches() == {"stored": 1}


async def test_the_nearest_deadline_is_claimed_first(location):
    """A pair that expires today is claimed before thousands of pairs that expire in a week."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        ages = [1, 13, 5, 9, 12]
        arrivals = [SentPair(pair(days), NOW - days * 86_400) for days in ages]
        await ledger.intake.enqueue(arrivals)
        readings = await ledger.batches.claim({"w": 3})
    assert [reading.pair for reading in readings] == [pair(13), pair(12), pair(9)]


async def test_a_claim_makes_only_a_page_of_overdue_readings_due(location):
    """After an outage of a day, a claim is not longer than usual, however many readings are overdue."""
    clock = SettableClock(NOW)
    async with await Ledger.open(location, clock=clock) as ledger:
        await ledger.intake.set_plan("w", ReadingPlan((1.0, 13.0)))
        await ledger.intake.enqueue([SentPair(pair(number), NOW) for number in range(PAGE + 10)])
        clock.now += 2 * DAY_SECONDS
        ledger.clock.observe(clock.now, sent=clock.now, received=clock.now)
        assert len(await ledger.batches.claim({"w": 5})) == 5
        outlook = (await ledger.reports.get_outlooks())["w"]
        assert outlook.readings == {"leased": 5, "due": PAGE - 5, "waiting": 10}
        assert await ledger.upkeep.schedule_due(["w"]) == 10


@given(st.lists(st.floats(0, 1e10, exclude_min=True), min_size=1, max_size=20, unique=True))
@settings(deadline=None, max_examples=20)
def test_times_are_stored_without_rounding(shared, times):
    """A time is read back exactly as it was stored, because requests and due times depend on it."""
    ledger, clock, run = shared
    clock.now = max(times)
    arrivals = [SentPair(pair(number), time) for number, time in enumerate(times)]
    run(ledger.intake.enqueue(arrivals, forced=True))
    readings = run(ledger.batches.claim({"w": 100}))
    run(ledger.batches.release(readings))
    run(ledger.intake.remove([each.pair for each in arrivals]))
    assert {(each.since, each.ending_at) for each in readings} == {(time, max(times)) for time in times}


async def test_a_later_send_moves_the_deadline_and_an_earlier_one_does_not(location):
    """A send id that is used again gets the whole retention time."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        for sent_at in (NOW - 86_400, NOW - 3600, NOW - 7200):
            await ledger.intake.enqueue([SentPair(pair(1), sent_at)])
        (reading,) = await ledger.batches.claim({"w": 1})
    assert reading.deadline == NOW - 3600 + 14 * 86_400


@pytest.mark.parametrize(("earlier", "counts"), [(NOW - 2 * 86_400, True), (NOW - 20 * 86_400, False)])
async def test_an_earlier_time_counts_if_its_analytics_can_still_be_read(location, earlier, counts):
    """A time by which the deadline has passed is ignored, because the send would never be read."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        for sent_at in (NOW - 86_400, earlier):
            await ledger.intake.enqueue([SentPair(pair(1), sent_at)], once=True)
        (reading,) = await ledger.batches.claim({"w": 1})
    assert reading.deadline == (earlier if counts else NOW - 86_400) + 14 * 86_400


async def test_a_dataset_that_was_moved_is_not_expected_at_its_former_place(location):
    """Otherwise, two places would have the same dataset once the former one is used again."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        for place in ("former", "present"):
            await ledger.upkeep.save_dataset(place, "the dataset")
        found = [await ledger.reports.find_dataset(place) for place in ("former", "present", "unknown")]
    assert found == [None, "the dataset", None]
