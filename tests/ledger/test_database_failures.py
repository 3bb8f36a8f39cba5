"""A PostgreSQL server that fails: each operation happens exactly once, as soon as the server works again."""

import asyncio
import contextlib
import signal
import time
from contextlib import asynccontextmanager, nullcontext

import pytest
import structlog

from harvester.errors import LedgerError
from harvester.ledger import EnqueueResult, Ledger, postgresql_connection
from harvester.ledger.postgresql import PostgreSQL
from harvester.ledger.postgresql_connection import WatchedConnection
from harvester.model import DATASET, DAY_SECONDS, Pair, SentPair
from tests.support.clocks import SettableClock
from tests.support.database_proxy import DatabaseProxy, Fault
from tests.support.ledger_cycles import NOW, capture, list_sends, run_cycles
from tests.support.ledger_file import query
from tests.support.postgresql_standby import replicated_servers

each_fault = pytest.mark.parametrize(
    "fault",
    [
        Fault.REPLY_LOST,
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in Fault
            if each not in (Fault.REPLY_LOST, Fault.REPLY_WITHHELD)
        ),
    ],
    ids=lambda fault: fault.name.lower(),
)
"""Each fault around a COMMIT. That of the lost reply is the hardest, so it is not left to the long tests."""


@asynccontextmanager
async def opened(location, *, now=NOW):
    """Open a ledger whose time is confirmed."""
    async with await Ledger.open(location, clock=SettableClock(now)) as ledger:
        ledger.clock.observe(now, sent=now, received=now)
        ledger.keep_trying()
        yield ledger


async def check_books(location, *, captured: int, pending: int) -> None:
    """Compare the books with what must have happened, and the counts with a full count."""
    async with opened(location) as ledger:
        books = await ledger.reports.get_books()
        assert (books.captured.get("zero", 0), books.pending, books.balanced) == (captured, pending, True)
        assert await ledger.reports.find_wrong_counts() == []
    assert query(location, "SELECT count(*), count(DISTINCT pair_id) FROM outcome") == [(captured, captured)]


@each_fault
async def test_each_operation_happens_once_if_the_connection_is_lost_around_its_commit(postgresql, fault):
    """The caller gets the result of the transaction that was committed, whether its reply arrived or not."""
    with postgresql.database() as name:
        async with DatabaseProxy(postgresql, name) as proxy, opened(proxy.url) as ledger:

            async def fail(operation):
                proxy.fault = fault
                result = await operation
                assert proxy.fault is None
                return result

            await fail(ledger.batches.register())
            assert await fail(ledger.intake.enqueue(list_sends(10), once=True)) == EnqueueResult(new=10, known=0)
            assert await fail(ledger.intake.enqueue(list_sends(12), once=True)) == EnqueueResult(new=2, known=10)
            readings = await fail(ledger.batches.claim({"w": 6}))
            assert len(readings) == 6
            leased = query(postgresql.url(name), "SELECT id FROM pair WHERE state = 'leased'")
            assert sorted(leased) == sorted((each.pair_id,) for each in readings)
            assert await fail(ledger.batches.renew())
            await fail(ledger.batches.release(readings[4:]))
            sealed = capture(readings[:4])
            assert await fail(ledger.batches.seal([sealed]))
            assert not await ledger.batches.seal([sealed])
            of_part = {"dataset": DATASET, "destination": "d"}
            assert await fail(ledger.batches.mark_stored(sealed[0].id, **of_part))
            assert not await fail(ledger.batches.mark_stored(sealed[0].id, **of_part))
            assert await fail(ledger.intake.remove([readings[5].pair])) == 1
        await check_books(postgresql.url(name), captured=4, pending=7)


@pytest.mark.long
@pytest.mark.parametrize(
    "fault", [Fault.REQUEST_LOST, Fault.REPLY_LOST, Fault.CUT_MEANWHILE], ids=lambda fault: fault.name.lower()
)
async def test_a_cut_at_any_message_of_a_cycle_changes_nothing(postgresql, fault):
    """Each cycle enqueues, claims, seals and stores one pair, and loses its connection one message later."""
    with postgresql.database() as name:
        async with DatabaseProxy(postgresql, name) as proxy, opened(proxy.url) as ledger:
            cycles, messages = 0, 99
            while cycles < messages:
                before, cycles = proxy.messages, cycles + 1
                proxy.fault, proxy.skip = fault, cycles
                assert (await ledger.intake.enqueue(list_sends(1, first=cycles), once=True)).new == 1
                assert len(await run_cycles(ledger, at_once=9)) == 1
                messages = min(messages, proxy.messages - before)
        await check_books(postgresql.url(name), captured=cycles, pending=0)
    assert cycles > 20


