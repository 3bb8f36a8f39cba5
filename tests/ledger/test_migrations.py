"""Upgrades of a ledger that processes of two versions use, and what is refused."""

import asyncio
import csv
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack, closing
from pathlib import Path

import psycopg
import pytest
from aiohttp import web

from harvester.engine import periodic_work
from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.ledger.owner_locks import OwnerLock
from harvester.model import Pair, SentPair
from harvester.place import LedgerLocation
from harvester.simulator import Simulator, SimulatorConfig
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.conftest import Command, read_rows
from tests.support.clocks import SettableClock
from tests.support.ledger_file import execute, pass_time, query
from tests.support.next_version import NEXT_SCHEMA, NEXT_VERSION, SCHEMA, next_version
from tests.support.observed_service import Seen, Wire, served
from tests.support.secret_canary import KEY

NOW = 1_767_225_600.0
CLOCK = SettableClock(NOW)

END_WAITING = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
)


OLD_LEDGERS = Path(__file__).parent.parent / "ledgers"


def create_of_schema(path: Path, schema: int) -> None:
    """Create the file of a ledger of an earlier schema."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD_LEDGERS / f"schema-{schema}.sql").read_text())


def list_phases(location: LedgerLocation) -> list[str]:
    """Return which phases of the next version's step were applied to a ledger, as its database shows it."""
    names = "SELECT name FROM sqlite_master UNION SELECT name FROM pragma_table_info('pair')"
    if not isinstance(location, Path):
        names = "SELECT indexname FROM pg_indexes UNION SELECT column_name FROM information_schema.columns"
    found = {name for (name,) in query(location, names)}
    return ["expand"] * ("next_version" in found) + ["contract"] * ("pair_deferred" not in found)


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
            with pytest.raises(LedgerError, match=f"still used by {old.batches.owner}.* Run harvester ledger migrate"):
                await Ledger.open(location, clock=CLOCK)
            done = await Ledger.migrate(location, clock=CLOCK)
            assert (done.schema_before, done.schema, done.contracted) == (SCHEMA, NEXT_SCHEMA, [])
            assert done.waits_for == [old.batches.owner]
            async with await Ledger.open(location, clock=CLOCK) as new:
                await new.batches.register()
                for ledger, name in ((old, "old"), (new, "new")):
                    await ledger.intake.enqueue([SentPair(Pair("w", "c", name), NOW)])
                    (claimed,) = await ledger.batches.claim({"w": 9})
                    assert claimed.pair.send_id == name
                assert await new.upkeep.finish_migration() == []
                assert list_phases(location) == ["expand"]
                await previous.aclose()
                assert await new.upkeep.finish_migration() == [NEXT_SCHEMA]
                assert list_phases(location) == ["expand", "contract"]
            done = await Ledger.migrate(location, clock=CLOCK)
            assert (done.schema_before, done.contracted, done.waits_for) == (NEXT_SCHEMA, [], [])


async def test_a_process_that_is_alone_upgrades_the_ledger_completely(location):
    """One that has ended, or whose lease has ended, does not count. The previous version is refused afterwards."""
    clock = SettableClock(NOW)
    await create(location)
    execute(location, f"INSERT INTO owner (epoch, id, alive_until, version) VALUES (99, 'dead', {NOW + 30}, '')")
    pass_time(location, clock, 60)
    with next_version():
        async with await Ledger.open(location, clock=clock):
            assert list_phases(location) == ["expand", "contract"]
    for use in (Ledger.open(location, clock=clock), Ledger.open_to_read(location, clock=clock).__aenter__()):
        with pytest.raises(LedgerError, match=f"schema {NEXT_SCHEMA}, this harvester supports {SCHEMA}; upgrade"):
            await use


