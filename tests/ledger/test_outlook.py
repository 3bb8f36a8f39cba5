"""The look ahead of a ledger: the same as counting pair by pair, without reading pair by pair."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.cli import show
from harvester.ledger import Ledger, StoredPart
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    GRACE_SECONDS,
    RETENTION_SECONDS,
    Batch,
    Captured,
    Deferred,
    Enqueued,
    Pair,
    Part,
    Rejected,
    Settlement,
    Verdict,
)
from harvester.schedule import ReadingPlan
from tests.support.ledger_file import explained, recorded_statements

NOW = 1_795_527_667.0
SOON = NOW + 6 * 3600


class Clock:
    """A wall clock that tests move."""

    now = NOW

    def wall(self) -> float:
        """Epoch seconds."""
        return self.now

    def monotonic(self) -> float:
        """The same, for nobody here compares the two."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the ledger."""
    return Clock()


@pytest.fixture
async def ledger(tmp_path, clock) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as opened:
        yield opened


def sends(*, ages: list[float], workspace: str = "w") -> list[Enqueued]:
    """Sends of so many seconds ago."""
    return [Enqueued(Pair(workspace, "c", f"s{n}"), NOW - age) for n, age in enumerate(ages)]


async def harvested(ledger: Ledger, workspace: str, outcomes: list[object], *, size_bytes: int) -> Batch:
    """Claim a batch and seal it with these outcomes and a part."""
    batch = await ledger.batches.claim(workspace, limit=len(outcomes))
    settlements = [Settlement(reading, outcome) for reading, outcome in zip(batch.readings, outcomes, strict=True)]
    part = Part(DATASET, f"{batch.id}.ndjson", "0", size_bytes, 1, b"x")
    assert await ledger.batches.seal(batch, settlements, [part], destination="d")
    return batch


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A ledger for many examples, and how to await its methods."""
    with asyncio.Runner() as runner:
        ledger = runner.run(Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.db", clock=Clock()))
        yield ledger, runner.run
        runner.run(ledger.close())


@given(st.lists(st.floats(-5 * DAY_SECONDS, RETENTION_SECONDS + GRACE_SECONDS - 60), max_size=30))
def test_the_outlook_is_what_counting_pair_by_pair_gives(shared, ages):
    """Each open pair stands on the day of its deadline, those that are late on the first; others' pairs nowhere."""
    ledger, run = shared
    arrivals = [*sends(ages=ages), *sends(ages=[1.0, 2.0], workspace="another")]
    run(ledger.intake.enqueue(arrivals))
    seen = run(ledger.reports.get_outlook("w"))
    late, all_deadlines = run(ledger.reports.count_at_risk()), list(run(ledger.reports.list_deadlines()))
    run(ledger.intake.remove([each.pair for each in arrivals]))
    deadlines = [NOW - age + RETENTION_SECONDS for age in ages]
    assert late.get("w", 0) == seen.at_risk  # a quarter of a day before, where no plan says otherwise
    assert all_deadlines == pytest.approx(sorted([*deadlines, *(NOW - age + RETENTION_SECONDS for age in (1, 2))]))
    assert sum(seen.readings.values()) == len(ages)
    assert seen.at_risk == sum(deadline < SOON for deadline in deadlines)
    assert seen.nearest_deadline == (pytest.approx(min(deadlines), abs=0.01) if ages else None)
    first = NOW // DAY_SECONDS * DAY_SECONDS
    assert [day.at for day in seen.days] == [first + ahead * DAY_SECONDS for ahead in range(15)]
    for ahead, day in enumerate(seen.days):
        there = [each for each in deadlines if max(each, NOW) // DAY_SECONDS == NOW // DAY_SECONDS + ahead]
        assert (day.pairs, day.at_risk) == (len(there), sum(deadline < SOON for deadline in there))


async def test_what_the_pace_does_not_reach_in_time_is_at_risk(ledger, clock):
    """One definition for status, page and metric: a late pair, or one of a day that the pace does not reach in time."""
    await ledger.intake.enqueue(sends(ages=[11 * DAY_SECONDS - number for number in range(300)]))
    await ledger.intake.enqueue(sends(ages=[DAY_SECONDS], workspace="another"))
    assert await ledger.reports.count_at_risk() == {"another": 0, "w": 0}
    for pace, expected in ((1.0, 0), (300 / (4 * DAY_SECONDS), 300), (0.0, 300), (1.0, 0)):
        await ledger.upkeep.save_pace("w", pace)
        assert await ledger.reports.count_at_risk() == {"another": 0, "w": expected}
        assert sum(day.at_risk for day in (await ledger.reports.get_outlook("w")).days) == expected
    clock.now += 2.8 * DAY_SECONDS
    assert (await ledger.reports.count_at_risk())["w"] == 300


async def test_what_has_its_outcome_runs_out_of_no_time(ledger, clock):
    """Captured and rejected pairs leave the outlook, the others stay in any state, and forced ones have no deadline."""
    await ledger.intake.enqueue(sends(ages=[days * DAY_SECONDS for days in (5, 4, 3, 2)]))
    ended = [Captured(Verdict.ZERO, NOW, b"", 1), Rejected("status_400", "no"), Deferred("timeout")]
    await harvested(ledger, "w", ended, size_bytes=7)
    await ledger.batches.claim("w", limit=1)
    await ledger.intake.set_plan("w", ReadingPlan.of("w", (2.0, 13.0)))
    await ledger.intake.enqueue([Enqueued(Pair("w", "c", "young"), NOW - DAY_SECONDS)])
    await ledger.intake.enqueue([Enqueued(Pair("w", "c", "old"), NOW - 400 * DAY_SECONDS)], forced=True)
    seen = await ledger.reports.get_outlook("w")
    assert seen.readings == {"due": 1, "leased": 1, "waiting": 1, "deferred": 1}
    assert seen.nearest_deadline == pytest.approx(NOW + 11 * DAY_SECONDS)
    clock.now += 30 * DAY_SECONDS
    assert sum(day.pairs for day in seen.days) == (await ledger.reports.count_at_risk())["w"] == 3


async def test_the_last_capture_of_each_workspace_is_found_again_after_a_restart(ledger):
    """A metric that begins at 0 with each start would say nothing of a service that restarts in vain."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS]))
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS], workspace="refused"))
    await harvested(ledger, "w", [Captured(Verdict.ZERO, NOW, b"", 1)], size_bytes=1)
    await harvested(ledger, "refused", [Rejected("status_400", "no")], size_bytes=1)
    assert await ledger.reports.get_last_captures() == {"w": NOW}


async def test_pairs_never_read_are_told_from_those_that_wait_for_their_next_reading(ledger):
    """A headline of pending pairs says for 13 days that there is work; these two say whether, and when."""
    await ledger.intake.set_plan("w", ReadingPlan.of("w", (1.0, 2.0, 13.0)))
    await ledger.intake.enqueue(sends(ages=[1.5 * DAY_SECONDS, 1.2 * DAY_SECONDS, 1.1 * DAY_SECONDS]))
    batch = await ledger.batches.claim("w", limit=2)
    ended = [Settlement(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in batch.readings]
    assert await ledger.batches.seal(batch, ended, [], destination="d")
    told = await ledger.reports.get_books()
    assert (told.pending, told.never_read) == (3, 1)
    assert NOW + 0.4 * DAY_SECONDS < told.next_reading_at < NOW + 0.6 * DAY_SECONDS
    assert await ledger.reports.get_books_by_workspace() == {"w": told}
    (line,) = [each for each in show.book_lines(told, {"w": told}) if each.startswith("pending")]
    assert line.startswith(
        "pending    3: 1 never read, 2 read before and waiting for their next reading, the next at 2026-"
    )


async def test_rejects_come_latest_first_and_only_while_they_are_rejected(ledger):
    """A page of them is a list to work off: what was asked again is no longer on it, or once if it was in vain."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS]))
    await harvested(ledger, "w", [Rejected("status_400", "first")], size_bytes=1)
    await harvested(ledger, "w", [Rejected("status_404", "second")], size_bytes=1)
    found = await ledger.reports.list_rejections(limit=5)
    assert [(each.pair.send_id, each.reason, each.detail) for each in found] == [
        ("s1", "status_404", "second"), ("s0", "status_400", "first"),
    ]  # fmt: skip
    await ledger.intake.requeue(outcome="rejected", reason="status_404")
    assert [each.pair.send_id for each in await ledger.reports.list_rejections(limit=5)] == ["s0"]
    await harvested(ledger, "w", [Rejected("status_410", "again")], size_bytes=1)
    found = await ledger.reports.list_rejections(limit=5)
    assert [(each.pair.send_id, each.detail) for each in found] == [("s1", "again"), ("s0", "first")]


async def waiting(ledger: Ledger) -> tuple[dict[str, int], int]:
    """What waits for the store: batches by state, and bytes."""
    return await ledger.reports.count_unstored_batches(), await ledger.reports.get_sealed_bytes()


async def test_what_waits_for_the_store_is_counted_until_it_is_stored(ledger):
    """Batches by state, and the bytes that the ledger holds back."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS]))
    captured = [Captured(Verdict.ZERO, NOW, b"", 1)]
    first, second = [await harvested(ledger, "w", captured, size_bytes=size) for size in (100, 20)]
    await ledger.batches.claim("w", limit=1)
    assert await waiting(ledger) == ({"open": 1, "sealed": 2}, 120)
    await ledger.batches.mark_stored(first.id, dataset=DATASET)
    await ledger.batches.mark_conflict(second.id)
    assert await waiting(ledger) == ({"open": 1, "conflict": 1}, 20)
    assert await ledger.reports.count_batches() == {"open": 1, "conflict": 1, "stored": 1}


async def test_loaders_are_told_of_parts_in_the_order_in_which_they_were_stored(ledger, clock):
    """A loader that comes again with its bookmark gets each part once, page by page, and none before it is there."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS]))
    captured = [Captured(Verdict.ZERO, NOW, b"", 1)]
    one, _, three = [await harvested(ledger, "w", captured, size_bytes=7) for _ in range(3)]
    for batch in (three, one):
        await ledger.batches.mark_stored(batch.id, dataset=DATASET)
        clock.now += 1
    (first,) = await ledger.reports.list_parts(after=0, limit=1)
    (second,) = await ledger.reports.list_parts(after=first.order, limit=5)
    assert first == StoredPart(first.order, DATASET, f"{three.id}.ndjson", "0", 7, 1, NOW)
    assert (second.name, second.stored_at) == (f"{one.id}.ndjson", NOW + 1)
    assert await ledger.reports.list_parts(after=second.order, limit=5) == []


async def test_expired_and_open_pairs_are_counted_by_workspace(ledger):
    """So that an alert can say whose numbers are gone, and which pairs nobody serves."""
    await ledger.intake.enqueue(sends(ages=[16 * DAY_SECONDS, 20 * DAY_SECONDS, DAY_SECONDS]))
    await ledger.intake.enqueue(sends(ages=[16 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS], workspace="well"))
    for workspace in ("w", "well"):
        await ledger.upkeep.expire(workspace, trust_clock=True)
    assert await ledger.reports.count_expired() == {"w": 2, "well": 1}
    assert await ledger.reports.count_pending() == {"w": 1, "well": 2}


async def test_looking_ahead_reads_no_pair_that_is_settled(ledger):
    """A ledger of many months answers as quickly as a new one: every look goes by an index of what is open."""
    with recorded_statements(ledger) as statements:
        await ledger.reports.get_outlook("w")
        await waiting(ledger)
    plans = explained(ledger.path, statements)
    read = {plan for plan in plans if plan.startswith(("SEARCH pair", "SCAN pair", "SCAN batch", "SCAN part"))}
    assert read
    assert [
        plan
        for plan in read
        if "INDEX pair_open" not in plan and "INDEX batch_unstored" not in plan and "INDEX pair_deferred" not in plan
    ] == []
