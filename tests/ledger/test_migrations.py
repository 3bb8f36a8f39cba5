"""Upgrades of a ledger that processes of two versions use, and what is refused."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import psycopg
import pytest

from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.ledger.owner_locks import OwnerLock
from harvester.model import Pair, SentPair
from tests.support.clocks import SettableClock
from tests.support.ledger_file import execute, pass_time, query
from tests.support.next_version import NEXT_SCHEMA, SCHEMA, list_parts, next_version

NOW = 1_767_225_600.0
CLOCK = SettableClock(NOW)

END_WAITING = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
)


def create_of_schema(path: Path, schema: int) -> None:
    """Create the file of a ledger of an earlier schema."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent.parent / "ledgers" / f"schema-{schema}.sql").read_text())


async def create(location) -> None:
    """Create a ledger that nobody uses."""
    async with await Ledger.open(location, clock=CLOCK):
        pass


async def test_a_ledger_is_upgraded_while_the_previous_version_uses_it(location):
    """The new version starts after the migration. What only the old one needs stays until it has ended."""
    async with AsyncExitStack() as previous:
        old = await previous.enter_async_context(await Ledger.open(location, clock=CLOCK))
        await old.batches.register()
        with next_version():
            with pytest.raises(LedgerError, match=f"{old.batches.owner} still uses it.* Run harvester ledger migrate"):
                await Ledger.open(location, clock=CLOCK)
            done = await Ledger.migrate(location, clock=CLOCK)
            assert (done.schema_before, done.schema, done.post_parts) == (SCHEMA, NEXT_SCHEMA, [])
            assert done.waits_for == [old.batches.owner]
            async with await Ledger.open(location, clock=CLOCK) as new:
                await new.batches.register()
                for ledger, name in ((old, "old"), (new, "new")):
                    await ledger.intake.enqueue([SentPair(Pair("w", "c", name), NOW)])
                    (claimed,) = await ledger.batches.claim({"w": 9})
                    assert claimed.pair.send_id == name
                assert await new.upkeep.finish_migration() == []
                assert list_parts(location) == ["pre"]
                await previous.aclose()
                assert await new.upkeep.finish_migration() == [NEXT_SCHEMA]
                assert list_parts(location) == ["pre", "post"]
            done = await Ledger.migrate(location, clock=CLOCK)
            assert (done.schema_before, done.post_parts, done.waits_for) == (NEXT_SCHEMA, [], [])


async def test_a_process_that_is_alone_upgrades_the_ledger_completely(location):
    """One that has ended, or whose lease has ended, does not count. The previous version is refused afterwards."""
    clock = SettableClock(NOW)
    await create(location)
    execute(location, f"INSERT INTO owner (epoch, id, alive_until, version) VALUES (99, 'dead', {NOW + 30}, '')")
    pass_time(location, clock, 60)
    with next_version():
        async with await Ledger.open(location, clock=clock):
            assert list_parts(location) == ["pre", "post"]
    for use in (Ledger.open(location, clock=clock), Ledger.open_to_read(location, clock=clock).__aenter__()):
        with pytest.raises(LedgerError, match=f"schema {NEXT_SCHEMA}, this harvester supports {SCHEMA}; upgrade"):
            await use


async def test_the_previous_version_can_return_before_the_post_part(location):
    """Until then, it opens the newer ledger like its own."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(location, clock=CLOCK)
        async with await Ledger.open(location, clock=CLOCK), Ledger.open_to_read(location, clock=CLOCK) as reports:
            assert (await reports.get_books()).accepted == 0


async def test_a_process_that_was_thought_dead_is_refused_before_it_writes(location):
    """A process that did not renew its lease cannot write to a ledger that no longer supports its version."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        execute(location, f"UPDATE about SET oldest_schema = {NEXT_SCHEMA}, schema_version = {NEXT_SCHEMA}")
        for verb in (
            old.batches.renew,
            old.batches.register,
            lambda: old.intake.enqueue([SentPair(Pair("w", "c", "s"), NOW)]),
            old.reports.get_books,
        ):
            with pytest.raises(LedgerError, match=f"needs schema {NEXT_SCHEMA}.*; upgrade harvester"):
                await verb()
    assert query(location, "SELECT count(*) FROM pair") == [(0,)]


