"""The ledger: whatever happens in whatever order, its books balance and what was sealed stays."""

import asyncio
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from harvester.errors import LedgerError
from harvester.ledger import Ledger, batches, books, intake, leases
from harvester.ledger.schema import metadata
from harvester.ledger.sqlite import connect
from harvester.model import Batch, Captured, Deferred, Enqueued, Pair, Part, Rejected, Returned, Settlement, Verdict

NOW = 1_767_225_600.0
OUTCOMES = {
    "captured": Captured(Verdict.ACTIVITY, NOW, b"", 1),
    "rejected": Rejected("status_400", "no"),
    "deferred": Deferred("timeout"),
    "returned": Returned(),
}
OWNERS = st.sampled_from(["a", "b"])


def pair(number: int) -> Pair:
    """One of a few pairs."""
    return Pair("w", "c", f"s{number}")


class Clock:
    """A wall clock that tests move."""

    now = NOW

    def wall(self) -> float:
        """Epoch seconds."""
        return self.now

    def monotonic(self) -> float:
        """The same, for nobody here compares the two."""
        return self.now


DATASETS = ("rows", "raw")


class LedgerMachine(RuleBasedStateMachine):
    """Two owners do to one ledger whatever owners do, in any order; a dictionary knows how it must stand."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        """Begin with an empty ledger."""
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = connect(Path(self.folder.name) / "ledger.db")
        with self.engine.begin() as connection:
            metadata.create_all(connection)
        self.now = NOW
        self.number = 0
        self.state: dict[Pair, str] = {}
        self.open: dict[str, tuple[Batch, str, float]] = {}
        self.sealed: dict[str, tuple[str, float]] = {}

    def teardown(self) -> None:
        """Let go of the file."""
        self.engine.dispose()
        self.folder.cleanup()

    def do(self, verb, *given, **named):
        """One transaction."""
        with self.engine.begin() as connection:
            return verb(connection, *given, **named)

    @rule(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=6))
    def enqueue(self, numbers):
        """The same pair any number of times is one pair."""
        count = self.do(intake.enqueue, [Enqueued(pair(number)) for number in numbers], now=self.now)
        new = {pair(number) for number in numbers} - set(self.state)
        assert (count.new, count.known) == (len(new), len(numbers) - len(new))
        self.state |= dict.fromkeys(new, "pending")

    @rule(target=batches, owner=OWNERS, limit=st.integers(1, 5))
    def claim(self, owner, limit):
        """A claim gives only pairs that are pending and that nobody holds."""
        self.number += 1
        batch = self.do(
            batches.claim, "w", batch_id=f"b{self.number:04d}", token=f"t{self.number}", owner=owner, limit=limit,
            now=self.now, lease_until=self.now + 120,
        )  # fmt: skip
        if batch is None:
            return multiple()
        held = {reading.pair for opened, _, _ in self.open.values() for reading in opened.readings}
        claimed = [reading.pair for reading in batch.readings]
        assert len(claimed) == len(set(claimed)) <= limit
        assert not held & set(claimed)
        assert all(self.state[each] == "pending" for each in claimed)
        self.open[batch.id] = (batch, owner, self.now + 120)
        return batch

    @rule(batch=consumes(batches), kinds=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=5, max_size=5))
    def seal(self, batch, kinds):
        """Who still holds a batch may seal it; a zombie's seal is refused and changes nothing."""
        ended = list(zip(batch.readings, kinds, strict=False))
        settlements = [Settlement(reading, OUTCOMES[kind]) for reading, kind in ended]
        captured = any(kind == "captured" for _, kind in ended)
        parts = [Part(each, f"{batch.id}.ndjson", "digest", 4, 1, b"rows") for each in DATASETS if captured]
        delays = {reading.pair_id: 30.0 for reading in batch.readings}
        sealed = self.do(
            batches.seal, batch, settlements, parts, destination="here", now=self.now, deferral_delays=delays
        )  # fmt: skip
        assert sealed == (batch.id in self.open)
        if sealed:
            _, owner, lease_until = self.open.pop(batch.id)
            for reading, kind in ended:
                self.state[reading.pair] = kind if kind in ("captured", "rejected") else "pending"
            if captured:
                self.sealed[batch.id] = (owner, lease_until)

    @rule(owner=OWNERS, dead=st.booleans())
    def recover(self, owner, dead):
        """What a dead or lapsed owner held goes back; what it had sealed is given to be created, bytes and all."""
        other = "b" if owner == "a" else "a"
        unstored = self.do(
            leases.recover, dead_owners=[other] if dead else [], owner=owner, now=self.now, lease_until=self.now + 120
        )

        def lapsed(whose: str, until: float) -> bool:
            return whose != owner and (dead or until < self.now)

        self.open = {name: held for name, held in self.open.items() if not lapsed(held[1], held[2])}
        for name, (whose, until) in self.sealed.items():
            if lapsed(whose, until):
                self.sealed[name] = (owner, self.now + 120)
        assert [each.batch_id for each in unstored] == sorted(
            n for n, (whose, _) in self.sealed.items() if whose == owner
        )
        for each in unstored:
            held = self.do(batches.sealed_parts, each.batch_id)
            assert each.size_bytes >= sum(part.size_bytes for part in held) > 0
            assert all(part.data == b"rows" for part in held)

    @rule()
    def store(self):
        """Storing drops the bytes, one dataset's after the other's; doing it again changes nothing."""
        for name in list(self.sealed)[:1]:
            for dataset in DATASETS:
                left = {part.dataset for part in self.do(batches.sealed_parts, name)}
                for _ in range(2):
                    self.do(batches.stored, name, dataset=dataset, now=self.now)
                assert {part.dataset for part in self.do(batches.sealed_parts, name)} == left - {dataset}
            del self.sealed[name]

    @rule()
    def requeue(self):
        """Rejected pairs get another chance, all of them and no others."""
        rejected = [each for each, state in self.state.items() if state == "rejected"]
        assert self.do(intake.requeue, outcome="rejected", now=self.now) == len(rejected)
        self.state |= dict.fromkeys(rejected, "pending")

    @rule(seconds=st.sampled_from([1.0, 31.0, 121.0]))
    def pass_time(self, seconds):
        """Leases run out and deferred readings fall due."""
        self.now += seconds

    @invariant()
    def the_books_balance(self):
        """Accepted = captured + rejected + expired + pending, and each is what was done."""
        told = self.do(books.books)
        states = Counter(self.state.values())
        assert told.balanced
        assert told.accepted == len(self.state)
        assert sum(told.captured.values()) == states["captured"]
        assert sum(told.rejected.values()) == states["rejected"]
        assert told.pending == states["pending"]


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


