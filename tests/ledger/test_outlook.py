"""The look ahead of a ledger: the same as counting pair by pair, without reading pair by pair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from harvester.cli import show
from harvester.ledger import batches, books, intake
from harvester.ledger.outlook import (
    at_risk,
    expired,
    keep_pace,
    last_captures,
    latest_rejections,
    outlook,
    sealed_bytes,
    unstored_batches,
)
from harvester.ledger.plans import follow
from harvester.ledger.schema import metadata
from harvester.ledger.sqlite import connect
from harvester.model import (
    DATASET,
    DAY_SECONDS,
    GRACE_SECONDS,
    RETENTION_SECONDS,
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

NOW = 1_795_527_667.0
SOON = NOW + 6 * 3600


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An empty ledger; what a test does to it is rolled back."""
    made = connect(tmp_path_factory.mktemp("ledger") / "ledger.db")
    with made.begin() as connection:
        metadata.create_all(connection)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine):
    """One transaction, undone at the end."""
    with engine.connect() as opened:
        yield opened


def sends(connection, *, ages: list[float], workspace: str = "w") -> None:
    """Enqueue pairs sent so many seconds ago."""
    arrivals = [Enqueued(Pair(workspace, "c", f"s{n}"), NOW - age) for n, age in enumerate(ages)]
    intake.enqueue(connection, arrivals, now=NOW)


def harvested(connection, workspace: str, outcomes: list[object], *, batch_id: str, size_bytes: int) -> None:
    """Claim a batch and seal it with these outcomes and a part."""
    batch = batches.claim(connection, workspace, batch_id=batch_id, token="t", owner="o", limit=len(outcomes), now=NOW,
                          lease_until=NOW + 60)  # fmt: skip
    settlements = [Settlement(reading, outcome) for reading, outcome in zip(batch.readings, outcomes, strict=True)]
    part = Part(DATASET, f"{batch_id}.ndjson", "0", size_bytes, 1, b"x")
    delays = dict.fromkeys((reading.pair_id for reading in batch.readings), 60.0)
    assert batches.seal(connection, batch, settlements, [part], destination="d", now=NOW, deferral_delays=delays)


@given(st.lists(st.floats(-5 * DAY_SECONDS, RETENTION_SECONDS + GRACE_SECONDS - 60), max_size=30))
def test_the_outlook_is_what_counting_pair_by_pair_gives(engine, ages):
    """Each open pair stands on the day of its deadline, those that are late on the first; others' pairs nowhere."""
    with engine.connect() as connection:
        sends(connection, ages=ages)
        sends(connection, ages=[1.0, 2.0], workspace="another")
        seen = outlook(connection, "w", now=NOW)
        late, all_deadlines = at_risk(connection, now=NOW), list(books.deadlines(connection))
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


def test_what_the_pace_does_not_reach_in_time_is_at_risk(connection):
    """One definition for status, page and metric: a late pair, or one of a day that the pace does not reach in time."""
    sends(connection, ages=[11 * DAY_SECONDS - number for number in range(300)])
    sends(connection, ages=[DAY_SECONDS], workspace="another")
    assert at_risk(connection, now=NOW) == {"another": 0, "w": 0}
    for pace, expected in ((1.0, 0), (300 / (4 * DAY_SECONDS), 300), (0.0, 300), (1.0, 0)):
        keep_pace(connection, "w", pace)
        assert at_risk(connection, now=NOW) == {"another": 0, "w": expected}
        assert sum(day.at_risk for day in outlook(connection, "w", now=NOW).days) == expected
    assert at_risk(connection, now=NOW + 2.8 * DAY_SECONDS)["w"] == 300


def test_what_has_its_outcome_runs_out_of_no_time(connection):
    """Captured and rejected pairs leave the outlook, deferred, leased and paused ones stay; the forced never expire."""
    sends(connection, ages=[5 * DAY_SECONDS, 4 * DAY_SECONDS, 3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS])
    ended = [Captured(Verdict.ZERO, NOW, b"", 1), Rejected("status_400", "no"), Deferred("timeout")]
    harvested(connection, "w", ended, batch_id="b1", size_bytes=7)
    intake.pause(connection, [Pair("w", "c", "s4")])
    batches.claim(connection, "w", batch_id="b2", token="t", owner="o", limit=1, now=NOW, lease_until=NOW + 60)
    intake.enqueue(connection, [Enqueued(Pair("w", "c", "old"), NOW - 400 * DAY_SECONDS)], now=NOW, forced=True)
    seen = outlook(connection, "w", now=NOW)
    assert seen.readings == {"due": 1, "leased": 1, "paused": 1, "deferred": 1}
    assert seen.nearest_deadline == pytest.approx(NOW + 11 * DAY_SECONDS)
    assert sum(day.pairs for day in seen.days) == at_risk(connection, now=NOW + 30 * DAY_SECONDS)["w"] == 3


def test_the_last_capture_of_each_workspace_is_found_again_after_a_restart(connection):
    """A metric that begins at 0 with each start would say nothing of a service that restarts in vain."""
    sends(connection, ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS])
    sends(connection, ages=[3 * DAY_SECONDS], workspace="refused")
    harvested(connection, "w", [Captured(Verdict.ZERO, NOW, b"", 1)], batch_id="b1", size_bytes=1)
    harvested(connection, "refused", [Rejected("status_400", "no")], batch_id="b2", size_bytes=1)
    assert last_captures(connection) == {"w": NOW}


