"""The plan of readings: each send is read at its ages, and a later send starts a new round."""

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.clock import SystemClock
from harvester.commands.rebuild import rebuild
from harvester.errors import SinkError
from harvester.ledger import Ledger
from harvester.model import (
    Batch,
    Captured,
    Deferred,
    LastCapture,
    Outcome,
    Pair,
    Reading,
    ReadingOutcome,
    Rejected,
    Released,
    SentPair,
    Verdict,
)
from harvester.schedule import FINAL, ONCE, SINGLE_READING_PLAN, Planned, ReadingPlan, count_deferrals, deferral_seconds
from harvester.storage import FolderSink
from tests.support.clocks import SettableClock
from tests.support.ledger_file import explained, query, recorded_statements

NOW = 1_767_225_600.0
DAY = 86_400.0
AGES = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 13.0)
PLAN = ReadingPlan(AGES)


class Workspace:
    """A workspace of one ledger whose readings the test captures."""

    def __init__(self, ledger: Ledger, clock: SettableClock, name: str = "eu") -> None:
        """Use a ledger that has a plan."""
        self.ledger = ledger
        self.clock = clock
        self.name = name

    async def enqueue(self, send_id: str, sent_at: float | None = None, **options):
        """Enqueue a send."""
        return await self.ledger.intake.enqueue([SentPair(Pair("eu", "c", send_id), sent_at)], **options)

    async def read(self, limit: int = 100, outcome=None) -> list[tuple[str, str]]:
        """Claim and seal the due readings; return their sends and names in the order of the claim."""
        readings = await self.claim(limit)
        await self.seal(readings, outcome or Captured(Verdict.ACTIVITY, self.clock.now, b"", 1))
        return [(each.pair.send_id, each.name) for each in readings]

    async def claim(self, limit: int = 1) -> list[Reading]:
        """Claim due readings, after the upkeep that the engine does before a claim."""
        await self.ledger.upkeep.schedule_due([self.name])
        await self.ledger.upkeep.expire([self.name])
        return await self.ledger.batches.claim({self.name: limit})

    async def seal(self, readings: list[Reading], outcome: Outcome) -> None:
        """Seal readings that all have the same outcome."""
        reading_outcomes = [ReadingOutcome(each, outcome) for each in readings]
        assert await self.ledger.batches.seal([(Batch.open(self.clock.now), reading_outcomes, [])])

    async def run_for(self, days: float) -> list[tuple[str, str]]:
        """Move the clock from one due reading to the next, and read each."""
        done, until = [], self.clock.now + days * DAY
        while (due_at := await self.ledger.batches.get_next_due_at("eu")) is not None and due_at <= until:
            self.clock.now = max(self.clock.now, due_at)
            done += await self.read()
        self.clock.now = until
        return done


@pytest.fixture
async def eu(tmp_path):
    """A workspace that follows the usual plan."""
    clock = SettableClock(NOW)
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        await ledger.intake.set_plan("eu", PLAN)
        ledger.clock.observe(NOW, sent=NOW, received=NOW)
        yield Workspace(ledger, clock)


@given(
    ages=st.lists(st.floats(0.01, 13.99), min_size=1, max_size=9, unique=True).map(sorted),
    since=st.floats(0, 2e9), late=st.floats(0, 20),
)  # fmt: skip
def test_every_plan_leads_to_the_final_reading_before_the_planning_deadline(ages, since, late):
    """The readings are in order, and none is early or avoidably late, whenever the send is enqueued.

    A reading is late after five minutes, or a twenty-fourth of the first age if that is less, and after the planning
    deadline.
    """
    plan = ReadingPlan(tuple(ages))
    now, rounding = since + late * DAY, min(300 / DAY, ages[0] / 24)
    reading = plan.first(since, now)
    names = []
    while reading is not None:
        names.append(reading.name)
        age = ages[-1] if reading.name == FINAL else float(reading.name[1:])
        at_most = max(age, min(age + rounding, 13.75))
        assert reading.due_at == now or age - 1e-4 < (reading.due_at - since) / DAY < at_most + 1e-4
        at = max(now, reading.due_at)
        following = plan.after(reading.name, since, at)
        assert following is None or following.due_at >= reading.due_at or following.due_at >= since
        reading = following
    assert names[-1] == FINAL
    assert len(names) == len(set(names))


