"""The plan of readings: each send is read at its ages, and anew when it is sent anew."""

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
from harvester.model import Captured, Deferred, Enqueued, LastCapture, Pair, Rejected, Returned, Settlement, Verdict
from harvester.schedule import FINAL, ONCE, ONLY_ONCE, Planned, ReadingPlan, count_deferrals, deferral_seconds
from harvester.storage import FolderSink
from tests.support.ledger_file import explained, query, recorded_statements

NOW = 1_767_225_600.0
DAY = 86_400.0
AGES = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 13.0)
PLAN = ReadingPlan.of("eu", AGES)


class Clock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        """Begin at a round moment."""
        self.now = NOW

    def wall(self) -> float:
        """Epoch seconds."""
        return self.now

    def monotonic(self) -> float:
        """The same, for nobody here compares the two."""
        return self.now


class Workspace:
    """A workspace of one ledger, harvested by hand."""

    def __init__(self, ledger: Ledger, clock: Clock, name: str = "eu") -> None:
        """Take a ledger that follows the plan."""
        self.ledger = ledger
        self.clock = clock
        self.name = name

    async def enqueue(self, send_id: str, sent_at: float | None = None, **options):
        """Tell of a send."""
        return await self.ledger.intake.enqueue([Enqueued(Pair("eu", "c", send_id), sent_at)], **options)

    async def read(self, limit: int = 100, outcome=None) -> list[tuple[str, str]]:
        """Claim what is due, let it be captured, and give send and reading in the order of the claim."""
        batch = await self.ledger.batches.claim(self.name, limit=limit)
        if batch is None:
            return []
        ended = outcome or Captured(Verdict.ACTIVITY, self.clock.now, b"", 1)
        settlements = [Settlement(each, ended) for each in batch.readings]
        assert await self.ledger.batches.seal(batch, settlements, [], destination="d")
        return [(each.pair.send_id, each.name) for each in batch.readings]

    async def live(self, days: float) -> list[tuple[str, str]]:
        """Let time pass from one due reading to the next, and read each."""
        done, until = [], self.clock.now + days * DAY
        while (due_at := await self.ledger.batches.get_next_due_at("eu")) is not None and due_at <= until:
            self.clock.now = max(self.clock.now, due_at)
            done += await self.read()
        self.clock.now = until
        return done


@pytest.fixture
async def eu(tmp_path):
    """A workspace whose readings follow the usual plan."""
    clock = Clock()
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        await ledger.intake.set_plan("eu", PLAN)
        ledger.clock.observe(NOW, departed=NOW, received=NOW)
        yield Workspace(ledger, clock)


@given(
    ages=st.lists(st.floats(0.01, 13.99), min_size=1, max_size=9, unique=True).map(sorted),
    since=st.floats(0, 2e9), late=st.floats(0, 20),
)  # fmt: skip
def test_every_plan_leads_to_the_final_reading_before_the_planning_deadline(ages, since, late):
    """Whenever a send is first heard of, its readings come in order, none early, nor late if it can be helped.

    Late is after an hour, or a twenty-fourth of the first age where that is less, and after the planning deadline.
    """
    plan = ReadingPlan.of("eu", tuple(ages))
    now, rounding = since + late * DAY, min(1.0, ages[0]) / 24
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


def test_what_is_due_at_its_very_age_is_due_and_what_no_plan_knows_is_followed_by_what_comes_next():
    """A send that is a day old to the second is read now; a reading of an earlier configuration ends nothing."""
    assert PLAN.first(NOW - DAY, NOW) == Planned("d1", NOW)
    assert PLAN.after("d0", NOW - DAY, NOW).name == "d2"
    assert PLAN.after("d4", NOW - 4.5 * DAY, NOW).name == "d5"
    assert PLAN.after("d4", NOW - 13.5 * DAY, NOW) is None