@each_fault
async def test_a_ledger_can_be_created_again_after_the_connection_was_lost(postgresql, fault):
    """Whether the creation fails or not, the next process creates the ledger or finds it complete."""
    with postgresql.database() as name:
        async with DatabaseProxy(postgresql, name) as proxy:
            proxy.fault = fault
            with contextlib.suppress(LedgerError):
                async with opened(proxy.url):
                    pass
            assert proxy.fault is None
        await check_books(postgresql.url(name), captured=0, pending=0)


@pytest.mark.long
async def test_a_connection_on_which_the_server_stays_silent_is_replaced(postgresql, monkeypatch):
    """A proxy may keep a connection open whose server is gone. Each statement and each commit still happens once."""
    monkeypatch.setattr(postgresql_connection, "REPLY_SECONDS", 0.3)
    with postgresql.database() as name:
        async with DatabaseProxy(postgresql, name) as proxy, opened(proxy.url) as ledger:
            await ledger.intake.enqueue(list_sends(9), once=True)
            for skip in (None, 1, 2, 3):  # at the commit, or after this number of messages
                proxy.fault, proxy.skip = Fault.REPLY_WITHHELD, skip
                assert len(await ledger.batches.claim({"w": 1})) == 1
                assert proxy.fault is None
            proxy.fault, proxy.skip = Fault.REPLY_WITHHELD, 1
            assert (await ledger.reports.get_books()).pending == 9
            assert len(await ledger.batches.claim({"w": 9})) == 5
        await check_books(postgresql.url(name), captured=0, pending=9)


@pytest.mark.long
async def test_a_process_that_ends_waits_only_shortly_for_a_server_that_stays_silent(postgresql, monkeypatch):
    """A service ends in time after a signal, also if the server will never reply to what it waits for."""
    monkeypatch.setattr(postgresql_connection, "STOPPING_REPLY_SECONDS", 0.3)
    with postgresql.database() as name:
        async with DatabaseProxy(postgresql, name) as proxy, opened(proxy.url) as ledger:
            await ledger.intake.enqueue(list_sends(1), once=True)
            proxy.fault = Fault.REPLY_WITHHELD
            claim = asyncio.create_task(ledger.batches.claim({"w": 1}))
            while proxy.fault is not None:
                await asyncio.sleep(0.01)
            ledger.stop_waiting()
            async with asyncio.timeout(20):
                assert len(await claim) == 1


async def claim_from_failing_server(ledger, *, reason=""):
    """Start a claim, and return its task once the ledger reports the ``reason`` why it waits.

    The first error may have another reason.
    """
    claim = asyncio.create_task(ledger.batches.claim({"w": 1}))
    async with asyncio.timeout(10):
        while ledger.outage is None or reason not in ledger.outage.reason:
            await asyncio.sleep(0.01)
    return claim


@asynccontextmanager
async def outage(ledger, failing, *, reason=""):
    """Claim a reading while the server fails: the claim waits, and succeeds once the server works again."""
    with structlog.testing.capture_logs() as logs:
        with failing:
            claim = await claim_from_failing_server(ledger, reason=reason)
            yield
            assert not claim.done()
        assert len(await claim) == 1
    assert ledger.outage is None
    assert [each["event"] for each in logs] == ["ledger_unavailable", "ledger_recovered"]


async def test_a_ledger_works_again_after_its_server_was_restarted(postgresql, database_url):
    """An operation waits while the server is down, and the ledger says why; nothing that was committed is lost."""
    async with opened(database_url) as ledger:
        await ledger.intake.enqueue(list_sends(2), once=True)
        async with outage(ledger, postgresql.stopped()):
            pass
    await check_books(database_url, captured=0, pending=2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "restore", "reason"),
    [
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only", "read-only"),
        ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1", "too many connections"),
        ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true", "not currently accepting"),
    ],
    ids=["read-only", "out of connections", "maintenance"],
)
async def test_a_ledger_waits_for_a_server_that_refuses_to_work(postgresql, change, restore, reason):
    """After a fail-over to a replica that is still read-only, and while others use all connections, operations wait."""
    with postgresql.database() as name:
        location = postgresql.url(name)
        async with opened(location) as ledger:
            await ledger.intake.enqueue(list_sends(2), once=True)
            async with outage(ledger, postgresql.altered(name, change, restore), reason=reason):
                pass
        await check_books(location, captured=0, pending=2)