def test_a_reading_of_an_unknown_name_is_followed_by_the_next_of_the_plan():
    """A send that is a day old to the second is due now."""
    assert PLAN.first(NOW - DAY, NOW) == Planned("d1", NOW)
    assert PLAN.after("d0", NOW - DAY, NOW).name == "d2"
    assert PLAN.after("d4", NOW - 4.5 * DAY, NOW).name == "d5"
    assert PLAN.after("d4", NOW - 13.5 * DAY, NOW) is None


def test_deferrals_double_from_five_seconds_to_an_hour():
    """Jitter shortens a delay by up to a quarter."""
    for deferrals, maximum in [(0, 5.0), (1, 10.0), (5, 160.0), (20, 3600.0), (5000, 3600.0)]:
        delays = [deferral_seconds(deferrals, random.Random(seed)) for seed in range(50)]
        assert 0.75 * maximum <= min(delays) < max(delays) <= maximum


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (4.9, 0), (5, 1), (14.9, 1), (15, 2), (240, 5), (1e6, 286)])
def test_a_patience_allows_the_deferrals_whose_delays_fit(seconds, count):
    """As many deferrals are allowed as have delays (5, 10, 20 seconds and so on) that fit into the patience."""
    assert count_deferrals(seconds) == count


async def test_a_send_is_read_at_every_age_and_then_settled(eu):
    """The final one of seven readings is on the last day before Braze deletes the analytics."""
    await eu.enqueue("s", NOW)
    done = await eu.run_for(13.8)
    assert done == [("s", name) for name in ("d1", "d2", "d3", "d5", "d8", "d11", "final")]
    totals = await eu.ledger.reports.get_books()
    assert totals.captured == {Verdict.ACTIVITY: 1}
    assert await eu.ledger.reports.count_readings() == {"captured": 7, "pending": 0}


async def test_a_changed_plan_applies_from_the_next_reading_on(eu):
    """The next reading stays as planned, and plans of other workspaces do not change."""
    await eu.ledger.intake.set_plan("us", ReadingPlan((4.0,)))
    await eu.enqueue("s", NOW)
    changed = ReadingPlan((4.0, 6.0))
    await eu.ledger.intake.set_plan("eu", changed)
    assert await eu.run_for(7) == [("s", "d1"), ("s", "d4"), ("s", FINAL)]
    assert sorted(await eu.ledger.reports.list_planned_workspaces()) == ["eu", "us"]
    assert await eu.ledger.reports.get_plan("eu") == changed
    assert await eu.ledger.reports.get_plan("unknown") == SINGLE_READING_PLAN


async def test_a_send_without_a_time_is_read_at_once_and_then_by_its_first_seen_time(eu):
    """A send without a time is read at once, because it may be about to expire."""
    await eu.enqueue("s")
    assert await eu.run_for(1.1) == [("s", "d0"), ("s", "d1")]


async def test_one_reading_replaces_all_that_an_outage_made_overdue(eu):
    """After six days without the process, a send is read once, not five times in a row."""
    await eu.enqueue("s", NOW)
    eu.clock.now += 6 * DAY
    assert await eu.run_for(1) == [("s", "d5")]
    eu.clock.now += 6.5 * DAY
    assert await eu.run_for(1) == [("s", "final")]


async def test_due_times_of_all_workspaces_are_on_twelve_phases_an_hour(eu):
    """A part then holds the readings of many workspaces, whose plans may differ."""
    await eu.ledger.intake.set_plan("us", ReadingPlan((0.5, 13.0)))
    for number in range(24):
        for workspace in ("eu", "us"):
            pair = Pair(workspace, "c", f"s{number}")
            await eu.ledger.intake.enqueue([SentPair(pair, NOW + number * 150)])
    due_times = [row[0] for row in query(eu.ledger.location, "SELECT due_at FROM pair")]
    assert {due_at % 300 for due_at in due_times} == {0.0}
    assert len({due_at % 3600 for due_at in due_times}) == 12


