"""The ledger under any order of events: a model in memory predicts the state of every pair, and the books balance."""

import asyncio
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from harvester.ledger import Lease, Ledger
from harvester.ledger.schema import NEVER
from harvester.model import (
    DAY_SECONDS,
    GRACE_SECONDS,
    Batch,
    Captured,
    Deferred,
    Outcome,
    Pair,
    Part,
    Reading,
    Rejected,
    Returned,
    SentPair,
    Settlement,
    Verdict,
)
from harvester.schedule import FINAL, ONCE, SINGLE_READING_PLAN, ReadingPlan, deferral_seconds

NOW = 1_767_225_600.0
AGES = (1.0, 3.0, 8.0, 13.0)
PLANS = {"once": SINGLE_READING_PLAN, "eu": ReadingPlan.of("eu", AGES)}
OUTCOMES: dict[str, Outcome] = {
    "captured": Captured(Verdict.ACTIVITY, NOW, b"", 1),
    "rejected": Rejected("status_400", "no"),
    "deferred": Deferred("timeout"),
    "returned": Returned(),
}
DATASETS = ("rows", "raw")
OWNERS = st.sampled_from(["a", "b"])
WORKSPACES = st.sampled_from(sorted(PLANS))
PASSING = st.sampled_from([31.0, 121.0, DAY_SECONDS, 5 * DAY_SECONDS, 15.5 * DAY_SECONDS])
NUMBERS = st.lists(st.integers(0, 2), min_size=1, max_size=3)
SENT_DAYS_AGO = st.sampled_from([None, -0.5, 0.0, 0.4, 2.0, 6.0, 13.2, 14.5, 20.0])


class NoJitter(random.Random):
    """Jitter that always uses the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper bound."""
        return b


class Clock:
    """A machine's clock that the test moves."""

    now = NOW

    def wall(self) -> float:
        """Return epoch seconds."""
        return self.now

    def monotonic(self) -> float:
        """Return the same; no test compares the two."""
        return self.now


@dataclass
class ExpectedPair:
    """The state that one pair must have."""

    sent_at: float | None
    first_seen_at: float
    reading: str
    due_at: float
    expires_at: float
    state: str = "open"
    round: int = 0
    captures: int = 0
    deferrals: int = 0
    ending_at: float | None = None
    yields: bool = False
    ended: Counter = field(default_factory=Counter)

    @property
    def since(self) -> float:
        """The start of its time."""
        return self.first_seen_at if self.sent_at is None else self.sent_at

    def enqueue_again(self, sent_at: float | None, plan: ReadingPlan, now: float) -> None:
        """Apply another event of the same pair."""
        expires_at, first = plan.expires_at(now if sent_at is None else sent_at), plan.first(sent_at, now)
        settled = self.state not in ("open", "leased")
        reopened = settled and sent_at is None and self.expires_at < now
        expires_at = self.expires_at if sent_at is None and not reopened else expires_at
        planned = self.reading == ONCE != first.name and expires_at > now
        later = sent_at is not None and sent_at > self.since
        if later or reopened or planned:
            self.round, self.captures = self.round + 1, 0
            self.first_seen_at = now if later or reopened else self.first_seen_at
        elif settled or self.sent_at is not None or sent_at is None:
            return
        self.sent_at = None if reopened else self.sent_at if sent_at is None else sent_at
        self.state = "open" if settled else self.state
        self.reading, self.due_at, self.expires_at, self.deferrals = first.name, first.due_at, expires_at, 0
        self.ending_at, self.yields = None, False

    def current_reading(self, plan: ReadingPlan, now: float) -> str:
        """Return the name of the reading that is current now."""
        due = [name for name, age in plan.readings if self.since + age <= now]
        return due[-1] if due and self.reading != ONCE else self.reading

    def apply_outcome(self, kind: str, reading: Reading, plan: ReadingPlan, now: float, claimed_at: float) -> None:
        """Apply the outcome of a reading."""
        self.state = "open"
        self.ending_at = None
        if kind in ("captured", "rejected"):
            self.ended[kind] += 1
            self.deferrals, self.yields = 0, False
        if reading.round != self.round:
            self.deferrals = 0
        elif kind == "deferred":
            self.due_at, self.deferrals = now + deferral_seconds(self.deferrals, NoJitter()), self.deferrals + 1
            self.reading, self.ending_at = reading.name, reading.ending_at
        elif kind == "rejected":
            self.state = kind
        elif kind == "captured":
            self.captures += 1
            following = plan.after(reading.name, reading.since, claimed_at)
            if following is None:
                self.state = kind
            else:
                self.reading, self.due_at = following.name, following.due_at
                self.yields = following.name != FINAL