async def test_the_previous_version_can_return_before_the_contract_phase(location, tmp_path):
    """Until then, both versions can use the ledger, and estimate what its pairs take."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(location, clock=CLOCK)
        async with await Ledger.open(location, clock=CLOCK), Ledger.open_to_read(location, clock=CLOCK) as reports:
            assert (await reports.get_books()).accepted == 0
        await Ledger.copy_pairs(location, tmp_path / "old.db", clock=CLOCK)
        with next_version():
            await Ledger.copy_pairs(location, tmp_path / "new.db", clock=CLOCK)


async def test_a_process_that_was_thought_dead_is_refused_before_it_writes(location):
    """A process that did not renew its lease cannot write to a ledger that no longer supports its version."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        execute(location, f"UPDATE about SET oldest_schema = {NEXT_SCHEMA}, schema_version = {NEXT_SCHEMA}")
        for operation in (
            old.batches.renew,
            old.batches.register,
            lambda: old.intake.enqueue([SentPair(Pair("w", "c", "s"), NOW)]),
            old.reports.get_books,
        ):
            with pytest.raises(LedgerError, match=f"needs schema {NEXT_SCHEMA}.*; upgrade harvester"):
                await operation()
    assert query(location, "SELECT count(*) FROM pair") == [(0,)]