def test_pairs_never_read_are_told_from_those_that_wait_for_their_next_reading(connection):
    """A headline of pending pairs says for 13 days that there is work; these two say whether, and when."""
    follow(connection, "w", ReadingPlan.of("w", (1.0, 2.0, 13.0)))
    sends(connection, ages=[1.5 * DAY_SECONDS, 1.2 * DAY_SECONDS, 1.1 * DAY_SECONDS])
    batch = batches.claim(connection, "w", batch_id="b", token="t", owner="o", limit=2, now=NOW, lease_until=NOW + 60)
    ended = [Settlement(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in batch.readings]
    assert batches.seal(connection, batch, ended, [], destination="d", now=NOW, deferral_delays={})
    told = books.books(connection)
    assert (told.pending, told.never_read) == (3, 1)
    assert NOW + 0.4 * DAY_SECONDS < told.next_reading_at < NOW + 0.6 * DAY_SECONDS
    assert books.books_of_each(connection) == {"w": told}
    (line,) = [each for each in show.book_lines(told, {"w": told}) if each.startswith("pending")]
    assert line.startswith(
        "pending    3: 1 never read, 2 read before and waiting for their next reading, the next at 2026-"
    )


def test_rejects_come_latest_first_and_only_while_they_are_rejected(connection):
    """A page of them is a list to work off: what was asked again is no longer on it, or once if it was in vain."""
    sends(connection, ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS])
    harvested(connection, "w", [Rejected("status_400", "first")], batch_id="b1", size_bytes=1)
    harvested(connection, "w", [Rejected("status_404", "second")], batch_id="b2", size_bytes=1)
    found = latest_rejections(connection, limit=5)
    assert [(each.pair.send_id, each.reason, each.detail) for each in found] == [
        ("s1", "status_404", "second"), ("s0", "status_400", "first"),
    ]  # fmt: skip
    intake.requeue(connection, outcome="rejected", reason="status_404", now=NOW)
    assert [each.pair.send_id for each in latest_rejections(connection, limit=5)] == ["s0"]
    harvested(connection, "w", [Rejected("status_410", "again")], batch_id="b3", size_bytes=1)
    found = latest_rejections(connection, limit=5)
    assert [(each.pair.send_id, each.detail) for each in found] == [("s1", "again"), ("s0", "first")]


def test_what_waits_for_the_store_is_counted_until_it_is_stored(connection):
    """Batches by state, and the bytes that the ledger holds back."""
    sends(connection, ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS])
    for number, size in (("b1", 100), ("b2", 20)):
        harvested(connection, "w", [Captured(Verdict.ZERO, NOW, b"", 1)], batch_id=number, size_bytes=size)
    batches.claim(connection, "w", batch_id="b3", token="t", owner="o", limit=1, now=NOW, lease_until=NOW + 60)
    assert (unstored_batches(connection), sealed_bytes(connection)) == ({"open": 1, "sealed": 2}, 120)
    batches.stored(connection, "b1", dataset=DATASET, now=NOW)
    batches.conflicted(connection, "b2")
    assert (unstored_batches(connection), sealed_bytes(connection)) == ({"open": 1, "conflict": 1}, 20)
    assert books.batch_counts(connection) == {"open": 1, "conflict": 1, "stored": 1}


def test_loaders_are_told_of_parts_in_the_order_in_which_they_were_stored(connection):
    """A loader that comes again with its bookmark gets each part once, page by page, and none before it is there."""
    sends(connection, ages=[3 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS])
    for number in ("b1", "b2", "b3"):
        harvested(connection, "w", [Captured(Verdict.ZERO, NOW, b"", 1)], batch_id=number, size_bytes=7)
    for later, number in enumerate(("b3", "b1")):
        batches.stored(connection, number, dataset=DATASET, now=NOW + later)
    (first,) = books.stored_parts(connection, after=0, limit=1)
    (second,) = books.stored_parts(connection, after=first.order, limit=5)
    assert first == books.StoredPart(first.order, DATASET, "b3.ndjson", "0", 7, 1, NOW)
    assert (second.name, second.stored_at) == ("b1.ndjson", NOW + 1)
    assert books.stored_parts(connection, after=second.order, limit=5) == []


def test_expired_and_open_pairs_are_counted_by_workspace(connection):
    """So that an alert can say whose numbers are gone, and which pairs nobody serves."""
    sends(connection, ages=[16 * DAY_SECONDS, 20 * DAY_SECONDS, DAY_SECONDS])
    sends(connection, ages=[16 * DAY_SECONDS, 2 * DAY_SECONDS, DAY_SECONDS], workspace="well")
    for workspace in ("w", "well"):
        batches.wake(connection, workspace, now=NOW)
    assert expired(connection) == {"w": 2, "well": 1}
    assert books.pending(connection) == {"w": 1, "well": 2}


def test_looking_ahead_reads_no_pair_that_is_settled(connection):
    """A ledger of many months answers as quickly as a new one: every look goes by an index of what is open."""
    plans: list[str] = []

    @event.listens_for(connection, "before_cursor_execute")
    def explain(_connection, cursor, statement, parameters, *_):
        cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
        plans.extend(row[3] for row in cursor.fetchall())

    outlook(connection, "w", now=NOW)
    unstored_batches(connection)
    sealed_bytes(connection)
    read = {plan for plan in plans if plan.startswith(("SEARCH pair", "SCAN pair", "SCAN batch", "SCAN part"))}
    assert read
    assert [
        plan
        for plan in read
        if "INDEX pair_open" not in plan and "INDEX batch_unstored" not in plan and "INDEX pair_deferred" not in plan
    ] == []
