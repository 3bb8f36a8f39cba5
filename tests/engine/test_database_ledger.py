"""Engines with a ledger in PostgreSQL, in virtual time. Leases end by the server's time, which hardly passes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from harvester.engine.assignment import find_owner
from harvester.ledger import Ledger
from harvester.ledger.postgresql_connection import WatchedConnection
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.ledger_file import recorded_statements
from tests.support.many_workspaces import Scene, create_engine, sends, serve

NAMES = ["a", "b", "c"]

pytestmark = pytest.mark.long


async def check_result(*scenes, location) -> None:
    """Wait until 1,200 pairs are stored, and check that each was requested and stored once."""
    async with asyncio.timeout(600):
        await scenes[0].wait_until_pending(0)
        while any(each.engine.uploader.waiting for each in scenes):
            await asyncio.sleep(1)
    stored = Counter(
        (row["workspace"], row["send_id"]) for each in scenes for _, rows in each.sink.parts for row in rows
    )
    assert (len(stored), set(stored.values())) == (1200, {1})
    assert sum(len(each.braze.requests) for each in scenes) == 1200
    async with await Ledger.open(location, clock=VirtualClock()) as ledger:
        assert (await ledger.reports.get_books()).captured == {"empty": 1200}
        assert await ledger.reports.find_wrong_counts() == []


@asynccontextmanager
async def two_engines(postgresql, folder) -> AsyncIterator[tuple[str, Scene, Scene]]:
    """Run two services on one new database; yields its name, too."""
    with postgresql.database() as name:
        location = postgresql.url(name)
        async with (
            serve(folder, NAMES, location=location) as one,
            serve(folder, NAMES, location=location) as two,
        ):
            yield name, one, two


@pytest.mark.parametrize("seconds", [1.0, 3.7])
def test_two_engines_store_each_pair_once_while_the_server_ends_their_connections(postgresql, tmp_path, seconds):
    """All connections are terminated every few seconds: no row is lost or repeated, and no request is wasted."""

    async def story() -> None:
        async with two_engines(postgresql, tmp_path) as (name, one, two):

            async def terminate() -> None:
                while True:
                    await asyncio.sleep(seconds)
                    postgresql.terminate_connections(name)

            terminating = asyncio.create_task(terminate())
            for number, scene in enumerate((one, two, one, two)):
                await scene.enqueue(*(sends(each, 100, prefix=f"{number}-") for each in NAMES))
                await asyncio.sleep(2)
            await one.wait_until_pending(0)
            terminating.cancel()
            await check_result(one, two, location=postgresql.url(name))

    run_virtual(story())


def test_two_engines_wait_for_a_server_that_is_unavailable_for_long(postgresql, tmp_path, monkeypatch):
    """Each tries about once a second, and continues by itself: no row is lost or repeated, and no request is wasted."""
    attempts, connect = [], WatchedConnection.connect
    monkeypatch.setattr(WatchedConnection, "connect", lambda **options: (attempts.append(1), connect(**options))[1])

    async def story() -> None:
        async with two_engines(postgresql, tmp_path) as (name, one, two):
            await one.enqueue(*(sends(each, 400) for each in NAMES))
            await asyncio.sleep(3)
            with postgresql.stopped():
                await asyncio.sleep(60)
                before = len(attempts)
                await asyncio.sleep(1200)
                assert one.ledger.outage is not None
                assert 1200 / 5 < len(attempts) - before < 3 * 1200
            await check_result(one, two, location=postgresql.url(name))

    run_virtual(story())


def test_workspaces_of_a_replica_that_hangs_are_served_after_two_minutes(postgresql, tmp_path):
    """A replica that has a lease and claims nothing stops no workspace; before that, its share is left alone."""

    async def story() -> None:
        with postgresql.database() as name:
            location = postgresql.url(name)
            async with (
                await Ledger.open(location, clock=VirtualClock()) as hanging,
                serve(tmp_path, NAMES, location=location) as scene,
            ):
                await hanging.batches.join_replicas()
                await asyncio.sleep(30)
                owners = [hanging.batches.owner, scene.ledger.batches.owner]
                shares = Counter(find_owner(each, owners) for each in NAMES)
                await scene.enqueue(*(sends(each, 3) for each in NAMES))
                await asyncio.sleep(100)
                assert (await scene.ledger.reports.get_books()).pending == 3 * shares[hanging.batches.owner]
                await asyncio.sleep(70)
                assert (await scene.ledger.reports.get_books()).pending == 0

    run_virtual(story())


def test_a_run_does_not_spin_while_others_have_locked_what_is_due(postgresql, tmp_path):
    """Its claim is empty, although readings are due. It claims them soon after the lock has ended."""

    async def story() -> None:
        with postgresql.database() as name:
            location = postgresql.url(name)
            created = create_engine(tmp_path, ["a"], until_stopped=False, location=location)
            async with created as (engine, ledger, braze, *_):
                await ledger.intake.enqueue(sends("a", 3), once=True)
                running, now = asyncio.create_task(engine.run()), asyncio.get_running_loop().time
                with psycopg.connect(location.url) as other, recorded_statements(ledger) as statements:
                    other.execute("SELECT id FROM pair FOR NO KEY UPDATE")
                    began = now()
                    while now() - began < 5 and len(statements) < 2000:
                        await asyncio.sleep(0.01)
                    claims = sum("SKIP LOCKED" in sql for sql, _ in statements)
                assert 5 / 0.25 < claims < 5 / 0.05
                assert braze.requests == []
                await running
                assert len(braze.requests) == 3

    run_virtual(story())
