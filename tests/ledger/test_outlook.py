"""The ledger's outlook: deadlines, risk, rejections, unstored batches and parts, without a scan of all pairs."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.cli.books import book_lines
from harvester.ledger import Ledger, PartsPage, StoredPart
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    GRACE_SECONDS,
    RETENTION_SECONDS,
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
from tests.support.ledger_file import explained, only_sqlite, recorded_statements

NOW = 1_795_527_667.0
SOON = NOW + 6 * 3600


@pytest.fixture
def clock() -> SettableClock:
    """The ledger's clock."""
    return SettableClock(NOW)


@pytest.fixture
async def ledger(location, clock) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    async with await Ledger.open(location, clock=clock) as opened:
        yield opened


def sends(*, ages: list[float], workspace: str = "w") -> list[SentPair]:
    """Return sends of these ages in seconds."""
    return [SentPair(Pair(workspace, "c", f"s{n}"), NOW - age) for n, age in enumerate(ages)]


async def count_at_risk(ledger: Ledger) -> dict[str, int]:
    """Count the pairs at risk of each workspace that has open pairs."""
    return {name: each.at_risk for name, each in (await ledger.reports.get_outlooks()).items()}


async def seal_batch(ledger: Ledger, workspace: str, outcomes: list[object], *, size_bytes: int) -> Batch:
    """Claim readings, and seal a batch of them with these outcomes and one part."""
    readings = await ledger.batches.claim({workspace: len(outcomes)})
    reading_outcomes = [ReadingOutcome(reading, outcome) for reading, outcome in zip(readings, outcomes, strict=True)]
    batch = Batch.open(NOW)
    part = Part(DATASET, f"{batch.id}.ndjson", "0", size_bytes, 1, b"x", "d")
    assert await ledger.batches.seal([(batch, reading_outcomes, [part])])
    return batch