@pytest.mark.long
async def test_a_ledger_continues_on_a_synchronous_standby_that_is_promoted(monkeypatch):
    """With both servers in its URL, it waits until one accepts changes; nothing that was committed is lost.

    If the standby is lost, the server does not end a transaction before it is back, so the operation waits, too.
    """
    monkeypatch.setattr(postgresql_connection, "REPLY_SECONDS", 0.3)
    with replicated_servers() as (primary, standby, location):
        async with opened(location) as ledger:
            await ledger.intake.enqueue(list_sends(3), once=True)
            async with outage(ledger, standby.stopped(), reason="has not ended a transaction"):
                pass
            primary.stop()
            claim = await claim_from_failing_server(ledger)
            standby.promote()
            assert len(await claim) == 1
        await check_books(location, captured=0, pending=3)


@pytest.mark.long
def test_a_transaction_of_a_promoted_standby_is_not_taken_for_an_earlier_one_with_its_id():
    """A promoted standby may reuse an id whose transaction it never received, so it cannot tell which one is meant."""
    with replicated_servers() as (primary, standby, location):
        backend = PostgreSQL(location)
        engine = backend.connect(read_only=False)
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        standby.execute("SELECT pg_reload_conf()")
        while primary.execute("SELECT 1 FROM pg_stat_replication"):
            pass
        with engine.connect() as connection:
            begun = backend.begin(connection, writes=True)
        engine.dispose()
        primary.stop()
        standby.promote()
        with engine.connect() as connection:
            assert backend.was_committed(connection, begun.transaction_id) is False
        for _ in range(99):
            standby.execute("SELECT pg_current_xact_id()")
        with (
            engine.connect() as connection,
            pytest.raises(LedgerError, match="a standby has become the ledger's server"),
        ):
            backend.was_committed(connection, begun.transaction_id)
        engine.dispose()


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "stopped at once", "stopped"])
def test_a_transaction_of_a_server_that_crashed_is_not_taken_for_an_earlier_one_with_its_id(
    postgresql, database_url, how
):
    """A crash loses ids that are not in the server's log, and it gives them again. A normal stop loses none."""
    backend = PostgreSQL(database_url)
    engine = backend.connect(read_only=False)
    with engine.connect() as connection:
        begun = backend.begin(connection, writes=True)
    engine.dispose()
    if how == "killed":
        postgresql.kill()
    else:
        postgresql.stop(signal.SIGINT if how == "stopped" else signal.SIGQUIT)
    postgresql.start()
    with engine.connect() as connection:
        assert backend.was_committed(connection, begun.transaction_id) is False
    for _ in range(99):
        postgresql.execute("SELECT pg_current_xact_id()")
    with (
        engine.connect() as connection,
        nullcontext() if how == "stopped" else pytest.raises(LedgerError, match="server has crashed, and cannot tell"),
    ):
        assert backend.was_committed(connection, begun.transaction_id) is False
    engine.dispose()


@pytest.mark.long
@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("53100", "could not extend file: No space left on device"),
        ("57014", "canceling statement due to statement timeout"),
        ("55P03", "canceling statement due to lock timeout"),
    ],
    ids=["full", "slow", "locked"],
)
async def test_a_ledger_waits_for_a_server_that_cannot_finish_a_statement(postgresql, database_url, sqlstate, reason):
    """While its disk is full, or it is too slow for the timeouts of a statement, operations wait."""
    async with opened(database_url) as ledger:
        await ledger.intake.enqueue(list_sends(2), once=True)
        name = str(database_url).rpartition("/")[2]
        async with outage(ledger, postgresql.refusing_updates(name, sqlstate, reason), reason=reason):
            pass
    await check_books(database_url, captured=0, pending=2)


@pytest.mark.long
async def test_an_operation_that_waits_for_the_server_can_be_cancelled(postgresql, database_url):
    """A service that stops while its server is down ends at once."""
    async with opened(database_url) as ledger:
        await ledger.intake.enqueue(list_sends(2), once=True)
        with postgresql.stopped():
            claim = await claim_from_failing_server(ledger)
            claim.cancel()
            with pytest.raises(asyncio.CancelledError):
                await claim
        assert len(await ledger.batches.claim({"w": 9})) == 2


@pytest.mark.long
async def test_a_process_that_ends_does_not_wait_for_the_server(postgresql, database_url):
    """A service that is stopped while its server is down ends with an error, also if it already waits."""
    async with opened(database_url) as ledger:
        await ledger.intake.enqueue(list_sends(2), once=True)
        with postgresql.stopped():
            claim = await claim_from_failing_server(ledger)
            ledger.stop_waiting()
            with pytest.raises(LedgerError, match="cannot be used"):
                await claim
            assert ledger.outage is not None, "it has not recovered"