async def test_first_and_final_readings_precede_intermediate_ones(eu):
    """If not all can be read, the readings that would be lost are claimed first, even if their deadline is later."""
    await eu.enqueue("old", NOW - 5.5 * DAY)
    await eu.read()
    eu.clock.now += 3 * DAY  # its d8 is due now
    await eu.enqueue("new", eu.clock.now - 1.5 * DAY)
    await eu.enqueue("last", eu.clock.now - 13.2 * DAY)
    assert [await eu.read(limit=1) for _ in range(3)] == [[("last", "final")], [("new", "d1")], [("old", "d8")]]


async def test_an_overdue_intermediate_reading_becomes_the_final_one(eu):
    """A reading that is overdue at the last age counts as the final one, so it precedes first readings of others."""
    await eu.enqueue("starved", NOW - 8.5 * DAY)
    await eu.read()
    eu.clock.now += 5 * DAY
    await eu.enqueue("new", eu.clock.now - 1.5 * DAY)
    assert await eu.read(limit=1) == [("starved", "final")]


async def test_a_later_send_of_the_same_id_starts_a_new_round(eu):
    """The same message, its time without or with seconds, or an earlier send, changes nothing."""
    await eu.enqueue("s", NOW)
    await eu.run_for(13.8)
    await eu.enqueue("s", NOW)
    await eu.enqueue("s", NOW + 59)
    await eu.enqueue("s", NOW - DAY)
    assert await eu.run_for(2) == []
    sent_again = eu.clock.now
    await eu.enqueue("s", sent_again)
    assert [name for _, name in await eu.run_for(13.8)] == ["d1", "d2", "d3", "d5", "d8", "d11", "final"]


@pytest.mark.parametrize("age_days", [8.1, 13.1])
async def test_a_new_round_that_starts_during_a_reading_has_all_its_readings(eu, age_days):
    """The old response is stored, and the new round's first reading does not yield to other sends' next readings."""
    await eu.enqueue("s", NOW - age_days * DAY)
    readings = await eu.claim()
    await eu.enqueue("s", NOW)
    await eu.seal(readings, Captured(Verdict.ACTIVITY, NOW, b"", 1))
    await eu.enqueue("other", NOW - 4 * DAY)
    assert await eu.read() == [("other", "d3")]
    eu.clock.now += 1.2 * DAY
    assert [await eu.read(limit=1) for _ in range(2)] == [[("s", "d1")], [("other", "d5")]]
    assert await eu.run_for(1) == [("s", "d2")]


async def test_a_message_without_a_time_is_a_duplicate_until_its_retention_ends(eu):
    """Brokers deliver a message more than once; a month later it is another send."""
    await eu.enqueue("s")
    await eu.run_for(13.8)
    await eu.enqueue("s")
    assert await eu.run_for(1) == []
    eu.clock.now += 2 * DAY
    await eu.enqueue("s")
    assert await eu.run_for(0.5) == [("s", "d0")]


async def test_a_pair_that_was_captured_once_is_followed_once_a_service_enqueues_it(eu):
    """A pair that ``run`` captured once gets the planned readings when a service enqueues it."""
    await eu.enqueue("s", NOW - 2.5 * DAY, once=True)
    assert await eu.read() == [("s", "once")]
    await eu.enqueue("s", NOW - 2.5 * DAY)
    assert await eu.run_for(1) == [("s", "d2"), ("s", "d3")]


async def test_a_rejected_pair_is_read_again_only_after_a_requeue(eu):
    """A rejection cancels the planned readings of a pair until a requeue."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read(outcome=Rejected("status_400", "Invalid Campaign ID"))
    assert await eu.run_for(3) == []
    assert await eu.ledger.intake.requeue(outcome="rejected") == 1
    assert await eu.run_for(0.1) == [("s", "d3")]


async def test_a_pair_that_was_enqueued_in_time_is_requested_once_after_its_deadline(eu):
    """Braze's deletion time is not exact; a pair that was enqueued too late costs no request."""
    await eu.enqueue("starved", NOW)
    eu.clock.now += 16 * DAY
    await eu.enqueue("late", NOW)
    assert await eu.read() == [("starved", "final")]
    totals = await eu.ledger.reports.get_books()
    assert (totals.expired, totals.captured) == (1, {Verdict.ACTIVITY: 1})