def test_deferrals_double_from_five_seconds_to_an_hour():
    """A passing trouble costs seconds, a lasting one a call an hour; a quarter of chance keeps a herd apart."""
    for deferrals, most in [(0, 5.0), (1, 10.0), (5, 160.0), (20, 3600.0), (5000, 3600.0)]:
        delays = [deferral_seconds(deferrals, random.Random(seed)) for seed in range(50)]
        assert 0.75 * most <= min(delays) < max(delays) <= most


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (4.9, 0), (5, 1), (14.9, 1), (15, 2), (240, 5), (1e6, 286)])
def test_a_patience_allows_the_deferrals_whose_delays_fit(seconds, count):
    """Delays of 5, 10, 20 seconds and so on, up to an hour each."""
    assert count_deferrals(seconds) == count


async def test_a_send_is_read_at_every_age_and_then_settled(eu):
    """Seven readings by the names of their ages, the last one in the last day before Braze forgets."""
    await eu.enqueue("s", NOW)
    done = await eu.live(13.8)
    assert done == [("s", name) for name in ("d1", "d2", "d3", "d5", "d8", "d11", "final")]
    told = await eu.ledger.reports.get_books()
    assert told.captured == {Verdict.ACTIVITY: 1}
    assert await eu.ledger.reports.count_readings() == {"captured": 7, "pending": 0}


async def test_a_plan_that_is_changed_holds_from_the_next_reading_on(eu):
    """What is planned stays where it is, and so do the plans of other workspaces."""
    await eu.ledger.intake.set_plan("us", ReadingPlan.of("us", (4.0,)))
    await eu.enqueue("s", NOW)
    changed = ReadingPlan.of("eu", (4.0, 6.0))
    await eu.ledger.intake.set_plan("eu", changed)
    assert await eu.live(7) == [("s", "d1"), ("s", "d4"), ("s", FINAL)]
    assert sorted(await eu.ledger.reports.list_served_workspaces()) == ["eu", "us"]
    assert await eu.ledger.reports.get_plan("eu") == changed
    assert await eu.ledger.reports.get_plan("nobody's") == ONLY_ONCE


async def test_a_send_of_unknown_time_is_read_at_once_and_then_by_its_first_sight(eu):
    """It may be about to expire, so it cannot wait for its first day."""
    await eu.enqueue("s")
    assert await eu.live(1.1) == [("s", "d0"), ("s", "d1")]


async def test_one_reading_settles_all_that_an_outage_made_overdue(eu):
    """After six days away a send is read once, as what it is by now, not five times in a row."""
    await eu.enqueue("s", NOW)
    eu.clock.now += 6 * DAY
    assert await eu.live(1) == [("s", "d5")]
    eu.clock.now += 6.5 * DAY
    assert await eu.live(1) == [("s", "final")]


async def test_sends_that_trickle_in_fall_due_together(eu):
    """Due times are rounded up to the hour, so that a part holds many sends; another workspace has another minute."""
    for number in range(7):
        await eu.enqueue(f"s{number}", NOW + number * 600)
    one, other = [row[0] for row in query(eu.ledger.path, DUE_TIMES)]
    assert other - one == 3600
    assert ReadingPlan.of("us", AGES).first(NOW, NOW) != PLAN.first(NOW, NOW)


DUE_TIMES = "SELECT DISTINCT due_at FROM pair WHERE state <> 'settled' ORDER BY 1"


async def test_readings_in_between_give_way_to_first_and_final_ones(eu):
    """Where not all can be read, what would be lost comes first, though its deadline may be later."""
    await eu.enqueue("old", NOW - 5.5 * DAY)
    await eu.read()
    eu.clock.now += 3 * DAY  # its d8 is due now
    await eu.enqueue("new", eu.clock.now - 1.5 * DAY)
    await eu.enqueue("last", eu.clock.now - 13.2 * DAY)
    assert [await eu.read(limit=1) for _ in range(3)] == [[("last", "final")], [("new", "d1")], [("old", "d8")]]


async def test_a_reading_in_between_that_is_the_last_one_by_now_gives_way_no_longer(eu):
    """A reading that starved until the last day is the final one, and goes before those that never are."""
    await eu.enqueue("starved", NOW - 8.5 * DAY)
    await eu.read()
    eu.clock.now += 5 * DAY
    await eu.enqueue("new", eu.clock.now - 1.5 * DAY)
    assert await eu.read(limit=1) == [("starved", "final")]