@given(st.lists(st.floats(-5 * DAY_SECONDS, RETENTION_SECONDS + GRACE_SECONDS - 60), max_size=30))
def test_the_outlook_counts_each_open_pair_on_the_day_of_its_deadline(shared, ages):
    """Late pairs count on the first day, and pairs of other workspaces do not count."""
    ledger, clock, run = shared
    clock.now = NOW
    arrivals = [*sends(ages=ages), *sends(ages=[1.0, 2.0], workspace="another")]
    run(ledger.intake.enqueue(arrivals))
    outlook = run(ledger.reports.get_outlooks(["w"]))["w"]
    late, all_deadlines = run(count_at_risk(ledger)), list(run(ledger.reports.list_deadlines()))
    run(ledger.intake.remove([each.pair for each in arrivals]))
    deadlines = [NOW - age + RETENTION_SECONDS for age in ages]
    assert late.get("w", 0) == outlook.at_risk  # six hours before the deadline, unless a plan says otherwise
    assert all_deadlines == pytest.approx(sorted([*deadlines, *(NOW - age + RETENTION_SECONDS for age in (1, 2))]))
    assert sum(outlook.readings.values()) == len(ages)
    assert outlook.at_risk == sum(deadline < SOON for deadline in deadlines)
    assert outlook.nearest_deadline == (pytest.approx(min(deadlines), abs=0.01) if ages else None)
    first = NOW // DAY_SECONDS * DAY_SECONDS
    assert [day.at for day in outlook.days] == [first + ahead * DAY_SECONDS for ahead in range(15)]
    for ahead, day in enumerate(outlook.days):
        expected = [each for each in deadlines if max(each, NOW) // DAY_SECONDS == NOW // DAY_SECONDS + ahead]
        assert (day.pairs, day.at_risk) == (len(expected), sum(deadline < SOON for deadline in expected))


async def test_pairs_that_the_pace_cannot_capture_in_time_are_at_risk(ledger, clock):
    """Status, page and metric use one definition: a late pair, or one of a day that the pace does not reach."""
    await ledger.intake.enqueue(sends(ages=[11 * DAY_SECONDS - number for number in range(300)]))
    await ledger.intake.enqueue(sends(ages=[DAY_SECONDS], workspace="another"))
    assert await count_at_risk(ledger) == {"another": 0, "w": 0}
    for pace, expected in ((1.0, 0), (300 / (4 * DAY_SECONDS), 300), (0.0, 300), (1.0, 0)):
        await ledger.upkeep.save_paces({"w": pace})
        assert await count_at_risk(ledger) == {"another": 0, "w": expected}
        assert sum(day.at_risk for day in (await ledger.reports.get_outlooks(["w"]))["w"].days) == expected
    clock.now += 2.8 * DAY_SECONDS
    assert (await count_at_risk(ledger))["w"] == 300


async def test_the_outlook_counts_only_pairs_without_a_final_outcome(ledger, clock):
    """Captured and rejected pairs are not counted any more, and forced pairs have no deadline."""
    await ledger.intake.enqueue(sends(ages=[days * DAY_SECONDS for days in (5, 4, 3, 2)]))
    ended = [Captured(Verdict.ZERO, NOW, b"", 1), Rejected("status_400", "no"), Deferred("timeout")]
    await seal_batch(ledger, "w", ended, size_bytes=7)
    await ledger.batches.claim({"w": 1})
    await ledger.intake.set_plan("w", ReadingPlan((2.0, 13.0)))
    await ledger.intake.enqueue([SentPair(Pair("w", "c", "young"), NOW - DAY_SECONDS)])
    await ledger.intake.enqueue([SentPair(Pair("w", "c", "old"), NOW - 400 * DAY_SECONDS)], forced=True)
    outlook = (await ledger.reports.get_outlooks())["w"]
    assert outlook.readings == {"due": 1, "leased": 1, "waiting": 1, "deferred": 1}
    assert outlook.nearest_deadline == pytest.approx(NOW + 11 * DAY_SECONDS)
    clock.now += 30 * DAY_SECONDS
    assert sum(day.pairs for day in outlook.days) == (await count_at_risk(ledger))["w"] == 3


async def test_the_last_capture_of_each_workspace_is_stored(ledger):
    """The time of the last capture survives a restart, and so does the metric."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS]))
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS], workspace="refused"))
    await seal_batch(ledger, "w", [Captured(Verdict.ZERO, NOW, b"", 1)], size_bytes=1)
    await seal_batch(ledger, "refused", [Rejected("status_400", "no")], size_bytes=1)
    assert await ledger.reports.get_last_captures() == {"w": NOW}


async def test_pending_pairs_are_counted_with_and_without_a_reading(ledger):
    """The line of pending pairs also names the time of the next reading."""
    await ledger.intake.set_plan("w", ReadingPlan((1.0, 2.0, 13.0)))
    await ledger.intake.enqueue(sends(ages=[1.5 * DAY_SECONDS, 1.2 * DAY_SECONDS, 1.1 * DAY_SECONDS]))
    readings = await ledger.batches.claim({"w": 2})
    ended = [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
    assert await ledger.batches.seal([(Batch.open(NOW), ended, [])])
    books = await ledger.reports.get_books()
    assert (books.pending, books.never_read) == (3, 1)
    assert NOW + 0.4 * DAY_SECONDS < books.next_reading_at < NOW + 0.6 * DAY_SECONDS
    assert await ledger.reports.get_books_by_workspace() == {"w": books}
    (line,) = [each for each in book_lines(books, {"w": books}) if each.startswith("pending")]
    assert line.startswith(
        "pending    3: 1 never read, 2 read before and waiting for their next reading, the next at 2026-"
    )


async def test_rejections_are_listed_newest_first_while_they_are_rejected(ledger):
    """A requeued pair leaves the list, and returns once if it is rejected again."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS]))
    await seal_batch(ledger, "w", [Rejected("status_400", "first")], size_bytes=1)
    await seal_batch(ledger, "w", [Rejected("status_404", "second")], size_bytes=1)
    rejections = await ledger.reports.list_rejections(limit=5)
    assert [(each.pair.send_id, each.reason, each.detail) for each in rejections] == [
        ("s1", "status_404", "second"), ("s0", "status_400", "first"),
    ]  # fmt: skip
    await ledger.intake.requeue(outcome="rejected", reason="status_404")
    assert [each.pair.send_id for each in await ledger.reports.list_rejections(limit=5)] == ["s0"]
    await seal_batch(ledger, "w", [Rejected("status_410", "again")], size_bytes=1)
    rejections = await ledger.reports.list_rejections(limit=5)
    assert [(each.pair.send_id, each.detail) for each in rejections] == [("s1", "again"), ("s0", "first")]


async def count_unstored(ledger: Ledger) -> tuple[dict[str, int], int]:
    """Count the unstored batches by state, and their bytes."""
    return await ledger.reports.count_unstored_batches(), await ledger.reports.get_sealed_bytes()


async def test_unstored_batches_and_bytes_are_counted_until_they_are_stored(ledger):
    """A conflicting batch keeps its bytes in the ledger."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS]))
    outcomes = [Captured(Verdict.ZERO, NOW, b"", 1)]
    first, second = [await seal_batch(ledger, "w", outcomes, size_bytes=size) for size in (100, 20)]
    assert await count_unstored(ledger) == ({"sealed": 2}, 120)
    await ledger.batches.mark_stored(first.id, dataset=DATASET, destination="d")
    await ledger.batches.mark_conflict(second.id)
    assert await count_unstored(ledger) == ({"conflict": 1}, 20)
    assert await ledger.reports.count_batches() == {"conflict": 1, "stored": 1}


async def test_parts_are_listed_in_the_order_in_which_they_were_stored(ledger, clock):
    """A loader with a bookmark gets each stored part once, page by page."""
    await ledger.intake.enqueue(sends(ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS]))
    outcomes = [Captured(Verdict.ZERO, NOW, b"", 1)]
    one, _, three = [await seal_batch(ledger, "w", outcomes, size_bytes=7) for _ in range(3)]
    for batch in (three, one):
        await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="d")
        clock.now += 1
    (first,) = (await ledger.reports.list_parts(after=0, limit=1)).parts
    (second,) = (await ledger.reports.list_parts(after=first.order, limit=5)).parts
    assert first == StoredPart(first.order, DATASET, f"{three.id}.ndjson", "0", 7, 1, NOW)
    assert (second.name, second.stored_at) == (f"{one.id}.ndjson", NOW + 1)
    assert await ledger.reports.list_parts(after=second.order, limit=5) == PartsPage([], None, second.order)


async def test_expired_and_open_pairs_are_counted_by_workspace(ledger):
    """An alert can name the workspace of expired pairs, and of pairs that no configuration serves."""
    await ledger.intake.enqueue(sends(ages=[16 * DAY_SECONDS, 20 * DAY_SECONDS, DAY_SECONDS]))
    await ledger.intake.enqueue(sends(ages=[16 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS], workspace="other"))
    for workspace in ("w", "other"):
        await ledger.upkeep.expire([workspace], trust_clock=True)
    assert await ledger.reports.count_expired() == {"w": 2, "other": 1}
    assert await ledger.reports.count_pending() == {"w": 1, "other": 2}


@only_sqlite
async def test_the_outlook_reads_no_settled_pair(ledger, location):
    """Every query reads counts, or an index of open pairs or unstored batches, so a large ledger is as quick."""
    with recorded_statements(ledger) as statements:
        await ledger.reports.get_outlooks()
        await count_unstored(ledger)
    plans = explained(location, statements)
    tables = [
        plan for plan in plans if plan.split()[0] in ("SEARCH", "SCAN") and plan.split()[1] in ("pair", "batch", "part")
    ]
    assert tables
    allowed = ("INDEX pair_open", "INDEX pair_waiting", "INDEX pair_next", "INDEX batch_unstored", "autoindex_part")
    assert [plan for plan in tables if not any(each in plan for each in allowed)] == []