async def test_forced_pairs_are_requested_at_any_age(eu):
    """An expired pair reopens and an open one does not expire; a captured pair stays captured."""
    ages = {"captured": 13.5, "gone": 20.0, "open": 13.6, "other": 13.6}
    await eu.enqueue("captured", NOW - 13.5 * DAY)
    await eu.read()
    for send_id, days in ages.items():
        await eu.enqueue(send_id, NOW - days * DAY)
    await eu.read(outcome=Deferred("timeout"))
    for send_id in ("captured", "gone", "open"):
        await eu.enqueue(send_id, NOW - ages[send_id] * DAY, forced=True)
    eu.clock.now += 20 * DAY
    assert await eu.read() == [("gone", FINAL), ("open", FINAL)]
    assert (await eu.ledger.reports.get_books()).expired == 1


async def test_a_later_reading_requests_days_up_to_now(eu):
    """After an outage the final reading does not reuse the end time of the d11 that failed."""
    await eu.enqueue("s", NOW - 11.05 * DAY)
    await eu.read(outcome=Deferred("timeout"))
    eu.clock.now += 2.3 * DAY
    readings = await eu.claim()
    assert [(each.name, each.ending_at) for each in readings] == [(FINAL, eu.clock.now)]


async def test_a_clock_that_is_set_back_repeats_no_reading(eu):
    """A reading that was due as the final one stays final."""
    await eu.enqueue("a", NOW)
    await eu.run_for(11.5)
    eu.clock.now = NOW + 13.5 * DAY
    await eu.ledger.upkeep.schedule_due(["eu"])
    eu.clock.now = NOW + 12 * DAY
    assert await eu.read() == [("a", FINAL)]