async def test_a_send_id_that_is_used_again_begins_anew(eu):
    """A later send has its own fourteen days; the same message again, or an older one, changes nothing."""
    await eu.enqueue("s", NOW)
    await eu.live(13.8)
    await eu.enqueue("s", NOW)
    await eu.enqueue("s", NOW - DAY)
    assert await eu.live(2) == []
    sent_again = eu.clock.now
    await eu.enqueue("s", sent_again)
    assert [name for _, name in await eu.live(13.8)] == ["d1", "d2", "d3", "d5", "d8", "d11", "final"]


@pytest.mark.parametrize("age_days", [8.1, 13.1])
async def test_a_new_round_that_begins_while_the_old_is_being_read_is_not_ended_by_it(eu, age_days):
    """The old answer is kept, and the new round has all its readings; its first one gives way to no other's next."""
    await eu.enqueue("s", NOW - age_days * DAY)
    batch = await eu.ledger.batches.claim("eu", limit=1)
    await eu.enqueue("s", NOW)
    ended = [Settlement(each, Captured(Verdict.ACTIVITY, NOW, b"", 1)) for each in batch.readings]
    assert await eu.ledger.batches.seal(batch, ended, [], destination="d")
    await eu.enqueue("other", NOW - 4 * DAY)
    assert await eu.read() == [("other", "d3")]
    eu.clock.now += 1.2 * DAY
    assert [await eu.read(limit=1) for _ in range(2)] == [[("s", "d1")], [("other", "d5")]]
    assert await eu.live(1) == [("s", "d2")]


async def test_without_a_time_a_message_is_a_duplicate_until_the_window_has_closed(eu):
    """Brokers deliver more than once; a month later it must be another send."""
    await eu.enqueue("s")
    await eu.live(13.8)
    await eu.enqueue("s")
    assert await eu.live(1) == []
    eu.clock.now += 2 * DAY
    await eu.enqueue("s")
    assert await eu.live(0.5) == [("s", "d0")]


async def test_what_was_captured_once_is_followed_when_a_service_is_told_of_it(eu):
    """A historical capture does not keep a send from its plan."""
    await eu.enqueue("s", NOW - 2.5 * DAY, once=True)
    assert await eu.read() == [("s", "once")]
    await eu.enqueue("s", NOW - 2.5 * DAY)
    assert await eu.live(1) == [("s", "d2"), ("s", "d3")]


async def test_a_refused_pair_is_settled_and_read_again_when_requeued(eu):
    """A campaign that does not exist is not asked for six times more, unless someone says so."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read(outcome=Rejected("status_400", "Invalid Campaign ID"))
    assert await eu.live(3) == []
    assert await eu.ledger.intake.requeue(outcome="rejected") == 1
    assert await eu.live(0.1) == [("s", "d3")]


async def test_a_pair_that_came_in_time_is_tried_once_even_after_its_deadline(eu):
    """Nobody knows to the hour when its data goes; a pair that came too late costs no call."""
    await eu.enqueue("starved", NOW)
    eu.clock.now += 16 * DAY
    await eu.enqueue("late", NOW)
    assert await eu.read() == [("starved", "final")]
    told = await eu.ledger.reports.get_books()
    assert (told.expired, told.captured) == (1, {Verdict.ACTIVITY: 1})


async def test_what_is_forced_is_asked_whatever_its_age_and_nothing_else_is(eu):
    """An expired pair is opened again and an open one does not expire; what was captured stays so."""
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


async def test_a_later_reading_never_asks_an_earlier_one_s_question(eu):
    """After an outage the final reading asks for all days up to now, though the d11 before it was asked in vain."""
    await eu.enqueue("s", NOW - 11.05 * DAY)
    await eu.read(outcome=Deferred("timeout"))
    eu.clock.now += 2.3 * DAY
    batch = await eu.ledger.batches.claim("eu", limit=1)
    assert [(each.name, each.ending_at) for each in batch.readings] == [(FINAL, eu.clock.now)]


async def test_a_clock_that_is_set_back_asks_for_no_reading_again(eu):
    """What was due as the final reading stays that: the one before it was captured already."""
    await eu.enqueue("a", NOW)
    await eu.live(11.5)
    eu.clock.now = NOW + 13.5 * DAY
    await eu.ledger.upkeep.schedule_due("eu")
    eu.clock.now = NOW + 12 * DAY
    assert await eu.read() == [("a", FINAL)]


async def test_a_reading_that_was_asked_in_vain_asks_the_same_again(eu):
    """A retry must not give other days than the try before it; what was never asked is pinned to nothing."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read(outcome=Returned())
    eu.clock.now += 600
    asked_at = eu.clock.now
    await eu.read(outcome=Deferred("timeout"))
    eu.clock.now += 3600
    batch = await eu.ledger.batches.claim("eu", limit=1)
    assert [each.ending_at for each in batch.readings] == [asked_at]