@pytest.mark.long
async def test_a_process_that_ends_gives_up_once_for_all_that_waits(postgresql, database_url, monkeypatch):
    """Each attempt may take seconds, so once one caller has given up, the others fail without an attempt."""
    attempts, connect = [], WatchedConnection.connect
    clock = SettableClock(NOW)
    async with await Ledger.open(database_url, clock=clock) as ledger:
        ledger.keep_trying()
        with postgresql.stopped():
            claims = [await claim_from_failing_server(ledger) for _ in range(9)]
            ledger.stop_waiting()
            clock.now += 6
            monkeypatch.setattr(WatchedConnection, "connect", lambda **to: (attempts.append(1), connect(**to))[1])
            for claim in claims:
                with pytest.raises(LedgerError, match="cannot be used"):
                    await claim
            with pytest.raises(LedgerError, match="cannot be used"):
                await ledger.reports.get_books()
            assert len(attempts) == 1


@pytest.mark.long
async def test_a_command_gives_up_after_seconds(postgresql, database_url):
    """What runs once, such as status or enqueue, does not wait for the server; only a run and a service do."""
    async with await Ledger.open(database_url, clock=SettableClock(NOW)) as ledger:
        with postgresql.stopped():
            for operation in (ledger.reports.get_books, lambda: ledger.intake.enqueue(list_sends(1), once=True)):
                with pytest.raises(LedgerError, match="cannot be used"):
                    await operation()
        assert (await ledger.intake.enqueue(list_sends(1), once=True)).new == 1


async def test_a_ledger_that_cannot_be_opened_is_an_error(postgresql, database_url):
    """A command ends at once with an error that names the database without its password."""
    with postgresql.stopped(), pytest.raises(LedgerError) as failed:
        await Ledger.open(database_url, clock=SettableClock(NOW))
    assert str(database_url) in str(failed.value)


async def test_owners_share_the_connections_of_pgbouncer(postgresql, pgbouncer_port):
    """In transaction mode, four owners use two connections to the server, a transaction each."""
    with postgresql.database() as name:
        through = postgresql.url(name, port=pgbouncer_port)
        async with opened(through) as one, opened(through) as two, opened(through) as three, opened(through) as four:
            await one.intake.enqueue(list_sends(100), once=True)
            await asyncio.gather(*(run_cycles(each, at_once=9) for each in (one, two, three, four)))
            assert await one.batches.renew()
            await one.upkeep.expire(["w"])
            await one.upkeep.prune(keep_days=30)
        await check_books(postgresql.url(name), captured=100, pending=0)


@pytest.mark.long
async def test_the_wrong_clock_of_a_machine_is_not_assumed_on_another_one(database_url):
    """Otherwise, a replica with a right clock would plan and expire pairs by a wrong one until its first response."""
    async with await Ledger.open(database_url, clock=SettableClock(NOW + 20 * DAY_SECONDS)) as wrong:
        wrong.clock.observe(NOW, sent=NOW + 20 * DAY_SECONDS, received=NOW + 20 * DAY_SECONDS)
        assert round(wrong.clock.wall() - NOW) == 0
        await wrong.save_clock_difference()
    async with await Ledger.open(database_url, clock=SettableClock(NOW + 20 * DAY_SECONDS)) as right:
        assert round(right.clock.wall() - NOW) == 20 * DAY_SECONDS


@pytest.mark.long
@pytest.mark.parametrize("days", [15, 13])
async def test_the_servers_clock_decides_whether_a_send_without_a_time_is_new(database_url, days):
    """While Braze does not respond, a machine whose clock is ahead would otherwise read a captured send again."""
    now, arrivals = time.time(), [SentPair(Pair("w", "c", "s"))]
    async with opened(database_url, now=now - days * DAY_SECONDS) as ledger:
        await ledger.intake.enqueue(arrivals, once=True)
        assert await run_cycles(ledger, at_once=1) == [arrivals[0].pair]
    async with await Ledger.open(database_url, clock=SettableClock(now + 20 * DAY_SECONDS)) as wrong:
        await wrong.intake.enqueue(arrivals, once=True, trust_clock=True)
        assert len(await wrong.batches.claim({"w": 1})) == (days > 14)


@pytest.mark.parametrize("ahead_seconds", [pytest.param(-3600, marks=pytest.mark.long), 3600])
async def test_leases_end_by_the_time_of_the_server(database_url, ahead_seconds):
    """An owner whose clock is an hour off recovers no living owner, and keeps its own leases."""
    async with opened(database_url) as right, opened(database_url, now=NOW + ahead_seconds) as wrong:
        await right.intake.enqueue(list_sends(4), once=True)
        for owner, other in ((right, wrong), (wrong, right)):
            assert len(await owner.batches.claim({"w": 2})) == 2
            await other.batches.recover()
            assert await owner.batches.renew()
        assert await right.batches.claim({"w": 9}) == []