async def test_a_retried_reading_requests_the_same_days(eu):
    """A released reading was not requested, so it has no end time yet."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read(outcome=Released())
    eu.clock.now += 600
    requested_at = eu.clock.now
    await eu.read(outcome=Deferred("timeout"))
    eu.clock.now += 3600
    readings = await eu.claim()
    assert [each.ending_at for each in readings] == [requested_at]


async def test_a_historical_run_waits_for_deferred_readings_up_to_a_limit(eu):
    """Planned readings of another day and readings with too many deferrals do not keep it running."""

    async def next_due_at(max_deferrals: int) -> float | None:
        return await eu.ledger.batches.get_next_due_at("eu", max_deferrals=max_deferrals)

    await eu.enqueue("planned", NOW)
    assert await next_due_at(4) is None
    await eu.enqueue("s", NOW - 1.5 * DAY)
    assert await next_due_at(0) == 0
    for deferrals in (1, 2):
        await eu.read(outcome=Deferred("timeout"))
        assert await next_due_at(deferrals - 1) is None
        due_at = await next_due_at(deferrals)
        assert NOW < due_at < eu.clock.now + 11
        eu.clock.now = due_at
        await eu.ledger.upkeep.schedule_due(["eu"])
        assert (await next_due_at(deferrals - 1), await next_due_at(deferrals)) == (None, 0)
    await eu.read(outcome=Deferred("timeout"))
    await eu.ledger.intake.reset_deferrals(["eu"])
    assert await eu.read() == [("s", "d1")]


async def test_a_historical_list_does_not_end_a_plan(eu):
    """A list that is run once may move the deadline of a send, and the planned readings continue."""
    await eu.enqueue("s")
    await eu.read()
    await eu.enqueue("s", NOW - DAY, once=True)
    assert [name for _, name in await eu.run_for(2.5)] == ["d1", "d2", "d3"]


async def test_a_message_without_a_time_moves_no_deadline(eu):
    """The known time of a send is kept if another source does not contain it."""
    await eu.enqueue("s", NOW - 10 * DAY, once=True)
    await eu.enqueue("s")
    readings = await eu.claim()
    assert [each.deadline for each in readings] == [NOW + 4 * DAY]


async def test_a_time_that_arrives_late_repeats_no_captured_reading(eu):
    """The next readings are an hour earlier, since the send was an hour before it was first seen."""
    await eu.enqueue("s")
    read = [name for _, name in await eu.run_for(3.1)]
    await eu.enqueue("s", NOW - 3600)
    assert [*read, *(name for _, name in await eu.run_for(13))] == ["d0", "d1", "d2", "d3", "d5", "d8", "d11", "final"]


async def test_a_released_reading_of_a_historical_run_is_due_at_once(eu):
    """A released reading is due at once, even if the clock was set back."""
    await eu.enqueue("s", once=True)
    readings = await eu.claim()
    eu.clock.now -= 3600
    await eu.seal(readings, Released())
    assert await eu.read() == [("s", ONCE)]


async def test_a_deferral_of_the_old_round_does_not_move_the_new_round(eu):
    """If a send is sent again while a reading is deferred, the deferral does not move the new round."""
    await eu.enqueue("s", NOW - 13.1 * DAY)
    readings = await eu.claim()
    await eu.enqueue("s", NOW)
    await eu.seal(readings, Deferred("timeout"))
    assert await eu.run_for(0.9) == []
    assert await eu.run_for(0.2) == [("s", "d1")]


async def test_a_rejected_pair_that_is_requeued_late_is_requested(eu):
    """A rejected pair that is requeued after its deadline is requested before it expires."""
    await eu.enqueue("s", NOW - 13.5 * DAY)
    await eu.read()
    await eu.enqueue("t", NOW - 5.5 * DAY)
    await eu.read()
    eu.clock.now += 3 * DAY
    await eu.read(outcome=Rejected("status_404", "gone"))
    eu.clock.now += 20 * DAY
    assert await eu.ledger.intake.requeue(outcome="rejected") == 1
    assert await eu.run_for(0.1) == [("t", FINAL)]


async def test_a_halt_keeps_its_start_time_and_its_latest_reason(eu):
    """Each failed probe updates the reason, and ``resume`` removes the halt."""
    for name, now in (("eu", NOW), ("us", NOW + 60), ("eu", NOW + 600)):
        eu.clock.now = now
        await eu.ledger.upkeep.halt(name, reason=f"refused at {now}")
    both = {"eu": (f"refused at {NOW + 600}", NOW), "us": (f"refused at {NOW + 60}", NOW + 60)}
    assert await eu.ledger.reports.list_halted() == both
    await eu.ledger.upkeep.resume("eu")
    assert await eu.ledger.reports.list_halted() == {"us": both["us"]}


async def test_a_run_leaves_the_readings_that_a_service_has_leased_to_it(eu):
    """They are planned, so the summary does not advise to run the command again, which would find nothing to read."""
    await eu.enqueue("later", NOW)
    await eu.enqueue("leased", NOW - 1.5 * DAY)
    await eu.claim(9)
    assert await eu.ledger.reports.count_planned() == 1
    assert await eu.ledger.reports.count_planned(leased=True) == 2


async def release_all(eu: Workspace) -> None:
    """Claim and release all due readings."""
    await eu.ledger.batches.release(await eu.claim(9))


async def lease_in_another_epoch(eu: Workspace) -> None:
    """Claim all due readings, and begin another epoch."""
    await eu.claim(9)
    await eu.ledger.batches.register()
    assert not await eu.ledger.batches.has_leases_of_others("eu")  # it was planned, not listed for one reading


@pytest.mark.parametrize(
    "method",
    [
        lambda eu: eu.ledger.batches.get_next_due_at("eu"),
        lambda eu: eu.ledger.batches.get_next_due_at("eu", max_deferrals=4),
        lambda eu: eu.ledger.reports.count_pending(),
        lambda eu: eu.ledger.intake.reset_deferrals(["eu"]),
        lambda eu: eu.ledger.upkeep.schedule_due(["eu"]),
        lambda eu: eu.ledger.upkeep.expire(["eu"]),
        lambda eu: eu.read(outcome=Deferred("timeout")),
        lambda eu: eu.ledger.batches.recover(),
        lambda eu: eu.ledger.batches.list_due(["eu", "us"]),
        lambda eu: eu.ledger.upkeep.find_time_probe(["eu", "us"]),
        lambda eu: eu.ledger.upkeep.has_overdue_pairs("eu"),
        lease_in_another_epoch,
        release_all,
    ],
    ids=[
        "next",
        "next_of_run",
        "pending",
        "reset",
        "schedule",
        "expire",
        "claim_and_seal",
        "recover",
        "list_due",
        "find_time_probe",
        "has_overdue_pairs",
        "has_leases_of_others",
        "release",
    ],
)
async def test_no_frequent_method_reads_every_pair(eu, method):
    """On a ledger of a million pairs, each of these methods searches an index."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    with recorded_statements(eu.ledger) as statements:
        await method(eu)
    found = [each for each in explained(eu.ledger.location, statements) if "pair" in each]
    assert found
    for detail in found:
        assert "SCAN pair " not in f"{detail} " or "INDEX pair_open" in detail, detail
        assert "sqlite_autoindex" not in detail, detail