async def test_a_historical_run_waits_for_what_was_deferred_and_not_for_what_always_fails(eu):
    """It ends when only readings are left that were deferred too often, or that a plan keeps for another day."""

    async def next_due_at(most: int) -> float | None:
        return await eu.ledger.batches.get_next_due_at("eu", max_deferrals=most)

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
        await eu.ledger.upkeep.schedule_due("eu")
        assert (await next_due_at(deferrals - 1), await next_due_at(deferrals)) == (None, 0)
    await eu.read(outcome=Deferred("timeout"))
    await eu.ledger.intake.reset_deferrals("eu")
    assert await eu.read() == [("s", "d1")]


async def test_a_list_that_is_read_once_does_not_end_a_plan(eu):
    """A historical capture that knows a send's time moves its deadline, and its readings go on."""
    await eu.enqueue("s")
    await eu.read()
    await eu.enqueue("s", NOW - DAY, once=True)
    assert [name for _, name in await eu.live(2.5)] == ["d1", "d2", "d3"]


async def test_a_message_without_a_time_moves_no_deadline(eu):
    """What is known of a send's time is not forgotten when another source does not know it."""
    await eu.enqueue("s", NOW - 10 * DAY, once=True)
    await eu.enqueue("s")
    batch = await eu.ledger.batches.claim("eu", limit=1)
    assert [each.deadline for each in batch.readings] == [NOW + 4 * DAY]


async def test_a_time_that_is_learnt_late_asks_for_nothing_that_was_captured(eu):
    """Its readings go on where they were, an hour sooner: it was sent an hour before it was first seen."""
    await eu.enqueue("s")
    read = [name for _, name in await eu.live(3.1)]
    await eu.enqueue("s", NOW - 3600)
    assert [*read, *(name for _, name in await eu.live(13))] == ["d0", "d1", "d2", "d3", "d5", "d8", "d11", "final"]


async def test_what_is_read_once_is_due_when_it_goes_back_whatever_the_clock_says(eu):
    """A clock that was set back puts nothing off: no run would wait for it."""
    await eu.enqueue("s", once=True)
    batch = await eu.ledger.batches.claim("eu", limit=1)
    eu.clock.now -= 3600
    ended = [Settlement(each, Returned()) for each in batch.readings]
    assert await eu.ledger.batches.seal(batch, ended, [], destination="d")
    assert await eu.read() == [("s", ONCE)]


async def test_a_new_round_is_not_hurried_by_the_end_of_the_old_one(eu):
    """A reading that was deferred while its send went out anew leaves the new send's first reading where it was."""
    await eu.enqueue("s", NOW - 13.1 * DAY)
    batch = await eu.ledger.batches.claim("eu", limit=1)
    await eu.enqueue("s", NOW)
    ended = [Settlement(each, Deferred("timeout")) for each in batch.readings]
    assert await eu.ledger.batches.seal(batch, ended, [], destination="d")
    assert await eu.live(0.9) == []
    assert await eu.live(0.2) == [("s", "d1")]


async def test_a_refused_pair_that_is_requeued_late_is_asked(eu):
    """Another chance is a call, not a word: it does not expire before it is asked."""
    await eu.enqueue("s", NOW - 13.5 * DAY)
    await eu.read()
    await eu.enqueue("t", NOW - 5.5 * DAY)
    await eu.read()
    eu.clock.now += 3 * DAY
    await eu.read(outcome=Rejected("status_404", "gone"))
    eu.clock.now += 20 * DAY
    assert await eu.ledger.intake.requeue(outcome="rejected") == 1
    assert await eu.live(0.1) == [("t", FINAL)]