@pytest.mark.long  # it waits for two seconds
async def test_a_post_part_does_not_overlap_another_transaction(database_url):
    """It gives up while one is open that may be of an earlier version. The next attempt succeeds."""
    async with await Ledger.open(database_url, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(database_url, clock=CLOCK)
    with next_version():
        async with await Ledger.open(database_url, clock=CLOCK) as new:
            with psycopg.connect(database_url.url) as other:
                other.execute("SELECT oldest_schema FROM about")
                with pytest.raises(LedgerError, match=r"cannot be removed from the ledger now: .*lock timeout"):
                    await new.upkeep.finish_migration()
            assert list_parts(database_url) == ["pre"]
            assert await new.upkeep.finish_migration() == [NEXT_SCHEMA]


async def test_processes_of_an_earlier_schema_that_cannot_continue_must_be_stopped(tmp_path):
    """The error names them, also if they have not registered; then the upgrade is as if there were none."""
    path = tmp_path / "ledger.db"
    create_of_schema(path, 7)
    other = OwnerLock(path, "other")
    for upgrade in (Ledger.migrate, Ledger.open):
        with pytest.raises(LedgerError, match=r"\bother\b"):
            await upgrade(path, clock=CLOCK)
    assert query(path, "SELECT schema_version FROM about") == [(7,)]
    other.release()
    done = await Ledger.migrate(path, clock=CLOCK)
    assert (done.schema_before, done.schema, done.waits_for) == (7, SCHEMA, [])


async def test_processes_of_schema_8_continue(tmp_path):
    """Their rows get the number of their schema, which their code does not write."""
    path = tmp_path / "ledger.db"
    create_of_schema(path, 8)
    other = OwnerLock(path, "other")
    done = await Ledger.migrate(path, clock=CLOCK)
    assert (done.schema_before, done.schema) == (8, SCHEMA)
    execute(path, f"INSERT INTO owner (id, alive_until, version) VALUES ('other', {NOW + 60}, '')")
    assert query(path, "SELECT schema_version FROM owner") == [(8,)]
    other.release()


async def test_only_one_of_several_migrations_changes_the_ledger(location):
    """The others wait for it, and find nothing to do; processes that start meanwhile can use the ledger."""
    await create(location)
    with next_version():
        done = await asyncio.gather(*(Ledger.migrate(location, clock=CLOCK) for _ in range(3)))
        assert sorted(each.schema_before for each in done) == [SCHEMA, NEXT_SCHEMA, NEXT_SCHEMA]
        assert sorted(each.post_parts for each in done) == [[], [], [NEXT_SCHEMA]]


async def test_a_migration_that_is_cut_off_changes_nothing_and_is_repeated(postgresql):
    """The server ends it between its statements; a ledger of the old schema remains until it succeeds."""
    with postgresql.database() as name:
        location = postgresql.url(name)
        await create(location)
        with next_version(), psycopg.connect(location.url) as reader:
            reader.execute("LOCK TABLE pair IN ACCESS SHARE MODE")  # the migration waits for it
            migration = asyncio.create_task(Ledger.migrate(location, clock=CLOCK))
            while not await asyncio.to_thread(postgresql.execute, END_WAITING, name):
                pass
            assert list_parts(location) == []
            reader.rollback()
            assert (await migration).post_parts == [NEXT_SCHEMA]
        assert list_parts(location) == ["pre", "post"]


async def test_a_ledger_that_is_not_migrated_completely_is_not_copied(location, tmp_path):
    """Neither one with more than this version knows, nor one with something that a post part will change."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(location, clock=CLOCK)
    with pytest.raises(LedgerError, match=f"has schema {NEXT_SCHEMA}.*exactly schema {SCHEMA}"):
        await Ledger.copy(location, tmp_path / "copy.db", clock=CLOCK, show=lambda _: None)
    with next_version(), pytest.raises(LedgerError, match="run harvester ledger migrate, and repeat the command"):
        await Ledger.copy(location, tmp_path / "copy.db", clock=CLOCK, show=lambda _: None)