async def test_a_captured_pair_is_not_requested_after_its_deadline(eu):
    """After its deadline a captured pair costs no request; the books count its missing last reading as expired."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read()
    eu.clock.now += 16 * DAY
    assert await eu.read() == []
    assert (await eu.ledger.reports.get_books()).expired == 1
    assert await eu.ledger.reports.count_readings() == {"captured": 1, "expired": 1, "pending": 0}


async def test_removed_pairs_are_deleted(eu):
    """Removed pairs are not read, and the books balance."""
    for send_id in ("captured", "removed"):
        await eu.enqueue(send_id, NOW - 1.5 * DAY)
    await eu.read()
    await eu.enqueue("kept", NOW - 1.5 * DAY)
    assert await eu.ledger.intake.remove([Pair("eu", "c", "removed"), Pair("eu", "c", "never seen")]) == 1
    assert await eu.read() == [("kept", "d1")]
    totals = await eu.ledger.reports.get_books()
    assert (totals.accepted, totals.pending, totals.balanced) == (2, 2, True)
    assert await eu.ledger.reports.count_readings() == {"captured": 2, "pending": 2}


async def test_deletions_of_pairs_use_indexes(eu):
    """The time depends on the deleted rows only; foreign keys use an index too."""
    await eu.enqueue("s", NOW)
    with recorded_statements(eu.ledger) as statements:
        assert await eu.ledger.intake.remove([Pair("eu", "c", "s")]) == 1
    deletions = [each for each in statements if each[0].startswith("DELETE")]
    assert len(deletions) == 2
    assert not [detail for detail in explained(eu.ledger.location, deletions) if detail.startswith("SCAN")]


PLANNED = (
    "SELECT workspace, campaign_id, send_id, sent_at, expires_at, pair.reading, state, pair.outcome, pair.verdict,"
    " captures, yields, iif(state = 'settled', 0, due_at), outcome.reading, outcome.outcome, outcome.verdict,"
    " ended_at FROM pair JOIN outcome ON outcome.pair_id = pair.id ORDER BY 1, 2, 3"
)
"""The state and outcomes of each pair; the due time of a settled pair does not matter."""


async def test_a_ledger_rebuilt_from_captures_has_the_plans_of_the_lost_one(eu, tmp_path):
    """Each pair continues before an intermediate or final reading, or is settled; existing pairs stay as they are."""
    ages = {"between": ("d5", 5.5), "last": ("d11", 11.1), "over": (FINAL, 13.2)}
    sends = {Pair("eu", "c", send_id): age for send_id, age in ages.items()}
    sends |= {Pair("us", "c", "over"): (ONCE, 1.0), Pair("eu", "d", "over"): (FINAL, 13.4)}
    captures = [
        LastCapture(pair, name, Verdict.ACTIVITY, NOW, NOW - days * DAY, 1) for pair, (name, days) in sends.items()
    ]
    await eu.ledger.intake.enqueue([SentPair(each.pair, each.since) for each in captures])
    for workspace in (eu, Workspace(eu.ledger, eu.clock, "us")):
        await workspace.read()
    async with await Ledger.open(tmp_path / "new.db", clock=eu.clock) as new:
        for restored in (5, 0):
            assert await new.rebuild("lost", captures, {"eu": PLAN}) == restored
        assert query(new.location, PLANNED) == query(eu.ledger.location, PLANNED)
    async with await Ledger.open(tmp_path / "new.db", clock=eu.clock) as new:
        assert new.ledger_id == "lost"


@pytest.mark.parametrize("schema", [1, 2, 3, 4, 5, 6, 7, 8])
async def test_a_ledger_of_an_earlier_schema_is_upgraded_in_place(tmp_path, schema):
    """Its counts, sealed parts and due readings stay, and a second opening changes nothing."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "ledgers" / f"schema-{schema}.sql").read_text())
    for _ in range(2):
        async with await Ledger.open(path, clock=SettableClock(NOW)) as ledger:
            totals = await ledger.reports.get_books()
            assert (totals.accepted, totals.pending, totals.rejected) == (4, 2, {"status_400": 1})
            assert await ledger.reports.find_wrong_counts() == []
            (unstored,) = await ledger.batches.recover()
            (part,) = await ledger.batches.list_sealed_parts(unstored.batch_id)
            assert part.data == b"rows"
    async with await Ledger.open(tmp_path / "new.db", clock=SettableClock(NOW)):
        pass
    for statement in (INDEXES, COLUMNS):
        assert query(path, statement) == query(tmp_path / "new.db", statement)