async def test_since_when_a_workspace_is_halted_is_kept(eu):
    """Every probe in vain tells of the halt again; it began with the first, and is over for who takes calls again."""
    for name, now in (("eu", NOW), ("us", NOW + 60), ("eu", NOW + 600)):
        eu.clock.now = now
        await eu.ledger.upkeep.halt(name, because=f"refused at {now}")
    both = {"eu": (f"refused at {NOW + 600}", NOW), "us": (f"refused at {NOW + 60}", NOW + 60)}
    assert await eu.ledger.reports.list_halted() == both
    await eu.ledger.upkeep.resume("eu")
    assert await eu.ledger.reports.list_halted() == {"us": both["us"]}


@pytest.mark.parametrize(
    "method",
    [
        lambda eu: eu.ledger.batches.get_next_due_at("eu"),
        lambda eu: eu.ledger.batches.get_next_due_at("eu", max_deferrals=4),
        lambda eu: eu.ledger.reports.count_pending(),
        lambda eu: eu.ledger.intake.reset_deferrals("eu"),
        lambda eu: eu.ledger.upkeep.schedule_due("eu"),
        lambda eu: eu.ledger.upkeep.expire("eu"),
        lambda eu: eu.read(outcome=Deferred("timeout")),
        lambda eu: eu.ledger.batches.recover(),
    ],
    ids=["next", "next_of_run", "pending", "reset", "schedule", "expire", "claim_and_seal", "recover"],
)
async def test_no_frequent_method_reads_every_pair(eu, method):
    """On a ledger of a million pairs each of these is a search of an index."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    with recorded_statements(eu.ledger) as statements:
        await method(eu)
    found = [each for each in explained(eu.ledger.path, statements) if "pair" in each]
    assert found
    for detail in found:
        assert "SCAN pair" not in detail or "INDEX pair_open" in detail, detail
        assert "sqlite_autoindex" not in detail, detail


async def test_a_pair_that_was_captured_is_not_asked_for_when_its_time_is_over(eu):
    """Its data is gone; the call would bring nothing, and the books say that the last reading is missing."""
    await eu.enqueue("s", NOW - 1.5 * DAY)
    await eu.read()
    eu.clock.now += 16 * DAY
    assert await eu.read() == []
    assert (await eu.ledger.reports.get_books()).expired == 1
    assert await eu.ledger.reports.count_readings() == {"captured": 1, "expired": 1, "pending": 0}


async def test_removed_pairs_are_deleted(eu):
    """They are not read, and the books balance."""
    for send_id in ("captured", "removed"):
        await eu.enqueue(send_id, NOW - 1.5 * DAY)
    await eu.read()
    await eu.enqueue("kept", NOW - 1.5 * DAY)
    assert await eu.ledger.intake.remove([Pair("eu", "c", "removed"), Pair("eu", "c", "never seen")]) == 1
    assert await eu.read() == [("kept", "d1")]
    told = await eu.ledger.reports.get_books()
    assert (told.accepted, told.pending, told.balanced) == (2, 2, True)
    assert await eu.ledger.reports.count_readings() == {"captured": 2, "pending": 2}


async def test_what_settled_long_ago_is_forgotten_and_nothing_else(eu):
    """The ledger does not grow for ever."""
    await eu.enqueue("old", NOW)
    await eu.live(13.8)
    await eu.enqueue("open", NOW - DAY)
    assert await eu.ledger.upkeep.prune(keep_days=13.8) == 0
    eu.clock.now += 3 * DAY
    assert await eu.ledger.upkeep.prune(keep_days=0) == 1
    assert (await eu.ledger.reports.get_books()).accepted == 1


async def test_to_forget_a_pair_is_not_to_read_every_outcome(eu):
    """Pruning takes as long as what goes is large, however much stays; foreign keys are looked up in an index too."""
    await eu.enqueue("s", NOW)
    with recorded_statements(eu.ledger) as statements:
        assert await eu.ledger.intake.remove([Pair("eu", "c", "s")]) == 1
    deletions = [each for each in statements if each[0].startswith("DELETE")]
    assert len(deletions) == 2
    assert not [detail for detail in explained(eu.ledger.path, deletions) if detail.startswith("SCAN")]


PLANNED = (
    "SELECT workspace, campaign_id, send_id, sent_at, expires_at, pair.reading, state, pair.outcome, pair.verdict,"
    " captures, yields, iif(state = 'settled', 0, due_at), outcome.reading, outcome.outcome, outcome.verdict,"
    " ended_at FROM pair JOIN outcome ON outcome.pair_id = pair.id ORDER BY 1, 2, 3"
)
"""How each pair stands and what was captured of it; when a settled one fell due is of no use to anybody."""


async def test_a_ledger_made_anew_from_captures_plans_what_the_lost_one_did(eu, tmp_path):
    """Each send goes on where it was: in between, before its final reading, or settled; one that is there stays."""
    ages = {"between": ("d5", 5.5), "last": ("d11", 11.1), "over": (FINAL, 13.2)}
    sends = {Pair("eu", "c", send_id): age for send_id, age in ages.items()}
    sends |= {Pair("us", "c", "over"): (ONCE, 1.0), Pair("eu", "d", "over"): (FINAL, 13.4)}
    captures = [
        LastCapture(pair, name, Verdict.ACTIVITY, NOW, NOW - days * DAY, 1) for pair, (name, days) in sends.items()
    ]
    await eu.ledger.intake.enqueue([Enqueued(each.pair, each.since) for each in captures])
    for workspace in (eu, Workspace(eu.ledger, eu.clock, "us")):
        await workspace.read()
    async with await Ledger.open(tmp_path / "new.db", clock=eu.clock) as new:
        for restored in (5, 0):
            assert await new.adopt("lost", captures, {"eu": PLAN}) == restored
        assert query(new.path, PLANNED) == query(eu.ledger.path, PLANNED)
    async with await Ledger.open(tmp_path / "new.db", clock=eu.clock) as new:
        assert new.ledger_id == "lost"


@pytest.mark.parametrize("schema", [1, 2, 3])
async def test_a_ledger_of_an_earlier_schema_is_upgraded_where_it_lies(tmp_path, schema):
    """Its books, its sealed parts and what is due are as they were, and a second opening finds nothing to do."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "ledgers" / f"schema-{schema}.sql").read_text())
    for _ in range(2):
        async with await Ledger.open(path, clock=Clock()) as ledger:
            told = await ledger.reports.get_books()
            assert (told.accepted, told.pending, told.rejected) == (4, 2, {"status_400": 1})
            (unstored,) = await ledger.batches.recover()
            (part,) = await ledger.batches.list_sealed_parts(unstored.lease.batch_id)
            assert part.data == b"rows"
    async with await Ledger.open(tmp_path / "new.db", clock=Clock()):
        pass
    for what in (INDEXES, COLUMNS):
        assert query(path, what) == query(tmp_path / "new.db", what)


