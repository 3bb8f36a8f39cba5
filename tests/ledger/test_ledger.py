"""The ledger as a file that several processes share: who is given what, and what it refuses."""

import asyncio
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.errors import LedgerError
from harvester.ledger import Lease, Ledger
from harvester.ledger.sqlite import connect
from harvester.model import DATASET, Batch, Captured, Enqueued, Pair, Part, Settlement, Verdict

NOW = 1_767_225_600.0


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


async def test_sixteen_racers_claim_each_pair_once(tmp_path):
    """As many processes as like may work on one ledger."""
    path = tmp_path / "ledger.db"
    async with await Ledger.open(path, clock=Clock()) as ledger:
        await ledger.intake.enqueue([Enqueued(pair(number)) for number in range(400)])
    ledgers = [await Ledger.open(path, clock=Clock()) for _ in range(16)]

    async def claimed(ledger: Ledger) -> list[Pair]:
        found = []
        while (batch := await ledger.batches.claim("w", limit=7)) is not None:
            found += [reading.pair for reading in batch.readings]
        return found

    found = [each for part in await asyncio.gather(*map(claimed, ledgers)) for each in part]
    for ledger in ledgers:
        await ledger.close()
    assert Counter(found) == Counter(pair(number) for number in range(400))


async def sealed(ledger: Ledger) -> Batch:
    """One pair's batch, captured and sealed with a part."""
    batch = await ledger.batches.claim("w", limit=1)
    ended = [Settlement(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in batch.readings]
    part = Part(DATASET, f"{batch.id}.ndjson", "digest", 4, 1, b"rows")
    assert await ledger.batches.seal(batch, ended, [part], destination="d")
    return batch


async def test_what_a_dead_owner_held_is_taken_up_at_once(tmp_path):
    """Nobody waits for the lease of a process that has gone; what is stored or set aside by now is given to nobody."""
    path = tmp_path / "ledger.db"
    async with await Ledger.open(path, clock=Clock()) as ours:
        await ours.intake.enqueue([Enqueued(pair(number)) for number in range(4)])
        await ours.batches.mark_stored((await sealed(ours)).id, dataset=DATASET)
        await ours.batches.mark_conflict((await sealed(ours)).id)
        async with await Ledger.open(path, clock=Clock()) as one, await Ledger.open(path, clock=Clock()) as other:
            waiting = await sealed(one)
            asked = await other.batches.claim("w", limit=1)
            assert await ours.batches.recover() == []
        assert [(each.lease.batch_id, each.size_bytes) for each in await ours.batches.recover()] == [(waiting.id, 4)]
        again = await ours.batches.claim("w", limit=1)
        assert [each.pair for each in again.readings] == [each.pair for each in asked.readings]


async def test_a_lease_that_is_not_renewed_runs_out(tmp_path):
    """A batch that its owner no longer works on goes back after two minutes; one that it works on does not."""
    path, clock = tmp_path / "ledger.db", Clock()
    async with await Ledger.open(path, clock=clock) as ours, await Ledger.open(path, clock=clock) as theirs:
        await ours.intake.enqueue([Enqueued(pair(number)) for number in range(2)])
        kept, left = [await ours.batches.claim("w", limit=1) for _ in range(2)]
        for _ in range(2):
            clock.now += 100
            assert await ours.batches.renew([Lease(kept.id, kept.token)]) == {kept.id}
        assert await theirs.batches.recover() == []
        again = await theirs.batches.claim("w", limit=2)
        assert [each.pair for each in again.readings] == [each.pair for each in left.readings]


async def test_the_nearest_deadline_is_claimed_first(tmp_path):
    """A pair that expires tonight does not wait behind ten thousand that have a week."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=Clock()) as ledger:
        ages = [1, 13, 5, 9, 12]
        arrivals = [Enqueued(pair(days), NOW - days * 86_400) for days in ages]
        await ledger.intake.enqueue(arrivals)
        batch = await ledger.batches.claim("w", limit=3)
    assert [reading.pair for reading in batch.readings] == [pair(13), pair(12), pair(9)]


@given(st.lists(st.floats(0, 1e10, exclude_min=True), min_size=1, max_size=20, unique=True))
@settings(deadline=None, max_examples=20)
def test_times_come_back_from_the_ledger_to_the_last_bit(times):
    """What a reading is asked for and when it is due rest on its times, so SQLite's JSON must not round them."""

    async def came_back() -> set[tuple[float, float]]:
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock()
            clock.now = max(times)
            async with await Ledger.open(Path(folder) / "ledger.db", clock=clock) as ledger:
                given = [Enqueued(pair(number), time) for number, time in enumerate(times)]
                await ledger.intake.enqueue(given, forced=True)
                batch = await ledger.batches.claim("w", limit=100)
        return {(each.since, each.ending_at) for each in batch.readings}

    assert asyncio.run(came_back()) == {(time, max(times)) for time in times}


async def test_a_later_send_moves_the_deadline_and_an_earlier_one_does_not(tmp_path):
    """A send id that is used again gets its whole time."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=Clock()) as ledger:
        for sent_at in (NOW - 86_400, NOW - 3600, NOW - 7200):
            await ledger.intake.enqueue([Enqueued(pair(1), sent_at)])
        batch = await ledger.batches.claim("w", limit=1)
    assert batch.readings[0].deadline == NOW - 3600 + 14 * 86_400


async def test_a_ledger_that_cannot_be_one_is_refused_with_a_sentence(tmp_path):
    """Another's database, a text, a newer schema, a damaged page: an error that says so, never an empty ledger."""
    other, text, newer, damaged = (tmp_path / name for name in ("other.db", "text.db", "newer.db", "damaged.db"))
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    text.write_text("no database " * 1000)
    for path in (newer, damaged):
        async with await Ledger.open(path, clock=Clock()) as ledger:
            await ledger.intake.enqueue([Enqueued(pair(number)) for number in range(2000)])
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE about SET schema_version = 99")
    data = bytearray(damaged.read_bytes())
    data[4096:40960] = b"\xa5" * 36864
    damaged.write_bytes(data)
    for path in (other, text, newer, damaged):
        with pytest.raises(LedgerError):
            async with await Ledger.open(path, clock=Clock()) as ledger:
                await ledger.reports.get_books()


def test_what_does_not_fit_in_memory_goes_beside_the_ledger(tmp_path, monkeypatch):
    """In a container with a read-only root there is no other place."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "it's here"
    with connect(folder / "ledger.db").connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE wide AS SELECT randomblob(20000000) AS bytes")
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        assert [name for name in opened if name.startswith(f"{folder}/etilqs_")]
