"""The ledger under any order of events: a model in memory predicts the state of every pair, and the books balance."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.ledger.schema import NEVER
from harvester.model import (
    DAY_SECONDS,
    GRACE_SECONDS,
    Batch,
    Pair,
    Part,
    Reading,
    ReadingOutcome,
    Released,
    SentPair,
)
from harvester.schedule import ONCE
from harvester.simulator.virtual_time import VirtualLoop
from tests.conformance.ledger_model import NOW, OUTCOMES, PLANS, ExpectedPair, NoJitter, Owner
from tests.support.clocks import SettableClock
from tests.support.ledger_file import pass_time

DATASETS = ("rows", "raw")
OWNERS = st.sampled_from(["a", "b"])
WORKSPACES = st.sampled_from(sorted(PLANS))
PASSING = st.sampled_from([31.0, 121.0, DAY_SECONDS, 5 * DAY_SECONDS, 15.5 * DAY_SECONDS])
NUMBERS = st.lists(st.integers(0, 2), min_size=1, max_size=3)
SENT_DAYS_AGO = st.sampled_from([None, -0.5, 0.0, 0.4, 2.0, 6.0, 13.2, 14.5, 20.0])


class LedgerMachine(RuleBasedStateMachine):
    """Two owners and the user change one ledger in any order, through weeks."""

    claimed = Bundle("claimed")
    """Readings as a claim returned them, which may have been sealed, released, recovered or claimed again since."""

    def __init__(self, create_location) -> None:
        """Start without pairs, in a new ledger."""
        super().__init__()
        self.create_location = create_location
        self.clock = SettableClock(NOW)
        self.expected: dict[Pair, ExpectedPair] = {}
        self.claims: list[Reading] = []
        """All readings that were claimed."""
        self.leased: dict[Pair, int] = {}
        """The epoch that each leased reading belongs to."""
        self.sealed: dict[str, int] = {}
        """The epoch that each sealed batch belongs to."""
        self.places: dict[str, str] = {}
        """The place that each batch is sealed for."""
        self.stored: set[str] = set()
        self.conflicts: set[str] = set()
        self.empty: set[str] = set()
        """Sealed batches without parts."""

    @property
    def now(self) -> float:
        """The time by every clock."""
        return self.clock.now

    @now.setter
    def now(self, now: float) -> None:
        pass_time(self.location, self.clock, now - self.now)

    @initialize(days_ago=st.tuples(SENT_DAYS_AGO, SENT_DAYS_AGO))
    def begin(self, days_ago):
        """Give one workspace a plan and the other single readings, and enqueue sends in each."""
        self.resources = ExitStack()
        self.location = self.resources.enter_context(self.create_location())
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)  # it runs transactions without other threads
        self.owners = {name: Owner(self.open_ledger()) for name in ("a", "b")}
        self.ledger = self.owners["a"].ledger
        self.run(self.ledger.intake.set_plan("eu", PLANS["eu"]))
        for workspace in PLANS:
            for number, each in enumerate(days_ago):
                self.enqueue(workspace=workspace, numbers=[number], days_ago=each)

    def teardown(self) -> None:
        """Compare the counts with a full count, which shows any step that miscounted; delete the ledger."""
        assert self.run(self.ledger.reports.find_wrong_counts()) == []
        for owner in self.owners.values():
            self.run(owner.ledger.close())
        self.runner.close()
        self.resources.close()

    def open_ledger(self) -> Ledger:
        """Open the ledger as an owner whose time is confirmed."""
        ledger = self.run(Ledger.open(self.location, clock=self.clock, jitter=NoJitter()))
        ledger.clock.observe(self.now, sent=self.now, received=self.now)
        return ledger

    def run(self, method):
        """Await a method of the ledger."""
        return self.runner.run(method)

    def list_expected(self, state: str, named: list[Pair] | None = None) -> list[ExpectedPair]:
        """List the pairs in a state, of all pairs or of those named."""
        return [
            each for pair, each in self.expected.items() if each.state == state and (named is None or pair in named)
        ]

    @rule(workspace=WORKSPACES, numbers=NUMBERS, days_ago=SENT_DAYS_AGO)
    def enqueue(self, workspace, numbers, days_ago):
        """The same pair any number of times is one pair; a later send is a new round of it."""
        sent_at, plan = None if days_ago is None else self.now - days_ago * DAY_SECONDS, PLANS[workspace]
        arrivals = [SentPair(Pair(workspace, "c", f"s{number}"), sent_at) for number in numbers]
        count = self.run(self.ledger.intake.enqueue(arrivals))
        named = {each.pair for each in arrivals}
        new = named - set(self.expected)
        assert (count.new, count.known) == (len(new), len(numbers) - len(new))
        for pair in named - new:
            self.expected[pair].enqueue_again(sent_at, plan, self.now)
        for pair in new:
            first = plan.first(sent_at, self.now)
            expires_at = plan.expires_at(self.now if sent_at is None else sent_at)
            self.expected[pair] = ExpectedPair(sent_at, self.now, first.name, first.due_at, expires_at)

    def enter(self, name: str) -> Owner:
        """Return an owner, which registers at its first claim, recovery or seal."""
        owner = self.owners[name]
        if owner.epoch is None:
            self.register(name)
        return owner

    def register(self, name: str) -> None:
        """Begin a new epoch of an owner."""
        owner = self.owners[name]
        self.run(owner.ledger.batches.register())
        assert owner.ledger.batches.epoch not in {each.epoch for each in self.owners.values()}
        owner.epoch, owner.over, owner.alive_until = owner.ledger.batches.epoch, False, self.now + LEASE_SECONDS

    def list_living(self) -> set[int | None]:
        """List the epochs that are not over."""
        return {each.epoch for each in self.owners.values() if not each.over}

    @rule(workspace=WORKSPACES)
    def keep_up(self, workspace):
        """Due pairs whose time is over expire, and readings that are final by now get their full priority."""
        upkeep, plan = self.ledger.upkeep, PLANS[workspace]
        self.run(upkeep.schedule_due([workspace]))
        self.run(upkeep.expire([workspace]))
        for pair, each in self.expected.items():
            if pair.workspace == workspace:
                if each.is_due(self.now) and plan.readings:
                    each.yields = each.yields and each.since + plan.readings[-1][1] > self.now
                each.expire(self.now)

    def list_due(self, workspaces) -> dict[Pair, ExpectedPair]:
        """List the pairs that a claim may return."""
        return {
            pair: each
            for pair, each in self.expected.items()
            if pair.workspace in workspaces and each.is_due(self.now) and each.is_in_time(self.now)
        }

    @rule(
        target=claimed,
        limits=st.dictionaries(WORKSPACES, st.integers(1, 5), min_size=1),
        name=OWNERS,
        confirmed=st.booleans(),
    )
    def claim(self, limits, name, confirmed):
        """A claim returns due pairs that nobody holds, of each workspace the nearest deadlines, in this order.

        Readings that yield are last, and a pair that was enqueued in time is requested even after that.
        """
        owner, due = self.enter(name), self.list_due(limits)
        owner.ledger.clock.confirmed = confirmed
        readings = self.run(owner.ledger.batches.claim(limits))
        owner.ledger.clock.confirmed = True
        claimed = [reading.pair for reading in readings]
        assert len(claimed) == len(set(claimed))
        for workspace, limit in limits.items():
            mine = [due[pair] for pair in claimed if pair.workspace == workspace]
            all_due = [each for pair, each in due.items() if pair.workspace == workspace]
            assert bool(mine) == bool(all_due)
            if confirmed:
                in_order = sorted((each.yields, each.expires_at) for each in all_due)
                assert [(each.yields, each.expires_at) for each in mine] == in_order[:limit]
            else:
                assert len(mine) <= limit
        for reading in readings:
            self.lease(reading, owner, due[reading.pair], confirmed=confirmed)
        return multiple(*readings)

    def lease(self, reading: Reading, owner: Owner, pair: ExpectedPair, *, confirmed: bool) -> None:
        """Check a reading as it was claimed, and lease it in the model."""
        name, ending_at = pair.current_reading(PLANS[reading.pair.workspace], self.now), pair.ending_at
        if ending_at is None or name != pair.reading or ending_at <= self.now - DAY_SECONDS:
            ending_at = self.now
        pair.state = "leased"
        self.leased[reading.pair] = owner.epoch
        self.claims.append(reading)
        if confirmed:
            pair.reading, pair.ending_at = name, ending_at
        assert (reading.name, reading.since, reading.round) == (name, pair.since, pair.round)
        assert (reading.ending_at, reading.deadline) == (ending_at, pair.expires_at - GRACE_SECONDS)
        assert reading.epoch == owner.epoch

    @rule(workspace=WORKSPACES, name=OWNERS, days=st.sampled_from([-20.0, -3.0, 3.0, 20.0, 90.0]))
    def claim_with_a_wrong_clock(self, workspace, name, days):
        """Pairs that an unconfirmed clock leased are released unchanged after the first response shows the time.

        One that is read once, and was deferred for a while, is due at once.
        """
        wrong = self.enter(name).ledger
        right, self.clock.now, wrong.clock.confirmed = self.now, self.now + days * DAY_SECONDS, False
        readings = self.run(wrong.batches.claim({workspace: 9}))
        self.clock.now, wrong.clock.confirmed = right, True
        released = [ReadingOutcome(reading, Released()) for reading in readings]
        batch = Batch.open(self.now)
        assert self.run(wrong.batches.seal([(batch, released, [])]))
        self.empty.add(batch.id)
        for reading in readings:
            assert self.expected[reading.pair].state == "open"
            self.expected[reading.pair].ending_at = None
            if reading.name == ONCE:
                self.expected[reading.pair].due_at = min(self.now, self.expected[reading.pair].due_at)

    @rule(workspace=WORKSPACES)
    def correct(self, workspace):
        """If no clock was wrong, nothing is corrected."""
        assert self.run(self.ledger.upkeep.correct_times([workspace])) == {}

    def holds(self, reading: Reading) -> bool:
        """Return whether a reading is leased to the epoch that claimed it."""
        return self.leased.get(reading.pair) == reading.epoch

    def has_own_id(self, reading: Reading) -> bool:
        """Return whether no other pair has taken the id of a reading's pair, which was removed."""
        return all(each.pair == reading.pair for each in self.claims if each.pair_id == reading.pair_id)

    @rule(
        readings=st.lists(claimed, min_size=1, max_size=4, unique_by=lambda reading: reading.pair),
        kinds=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=4, max_size=4),
        by=OWNERS,
    )
    def seal(self, readings, kinds, by):
        """A seal records all of its readings or, if one is not leased to its epoch any more, none of them.

        It has a batch for each workspace, which has its own place. The same batches, and any other batch with one of
        the readings, are refused afterwards.
        """
        readings = [each for each in readings if self.has_own_id(each)]
        if not readings:
            return
        ended = [(reading, kind) for reading, kind in zip(readings, kinds, strict=False)]
        batches = self.enter(by).ledger.batches
        closed = [self.close_batch(name, [each for each in ended if each[0].pair.workspace == name]) for name in PLANS]
        closed = [each for each in closed if each[1]]
        valid = all(self.holds(reading) for reading in readings)
        assert self.run(batches.seal(closed)) == valid
        again = [(Batch.open(self.now), outcomes, parts) for _, outcomes, parts in closed]
        for each in (closed, again, [*again[:-1], closed[-1]]):
            assert not self.run(batches.seal(each))
        if not valid:
            return
        for reading, kind in ended:
            del self.leased[reading.pair]
            plan = PLANS[reading.pair.workspace]
            self.expected[reading.pair].apply_outcome(kind, reading, plan, self.now)
        for batch, _, parts in closed:
            if parts:
                self.sealed[batch.id] = self.owners[by].epoch
            else:
                self.empty.add(batch.id)

    def close_batch(self, place, ended):
        """Return a batch for a place, its outcomes, and a part for each dataset if there is a capture."""
        batch, captured = Batch.open(self.now), any(kind == "captured" for _, kind in ended)
        self.places[batch.id] = place
        parts = [Part(each, f"{batch.id}.ndjson", "digest", 4, 1, b"rows", place) for each in DATASETS if captured]
        return batch, [ReadingOutcome(reading, OUTCOMES[kind]) for reading, kind in ended], parts

    @rule(readings=st.lists(claimed, min_size=1, max_size=4, unique_by=lambda reading: reading.pair), by=OWNERS)
    def release(self, readings, by):
        """Readings that are still leased to their epoch are due again; the others stay as they are."""
        readings = [each for each in readings if self.has_own_id(each)]
        self.run(self.owners[by].ledger.batches.release(readings))
        for reading in readings:
            if self.holds(reading):
                del self.leased[reading.pair]
                self.expected[reading.pair].state, self.expected[reading.pair].ending_at = "open", None

    def list_overtaken(self) -> list[Reading]:
        """List the claimed readings whose pairs are leased to another epoch now."""
        return [
            each
            for each in self.claims
            if self.leased.get(each.pair, each.epoch) != each.epoch and self.has_own_id(each)
        ]

    @rule(target=claimed, by=OWNERS, how=st.sampled_from(["dead", "late", "again"]))
    def overtake(self, by, how):
        """After a recovery, the same or another process claims the same readings under another epoch.

        The earlier claims of them can neither be sealed, also together with a reading that could be, nor released, and
        an owner that lost its epoch learns it at its next renewal.
        """
        for name in self.owners:
            self.claim(limits=dict.fromkeys(PLANS, 1), name=name, confirmed=True)
            held = [each for each in self.claims if self.holds(each) and each.epoch == self.owners[name].epoch]
            if len(held) > 1:
                self.seal(readings=held[:1], kinds=["captured"], by=name)
        if how == "again":
            self.begin_again(name=by)
        else:
            self.now += 121 * (how == "late")
            self.recover(name=by, dead=how == "dead")
        claimed = self.claim(limits=dict.fromkeys(PLANS, 9), name=by, confirmed=True)
        batches, overtaken = self.owners[by].ledger.batches, self.list_overtaken()
        for each in overtaken:
            others = [reading for reading in self.claims if self.holds(reading) and reading.pair != each.pair][:1]
            outcomes = [ReadingOutcome(reading, OUTCOMES["captured"]) for reading in (*others, each)]
            assert not self.run(batches.seal([(Batch.open(self.now), outcomes, [])]))
        self.run(batches.release(overtaken))
        for name in self.owners:
            self.renew(name=name)
        return claimed

    @rule(
        limits=st.dictionaries(WORKSPACES, st.integers(1, 5), min_size=1),
        times=st.lists(st.tuples(st.sampled_from(sorted(OUTCOMES)), PASSING), min_size=1, max_size=5),
    )
    def harvest(self, limits, times):
        """All due readings end with the same outcome, several times while time passes."""
        for kind, seconds in times:
            for workspace in limits:
                self.keep_up(workspace=workspace)
            new = list(self.claim(limits=limits, name="a", confirmed=True).values)
            if new:
                self.seal(readings=new, kinds=[kind] * len(new), by="a")
            self.the_books_balance()
            self.now += seconds

    @rule(name=OWNERS)
    def renew(self, name):
        """One call renews all leases of an owner; it is refused once another owner has ended the epoch."""
        owner = self.owners[name]
        assert self.run(owner.ledger.batches.renew()) == (not owner.over)
        if not owner.over:
            owner.alive_until = self.now + LEASE_SECONDS

    @rule(name=OWNERS)
    def begin_again(self, name):
        """An owner that registers again holds nothing, and recovers what it held; it may claim the same again."""
        self.register(name)
        self.recover(name=name, dead=False)

    @rule(name=OWNERS, dead=st.booleans())
    def recover(self, name, dead):
        """Readings of dead and late owners are released, and their sealed batches returned with their bytes."""
        owner, other = self.enter(name), self.owners["b" if name == "a" else "a"]
        if dead:
            self.run(other.ledger.close())
        unstored = self.run(owner.ledger.batches.recover())
        if other.epoch is not None and (dead or other.alive_until < self.now):
            other.over = True
        if dead:
            other.ledger, other.epoch, other.over = self.open_ledger(), None, False
            self.ledger = owner.ledger
        living = self.list_living()
        for pair, epoch in list(self.leased.items()):
            if epoch not in living:
                del self.leased[pair]
                self.expected[pair].state = "open"
        self.sealed = {name: epoch if epoch in living else owner.epoch for name, epoch in self.sealed.items()}
        ours = sorted(name for name, epoch in self.sealed.items() if epoch == owner.epoch)
        assert [(each.batch_id, each.destination) for each in unstored] == [(name, self.places[name]) for name in ours]
        for each in unstored:
            parts = self.run(owner.ledger.batches.list_sealed_parts(each.batch_id))
            assert each.size_bytes == sum(part.size_bytes for part in parts) > 0
            assert all(part.data == b"rows" for part in parts)

    @rule(by=OWNERS)
    def store(self, by):
        """Each dataset's part drops its bytes; a second mark changes nothing."""
        batches = self.owners[by].ledger.batches
        for name in list(self.sealed)[:1]:
            for dataset in DATASETS:
                of = {"dataset": dataset, "destination": self.places[name]}
                assert not self.run(batches.mark_stored(name, dataset=dataset, destination="elsewhere"))
                left = {part.dataset for part in self.run(batches.list_sealed_parts(name))}
                assert [self.run(batches.mark_stored(name, **of)) for _ in range(2)] == [True, False]
                assert {part.dataset for part in self.run(batches.list_sealed_parts(name))} == left - {dataset}
            del self.sealed[name]
            self.stored.add(name)
        self.late_marks(by=by)

    @rule(by=OWNERS)
    def conflict(self, by):
        """A part whose name exists sets its batch aside with its bytes, and no owner recovers that batch."""
        batches = self.owners[by].ledger.batches
        for name in list(self.sealed)[:1]:
            assert [self.run(batches.mark_conflict(name)) for _ in range(2)] == [True, False]
            assert len(self.run(batches.list_sealed_parts(name))) == len(DATASETS)
            del self.sealed[name]
            self.conflicts.add(name)
        self.late_marks(by=by)

    @rule(by=OWNERS)
    def late_marks(self, by):
        """Late marks change nothing: stored, conflicting and empty batches stay so."""
        batches = self.owners[by].ledger.batches
        for name in ["b-never", *list(self.empty)[:1], *list(self.stored)[:1], *list(self.conflicts)[:1]]:
            assert not self.run(batches.mark_stored(name, dataset=DATASETS[0], destination=self.places.get(name, "eu")))
            assert not self.run(batches.mark_conflict(name))

    @rule(outcome=st.sampled_from(["rejected", "expired"]))
    def requeue(self, outcome):
        """All pairs with this outcome are due again, and no others; expired pairs never expire again."""
        requeued = self.list_expected(outcome)
        assert self.run(self.ledger.intake.requeue(outcome=outcome)) == len(requeued)
        for each in requeued:
            each.state, each.due_at, each.deferrals, each.ending_at, each.yields = "open", self.now, 0, None, False
            each.expires_at = NEVER if each.expires_at <= self.now else each.expires_at

    @rule(workspace=WORKSPACES, numbers=NUMBERS)
    def remove(self, workspace, numbers):
        """Users delete pairs, but no pair whose reading is leased."""
        named = [Pair(workspace, "c", f"s{number}") for number in set(numbers)]
        gone = [pair for pair in named if pair in self.expected and self.expected[pair].state != "leased"]
        assert self.run(self.ledger.intake.remove(named)) == len(gone)
        self.expected = {pair: each for pair, each in self.expected.items() if pair not in gone}

    @rule(seconds=PASSING)
    def pass_time(self, seconds):
        """Leases expire, readings become due, and sends expire."""
        self.now += seconds

    @invariant()
    def the_books_balance(self):
        """Counts of pairs and readings match the model, and so does the next due time."""
        reports, batches = self.ledger.reports, self.ledger.batches
        totals, readings = self.run(reports.get_books()), self.run(reports.count_readings())
        next_due_at = {workspace: self.run(batches.get_next_due_at(workspace)) for workspace in PLANS}
        due = self.run(batches.list_due([*PLANS, "unknown"]))
        states = Counter(each.state for each in self.expected.values())
        pending = states["open"] + states["leased"]
        assert totals.balanced
        assert (totals.accepted, totals.pending, totals.expired) == (len(self.expected), pending, states["expired"])
        assert sum(totals.captured.values()) == states["captured"]
        assert sum(totals.rejected.values()) == states["rejected"]
        ended = sum((each.ended for each in self.expected.values()), Counter())
        assert readings == {**ended, "pending": pending}
        counts = self.run(reports.count_unstored_batches())
        kept = {"sealed": len(self.sealed), "conflict": len(self.conflicts)}
        assert counts == {state: count for state, count in kept.items() if count}
        for workspace in PLANS:
            to_come = [
                k.due_at for pair, k in self.expected.items() if pair.workspace == workspace and k.state == "open"
            ]
            nearest = min(to_come, default=None)
            assert next_due_at[workspace] == nearest or (next_due_at[workspace] == 0 and nearest <= self.now)
            claimable = [
                each.due_at
                for pair, each in self.expected.items()
                if pair.workspace == workspace and each.state == "open" and each.is_in_time(self.now)
            ]
            soonest = min(claimable, default=None)
            assert due.get(workspace) == (0.0 if soonest is not None and soonest <= self.now else soonest)
        assert set(self.leased) == {pair for pair, each in self.expected.items() if each.state == "leased"}


@pytest.mark.parametrize(
    ("database", "max_examples"),
    [
        ("sqlite", 8),
        pytest.param("sqlite", 100, marks=pytest.mark.long),
        pytest.param("postgresql", 20, marks=pytest.mark.long),
        pytest.param("pgbouncer", 5, marks=pytest.mark.long),
    ],
)
def test_the_ledger_keeps_its_books_under_any_order_of_events(create_location, database, max_examples):
    """What the model predicts holds in each kind of database, and also through PgBouncer."""
    machine = partial(LedgerMachine, partial(create_location, database))
    examples = settings(max_examples=max_examples, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(machine, settings=examples)