OPEN_STATES = "SELECT state FROM pair WHERE outcome IS NULL ORDER BY send_id"
INDEXES = "SELECT name FROM sqlite_master ORDER BY 1"
COLUMNS = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY 1, 2"


@pytest.mark.parametrize(("schema", "states"), [(2, ["paused", "paused"]), (3, ["paused", "paused"]),
                                                (4, ["leased", "waiting"])])  # fmt: skip
async def test_readings_that_an_earlier_version_paused_or_leased_are_read_again(tmp_path, schema, states):
    """A pair that an earlier version left paused or leased is read again: at once if overdue, otherwise at its age."""
    path, clock = tmp_path / "ledger.db", SettableClock(NOW)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "ledgers" / f"schema-{schema}.sql").read_text())
    assert [state for (state,) in query(path, OPEN_STATES)] == states
    async with await Ledger.open(path, clock=clock) as ledger:
        ledger.clock.observe(NOW, sent=NOW, received=NOW)
        eu = Workspace(ledger, clock)
        assert await eu.read() == [("s0", "d0")]
        assert await eu.run_for(1.1) == [("s0", "d1"), ("s1", "d2")]


async def test_a_place_that_lost_its_ledger_and_its_marker_is_rebuilt(tmp_path):
    """After the folder .harvester/ was removed, the parts restore the plan, and the dataset gets a marker again."""
    row = {"workspace": "eu", "campaign_id": "c", "send_id": "s", "level": "capture", "reading": "once",
           "verdict": "zero", "captured_at": "2026-11-24T08:00:00Z"}  # fmt: skip
    part = tmp_path / "out" / "send_analytics" / "captured_date=2026-11-24" / "batch.ndjson"
    part.parent.mkdir(parents=True)
    part.write_text(json.dumps(row) + "\n")
    sink = FolderSink(tmp_path / "out")
    async with await Ledger.open(tmp_path / "new.db", clock=SystemClock()) as new:
        with pytest.raises(SinkError, match="harvester ledger rebuild"):
            await sink.attach(new.ledger_id)
        own = new.ledger_id
        for restored in (1, None):
            assert await rebuild(new, [(sink, tmp_path / "out")], {}, temp_directory=tmp_path) == restored
        known = await new.reports.find_dataset(sink.place)
        assert await sink.attach(new.ledger_id, known=known) == known == await sink.attach(own)