@pytest.mark.long  # it waits for two seconds
async def test_a_contract_phase_does_not_overlap_another_transaction(database_url):
    """It fails while a transaction is open that may be of an earlier version. The next attempt succeeds."""
    async with await Ledger.open(database_url, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(database_url, clock=CLOCK)
    with next_version():
        async with await Ledger.open(database_url, clock=CLOCK) as new:
            with psycopg.connect(database_url.url) as other:
                other.execute("SELECT oldest_schema FROM about")
                with pytest.raises(LedgerError, match=r"the migration cannot be finished now: .*lock timeout"):
                    await new.upkeep.finish_migration()
            assert list_phases(database_url) == ["expand"]
            assert await new.upkeep.finish_migration() == [NEXT_SCHEMA]


def test_a_service_finishes_the_migration_after_a_while(tmp_path, monkeypatch):
    """Until then, a user can return to the previous version."""
    monkeypatch.setattr(periodic_work, "DOWNGRADE_SECONDS", 300.0)
    path = tmp_path / "ledger.db"

    async def migrate() -> None:
        async with await Ledger.open(path, clock=VirtualClock()) as old:
            await old.batches.register()
            with next_version():
                await Ledger.migrate(path, clock=VirtualClock())

    async def story(seen: Seen) -> None:
        await seen.at(299)
        assert list_phases(path) == ["expand"]
        await seen.at(620)
        assert list_phases(path) == ["expand", "contract"]
        assert [each["schema"] for each in seen.events("ledger_migration_finished")] == [NEXT_SCHEMA]

    run_virtual(migrate())
    with next_version():
        served(tmp_path, {"us": Wire()}, story)


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


@pytest.mark.long
async def test_a_database_of_schema_8_is_upgraded(postgresql):
    """Its content stays, and its tables are those of a new ledger."""
    structure = (
        "SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public' UNION SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes"
        " WHERE schemaname = 'public' ORDER BY 1, 2"
    )
    with postgresql.database() as old, postgresql.database() as new:
        with psycopg.connect(postgresql.url(old).url) as connection:
            connection.execute((OLD_LEDGERS / "postgresql-schema-8.sql").read_text())
        await create(postgresql.url(new))
        async with await Ledger.open(postgresql.url(old), clock=CLOCK) as ledger:
            assert (await ledger.reports.get_books()).accepted == 4
            assert await ledger.reports.find_wrong_counts() == []
            assert len(await ledger.batches.recover()) == 1
        assert query(postgresql.url(old), structure) == query(postgresql.url(new), structure)


async def test_only_one_of_several_migrations_changes_the_ledger(location):
    """The others wait for it, and find nothing to do; processes that start meanwhile can use the ledger."""
    await create(location)
    with next_version():
        done = await asyncio.gather(*(Ledger.migrate(location, clock=CLOCK) for _ in range(3)))
        assert sorted(each.schema_before for each in done) == [SCHEMA, NEXT_SCHEMA, NEXT_SCHEMA]
        assert sorted(each.contracted for each in done) == [[], [], [NEXT_SCHEMA]]


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
            assert list_phases(location) == []
            reader.rollback()
            assert (await migration).contracted == [NEXT_SCHEMA]
        assert list_phases(location) == ["expand", "contract"]


async def test_a_ledger_that_is_not_migrated_completely_is_not_copied(location, tmp_path):
    """A ledger of a newer schema is refused, and so is one whose contract phase is pending."""
    async with await Ledger.open(location, clock=CLOCK) as old:
        await old.batches.register()
        with next_version():
            await Ledger.migrate(location, clock=CLOCK)
    with pytest.raises(LedgerError, match=f"has schema {NEXT_SCHEMA}.*exactly schema {SCHEMA}"):
        await Ledger.copy(location, tmp_path / "copy.db", clock=CLOCK, show=lambda _: None)
    with next_version(), pytest.raises(LedgerError, match="run harvester ledger migrate, and repeat the command"):
        await Ledger.copy(location, tmp_path / "copy.db", clock=CLOCK, show=lambda _: None)


class GatedSimulator(Simulator):
    """A stand-in that answers no request before its gate is open."""

    def __init__(self, config: SimulatorConfig) -> None:
        """Start with a closed gate."""
        super().__init__(config)
        self.gate = asyncio.Event()
        self.waiting = 0
        self.arrived = asyncio.Condition()

    async def _handle_request(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self.arrived:
            self.waiting += 1
            self.arrived.notify_all()
        await self.gate.wait()
        return await super()._handle_request(request)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until this many requests wait at the gate."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.waiting >= count)


async def test_processes_of_two_versions_capture_from_one_ledger_while_it_is_migrated(location, tmp_path, harvester):
    """The ledger is migrated while the old version waits for a response. Both capture each send once."""
    following = Command(tmp_path)
    following.env[NEXT_VERSION] = "1"
    (tmp_path / "ledger.key").write_text(location.url if not isinstance(location, Path) else "")
    state = ("--state", location.name) if isinstance(location, Path) else ("--state-file", "ledger.key")

    async def migrate(*expected: str) -> None:
        code, _, text = await following.run("ledger", "migrate", *state)
        assert code == 0
        assert [each for each in expected if each not in text] == [], text

    async with GatedSimulator(SimulatorConfig(pairs=40, limit=1_000_000, api_key=KEY)) as simulator:
        ids = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
        for name, rows in (("old.csv", ids[:20]), ("new.csv", ids[20:])):
            with (tmp_path / name).open("w", newline="") as file:
                csv.writer(file).writerows([("campaign_id", "send_id"), *rows])
        options = ("--endpoint", simulator.url, *state)
        old = harvester.start_warm("run", "old.csv", *options)
        await simulator.wait_for_requests(1)
        code, _, text = await following.run("run", "new.csv", *options)
        assert (code, "still used by" in text, "harvester ledger migrate" in text) == (5, True, True), text
        await migrate(f"from schema {SCHEMA} to {NEXT_SCHEMA}", "of an earlier version still use the ledger")
        new = following.start_warm("run", "new.csv", *options)
        await simulator.wait_for_requests(2)
        await migrate("of an earlier version still use the ledger")
        assert list_phases(location) == ["expand"]
        simulator.gate.set()
        for process in (old, new):
            _, text = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0, text
        assert simulator.responses == {"200": 40}
    captured = [
        (row["campaign_id"], row["send_id"]) for row in read_rows(tmp_path / "harvest") if row["level"] == "capture"
    ]
    assert Counter(captured) == Counter(ids)
    assert query(location, "SELECT count(DISTINCT epoch) FROM batch") == [(2,)]
    await migrate(f"removed what only versions before schema {NEXT_SCHEMA} need")
    await migrate("nothing to migrate")
    assert list_phases(location) == ["expand", "contract"]
    code, _, text = await harvester.run("status", *state)
    assert (code, "upgrade harvester" in text) == (5, True), text


async def test_a_copy_that_another_version_began_is_not_continued(tmp_path):
    """Its tables are those of the other version."""
    source, to = tmp_path / "ledger.db", tmp_path / "copy.db"

    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    async with await Ledger.open(source, clock=CLOCK) as ledger:
        await ledger.intake.enqueue([SentPair(Pair("w", "c", "s"), NOW)])
    with pytest.raises(KeyboardInterrupt):
        await Ledger.copy(source, to, clock=CLOCK, show=interrupt)
    with next_version():
        await Ledger.migrate(source, clock=CLOCK)
        with pytest.raises(LedgerError, match="another version of harvester has begun this copy: empty it"):
            await Ledger.copy(source, to, clock=CLOCK, show=lambda _: None)