async def test_sixteen_racers_claim_each_pair_once(tmp_path):
    """As many processes as like may work on one ledger."""
    path = tmp_path / "ledger.db"
    async with await Ledger.open(path, clock=Clock()) as ledger:
        await ledger.do(intake.enqueue, [Enqueued(pair(number)) for number in range(400)], now=NOW)
    ledgers = [await Ledger.open(path, clock=Clock()) for _ in range(16)]

    async def claimed(ledger: Ledger) -> list[Pair]:
        found = []
        while (batch := await ledger.claim("w", limit=7)) is not None:
            found += [reading.pair for reading in batch.readings]
        return found

    found = [each for part in await asyncio.gather(*map(claimed, ledgers)) for each in part]
    for ledger in ledgers:
        await ledger.close()
    assert Counter(found) == Counter(pair(number) for number in range(400))


async def test_the_nearest_deadline_is_claimed_first(tmp_path):
    """A pair that expires tonight does not wait behind ten thousand that have a week."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=Clock()) as ledger:
        ages = [1, 13, 5, 9, 12]
        arrivals = [Enqueued(pair(days), NOW - days * 86_400) for days in ages]
        await ledger.do(intake.enqueue, arrivals, now=NOW)
        batch = await ledger.claim("w", limit=3)
        urgent = await ledger.claim("w", limit=3, urgent_only=True)
    assert [reading.pair for reading in batch.readings] == [pair(13), pair(12), pair(9)]
    assert urgent is None


async def test_a_later_send_moves_the_deadline_and_an_earlier_one_does_not(tmp_path):
    """A send id that is used again gets its whole time."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=Clock()) as ledger:
        for sent_at in (NOW - 86_400, NOW - 3600, NOW - 7200):
            await ledger.do(intake.enqueue, [Enqueued(pair(1), sent_at)], now=NOW)
        batch = await ledger.claim("w", limit=1)
    assert batch.readings[0].deadline == NOW - 3600 + 14 * 86_400


async def test_a_ledger_that_cannot_be_one_is_refused_with_a_sentence(tmp_path):
    """Another's database, a text, a newer schema, a damaged page: an error that says so, never an empty ledger."""
    other, text, newer, damaged = (tmp_path / name for name in ("other.db", "text.db", "newer.db", "damaged.db"))
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    text.write_text("no database " * 1000)
    for path in (newer, damaged):
        async with await Ledger.open(path, clock=Clock()) as ledger:
            await ledger.do(intake.enqueue, [Enqueued(pair(number)) for number in range(2000)], now=NOW)
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE about SET schema_version = 99")
    data = bytearray(damaged.read_bytes())
    data[4096:40960] = b"\xa5" * 36864
    damaged.write_bytes(data)
    for path in (other, text, newer, damaged):
        with pytest.raises(LedgerError):
            async with await Ledger.open(path, clock=Clock()) as ledger:
                await ledger.do(books.books)


def test_what_does_not_fit_in_memory_goes_beside_the_ledger(tmp_path, monkeypatch):
    """In a container with a read-only root there is no other place."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "it's here"
    with connect(folder / "ledger.db").connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE wide AS SELECT randomblob(20000000) AS bytes")
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        assert [name for name in opened if name.startswith(f"{folder}/etilqs_")]