class LedgerMachine(RuleBasedStateMachine):
    """Two owners and the user change one ledger in any order, through weeks."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        """Start without pairs."""
        super().__init__()
        self.clock = Clock()
        self.expected: dict[Pair, ExpectedPair] = {}
        self.open: dict[str, tuple[Batch, str, float]] = {}
        self.sealed: dict[str, tuple[str, float]] = {}
        self.stored: set[str] = set()
        self.conflicts: set[str] = set()
        self.held: dict[str, dict[str, Lease]] = {"a": {}, "b": {}}
        """The leases that each owner believes it has, including those that another owner recovered."""

    @property
    def now(self) -> float:
        """The time by every clock."""
        return self.clock.now

    @now.setter
    def now(self, now: float) -> None:
        self.clock.now = now

    @initialize(days_ago=st.tuples(SENT_DAYS_AGO, SENT_DAYS_AGO))
    def begin(self, days_ago):
        """Give one workspace a plan and the other single readings, and enqueue sends in each."""
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.owners = {name: self.open_ledger() for name in ("a", "b")}
        self.ledger = self.owners["a"]
        self.run(self.ledger.intake.set_plan("eu", PLANS["eu"]))
        for workspace in PLANS:
            for number, each in enumerate(days_ago):
                self.enqueue(workspace=workspace, numbers=[number], days_ago=each)

    def teardown(self) -> None:
        """Close and delete the ledger."""
        for ledger in self.owners.values():
            self.run(ledger.close())
        self.runner.close()
        self.folder.cleanup()

    def open_ledger(self) -> Ledger:
        """Open the ledger as an owner whose time is confirmed."""
        path = Path(self.folder.name) / "ledger.db"
        ledger = self.run(Ledger.open(path, clock=self.clock, jitter=NoJitter()))
        ledger.clock.observe(self.now, departed=self.now, received=self.now)
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

    def list_due(self, workspace: str, *, confirmed: bool) -> dict[Pair, ExpectedPair]:
        """List the pairs that a claim may return.

        If the time is ``confirmed``, other pairs past their deadline expire.
        """
        due, plan = {}, PLANS[workspace]
        for pair, each in self.expected.items():
            over = each.expires_at <= self.now
            tried = each.captures or each.deferrals or each.first_seen_at >= each.expires_at
            is_due = each.state == "open" and each.due_at <= self.now
            if pair.workspace != workspace:
                continue
            if over and is_due and tried:
                if confirmed:
                    each.state = "expired"
                    each.ended["expired"] += 1
            elif is_due:
                if confirmed:
                    each.yields = each.yields and each.since + plan.readings[-1][1] > self.now
                due[pair] = each
        return due

    @rule(target=batches, workspace=WORKSPACES, owner=OWNERS, limit=st.integers(1, 5), confirmed=st.booleans())
    def claim(self, workspace, owner, limit, confirmed):
        """A claim returns due pairs that nobody holds, with their current readings, nearest deadline first.

        Readings that yield are last. A pair that was enqueued in time is requested before it expires, and nothing
        expires while the time is unconfirmed.
        """
        due, plan = self.list_due(workspace, confirmed=confirmed), PLANS[workspace]
        self.owners[owner].clock.confirmed = confirmed
        batch = self.run(self.owners[owner].batches.claim(workspace, limit=limit))
        self.owners[owner].clock.confirmed = True
        claimed = [] if batch is None else [reading.pair for reading in batch.readings]
        assert len(claimed) == len(set(claimed)) <= limit
        assert set(claimed) <= set(due)
        assert bool(claimed) == bool(due)
        if confirmed:
            assert len(claimed) == min(limit, len(due))
            first = sorted((each.yields, each.expires_at) for each in due.values())[:limit]
            assert sorted((due[pair].yields, due[pair].expires_at) for pair in claimed) == first
        for reading in batch.readings if batch else ():
            pair = due[reading.pair]
            name = pair.current_reading(plan, self.now)
            ending_at = pair.ending_at
            if ending_at is None or name != pair.reading or ending_at <= self.now - DAY_SECONDS:
                ending_at = self.now
            pair.state = "leased"
            if confirmed:
                pair.reading, pair.ending_at = name, ending_at
            assert (reading.name, reading.since, reading.round) == (name, pair.since, pair.round)
            assert (reading.ending_at, reading.deadline) == (ending_at, pair.expires_at - GRACE_SECONDS)
        if batch is None:
            return multiple()
        self.open[batch.id] = (batch, owner, self.now + 120)
        self.held[owner][batch.id] = Lease(batch.id, batch.token)
        return batch

    @rule(workspace=WORKSPACES, owner=OWNERS, days=st.sampled_from([-20.0, -3.0, 3.0, 20.0, 90.0]))
    def claim_with_a_wrong_clock(self, workspace, owner, days):
        """Pairs that an unconfirmed clock leased are returned unchanged after the first response shows the time."""
        wrong = self.owners[owner]
        right, self.now, wrong.clock.confirmed = self.now, self.now + days * DAY_SECONDS, False
        batch = self.run(wrong.batches.claim(workspace, limit=9))
        self.now, wrong.clock.confirmed = right, True
        if batch is not None:
            returned = [Settlement(reading, Returned()) for reading in batch.readings]
            assert self.run(wrong.batches.seal(batch, returned, [], destination="here"))
            for reading in batch.readings:
                assert self.expected[reading.pair].state == "open"
                self.expected[reading.pair].ending_at = None

    @rule(workspace=WORKSPACES)
    def correct(self, workspace):
        """If no clock was wrong, nothing is corrected."""
        assert self.run(self.ledger.upkeep.correct_times(workspace)) == 0

    @rule(batch=consumes(batches), kinds=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=5, max_size=5), by=OWNERS)
    def seal(self, batch, kinds, by="a"):
        """The holder of an open batch's token may seal it; any other seal is refused and changes nothing."""
        ended = list(zip(batch.readings, kinds, strict=False))
        settlements = [Settlement(reading, OUTCOMES[kind]) for reading, kind in ended]
        captured = any(kind == "captured" for _, kind in ended)
        parts = [Part(each, f"{batch.id}.ndjson", "digest", 4, 1, b"rows") for each in DATASETS if captured]
        sealed = self.run(self.owners[by].batches.seal(batch, settlements, parts, destination="here"))
        assert sealed == (batch.id in self.open)
        if sealed:
            _, owner, lease_until = self.open.pop(batch.id)
            for reading, kind in ended:
                self.expected[reading.pair].apply_outcome(
                    kind, reading, PLANS[batch.workspace], self.now, batch.claimed_at
                )
            if captured:
                self.sealed[batch.id] = (owner, lease_until)

    @rule(
        workspace=WORKSPACES,
        times=st.lists(st.tuples(st.sampled_from(sorted(OUTCOMES)), PASSING), min_size=1, max_size=5),
    )
    def harvest(self, workspace, times):
        """All due readings end with the same outcome, several times while time passes."""
        for kind, seconds in times:
            batch = self.claim(workspace=workspace, owner="a", limit=5, confirmed=True)
            if isinstance(batch, Batch):
                self.seal(batch=batch, kinds=[kind] * 5)
            self.the_books_balance()
            self.now += seconds

    @rule(owner=OWNERS, most=st.integers(1, 9))
    def renew(self, owner, most):
        """A lease is renewed by its token while the batch is open or unstored; a recovered lease is not renewed."""
        leases = [Lease("b-never", "t"), *self.held[owner].values()][-most:]
        kept = self.run(self.owners[owner].batches.renew(leases))
        names = {each.batch_id for each in leases}
        own = {name for name, (_, whose, _) in self.open.items() if whose == owner and name in names}
        waiting = {name for name, (whose, _) in self.sealed.items() if whose == owner and name in names}
        assert kept == own | waiting
        self.open |= {name: (self.open[name][0], owner, self.now + 120) for name in own}
        self.sealed |= dict.fromkeys(waiting, (owner, self.now + 120))

    @rule(owner=OWNERS, dead=st.booleans())
    def recover(self, owner, dead):
        """Open batches of a dead or expired owner are released, and its sealed batches returned with their bytes."""
        other = "b" if owner == "a" else "a"
        if dead:
            self.run(self.owners[other].close())
        unstored = self.run(self.owners[owner].batches.recover())
        if dead:
            self.owners[other] = self.open_ledger()
            self.ledger = self.owners[owner]

        def lapsed(whose: str, until: float) -> bool:
            return whose != owner and (dead or until < self.now)

        for name, (batch, whose, until) in list(self.open.items()):
            if lapsed(whose, until):
                del self.open[name]
                for reading in batch.readings:
                    self.expected[reading.pair].state = "open"
        for name, (whose, until) in self.sealed.items():
            if lapsed(whose, until):
                self.sealed[name] = (owner, self.now + 120)
        ours = sorted(name for name, (whose, _) in self.sealed.items() if whose == owner)
        assert [each.lease.batch_id for each in unstored] == ours
        self.held[owner] |= {each.lease.batch_id: each.lease for each in unstored}
        for each in unstored:
            parts = self.run(self.owners[owner].batches.list_sealed_parts(each.lease.batch_id))
            assert each.size_bytes >= sum(part.size_bytes for part in parts) > 0
            assert all(part.data == b"rows" for part in parts)

    @rule(by=OWNERS)
    def store(self, by):
        """Each dataset's part drops its bytes; a second mark changes nothing."""
        batches = self.owners[by].batches
        for name in list(self.sealed)[:1]:
            for dataset in DATASETS:
                left = {part.dataset for part in self.run(batches.list_sealed_parts(name))}
                assert [self.run(batches.mark_stored(name, dataset=dataset)) for _ in range(2)] == [True, False]
                assert {part.dataset for part in self.run(batches.list_sealed_parts(name))} == left - {dataset}
            del self.sealed[name]
            self.stored.add(name)

    @rule(by=OWNERS)
    def conflict(self, by):
        """A part whose name exists sets its batch aside with its bytes, and no owner recovers that batch."""
        batches = self.owners[by].batches
        for name in list(self.sealed)[:1]:
            assert [self.run(batches.mark_conflict(name)) for _ in range(2)] == [True, False]
            assert len(self.run(batches.list_sealed_parts(name))) == len(DATASETS)
            del self.sealed[name]
            self.conflicts.add(name)

    @rule(by=OWNERS)
    def late_marks(self, by):
        """Late marks change nothing: open, stored and conflicting batches stay so."""
        batches = self.owners[by].batches
        for name in ["b-never", *list(self.open)[:1], *list(self.stored)[:1], *list(self.conflicts)[:1]]:
            assert not self.run(batches.mark_stored(name, dataset=DATASETS[0]))
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
        states = Counter(each.state for each in self.expected.values())
        pending = states["open"] + states["leased"]
        assert totals.balanced
        assert (totals.accepted, totals.pending, totals.expired) == (len(self.expected), pending, states["expired"])
        assert sum(totals.captured.values()) == states["captured"]
        assert sum(totals.rejected.values()) == states["rejected"]
        ended = sum((each.ended for each in self.expected.values()), Counter())
        assert readings == {**ended, "pending": pending}
        counts = self.run(reports.count_unstored_batches())
        kept = {"open": len(self.open), "sealed": len(self.sealed), "conflict": len(self.conflicts)}
        assert counts == {state: count for state, count in kept.items() if count}
        for workspace in PLANS:
            to_come = [
                k.due_at for pair, k in self.expected.items() if pair.workspace == workspace and k.state == "open"
            ]
            nearest = min(to_come, default=None)
            assert next_due_at[workspace] == nearest or (next_due_at[workspace] == 0 and nearest <= self.now)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