INDEXES = "SELECT name FROM sqlite_master ORDER BY 1"
COLUMNS = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY 1, 2"


@pytest.mark.parametrize("schema", [2, 3])
async def test_paused_pairs_of_an_earlier_version_are_read_again(tmp_path, schema):
    """Both pending pairs were paused: one is overdue by now, and one is read at the age that its plan names."""
    path, clock = tmp_path / "ledger.db", Clock()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "ledgers" / f"schema-{schema}.sql").read_text())
    assert query(path, "SELECT count(*) FROM pair WHERE state = 'paused'") == [(2,)]
    async with await Ledger.open(path, clock=clock) as ledger:
        ledger.clock.observe(NOW, departed=NOW, received=NOW)
        eu = Workspace(ledger, clock)
        assert await eu.read() == [("s0", "d0")]
        assert await eu.live(1.1) == [("s1", "d2"), ("s0", "d1")]


async def test_a_place_that_lost_its_ledger_and_its_mark_is_rebuilt(tmp_path):
    """Who removed the folder .harvester/ gets the plan back from the parts, and the dataset is marked again."""
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
            assert await rebuild(new, sink, tmp_path / "out", {}, temp_directory=tmp_path) == restored
        known = await new.reports.find_dataset(sink.place)
        assert await sink.attach(new.ledger_id, known=known) == known == await sink.attach(own)
