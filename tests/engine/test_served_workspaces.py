"""Several replicas on one ledger: each serves its share, and none leaves a workspace unread that another one can read.

The processes share a virtual clock, so a test of several minutes takes a second.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from harvester.engine.assignment import assign, find_owner
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.engine.test_changed_workspaces import configure
from tests.support.ledger_file import count_rows
from tests.support.many_workspaces import Scene, create_engine, sends, serve

NAMES = [f"w{number}" for number in range(12)]
SETTLED_SECONDS = 30
"""The time after which every process knows that another one has started or stopped."""


def run_story(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story, for two virtual hours at most."""

    async def limited() -> None:
        async with asyncio.timeout(7200):
            await story()

    run_virtual(limited())


def list_requested(scene: Scene, *, since: float = 0.0) -> set[str]:
    """Return the workspaces that a service sent requests for."""
    return {name for name, _, at in scene.braze.requests if at >= since}


def list_assigned(scene: Scene, *scenes: Scene) -> set[str]:
    """Return the workspaces that a service has to serve, among some services."""
    return assign(NAMES, [each.ledger.batches.owner for each in scenes], scene.ledger.batches.owner)


def find_name(server: str, owners: Iterable[str]) -> str:
    """Return a workspace that one of some owners serves."""
    return next(name for name in NAMES if find_owner(name, list(owners)) == server)


@asynccontextmanager
async def run_owner(folder: Path) -> AsyncIterator[Ledger]:
    """Run a service that hangs: it renews its lease, and claims nothing."""
    async with await Ledger.open(folder / "ledger.db", clock=VirtualClock()) as ledger:
        await ledger.batches.join_replicas()

        async def renew() -> None:
            while await ledger.batches.renew():
                await asyncio.sleep(LEASE_SECONDS / 4)

        task = asyncio.create_task(renew())
        yield ledger
        task.cancel()


async def kill(scene: Scene) -> None:
    """End a service as ``kill -9`` does on another machine: its row and its lock stay."""
    scene.task.cancel()
    await asyncio.wait([scene.task])
    scene.task = asyncio.create_task(asyncio.sleep(0))


def test_services_that_start_together_divide_the_workspaces(tmp_path):
    """Each workspace is read by one service, whichever one received its pairs, within seconds."""

    async def story() -> None:
        async with serve(tmp_path, NAMES) as one, serve(tmp_path, NAMES) as other:
            await asyncio.sleep(SETTLED_SECONDS)
            await one.enqueue(*(sends(name, 5) for name in NAMES))
            async with asyncio.timeout(10):
                await one.wait_until_pending(0)
            for each in (one, other):
                assert list_requested(each) == list_assigned(each, one, other) != set()
            assert len(one.braze.requests) + len(other.braze.requests) == 60

    run_story(story)


def test_a_service_that_is_alone_serves_all_workspaces_and_keeps_no_record(tmp_path):
    """Alone, it writes nothing to the ledger about what it serves."""

    async def story() -> None:
        async with serve(tmp_path, NAMES) as alone:
            await alone.enqueue(*(sends(name, 5) for name in NAMES))
            await asyncio.sleep(100)
            assert list_requested(alone) == set(NAMES)
            assert count_rows(alone.ledger.location)["service"] == 0

    run_story(story)


def test_a_service_that_joins_takes_its_share_of_a_backlog_and_one_that_stops_gives_it_back(tmp_path):
    """Within half a minute of a start or a stop, each workspace is read by the service that it is assigned to.

    Nothing is requested twice.
    """
    slow = {"behaviours": dict.fromkeys(NAMES, lambda _: 1.0), "concurrency": 1}

    async def story() -> None:
        now = asyncio.get_running_loop().time
        async with serve(tmp_path, NAMES, **slow) as one:
            await one.enqueue(*(sends(name, 150) for name in NAMES))
            await asyncio.sleep(20)
            assert list_requested(one) == set(NAMES)
            async with serve(tmp_path, NAMES, **slow) as other:
                await asyncio.sleep(SETTLED_SECONDS)
                settled = now()
                await asyncio.sleep(20)
                for each in (one, other):
                    assert list_requested(each, since=settled) == list_assigned(each, one, other) != set()
                other.engine.stop()
                stopped = now()
                await asyncio.sleep(SETTLED_SECONDS)
                settled = now()
                await asyncio.sleep(10)
                assert list_requested(one, since=settled) == set(NAMES)
                assert list_requested(other, since=stopped + 1) == set()
            await one.wait_until_pending(0)
            assert len(one.braze.requests) + len(other.braze.requests) == 150 * len(NAMES)

    run_story(story)


def test_the_workspaces_of_a_killed_service_are_read_within_90_seconds(tmp_path):
    """What it had leased is released and read by the other service, too."""

    async def story() -> None:
        async with serve(tmp_path, NAMES) as one, serve(tmp_path, NAMES) as other:
            await asyncio.sleep(SETTLED_SECONDS)
            await one.enqueue(*(sends(name, 100) for name in NAMES))
            while not other.braze.requests:
                await asyncio.sleep(0.1)
            await kill(other)
            async with asyncio.timeout(90):
                await one.wait_until_pending(0)
            assert list_requested(one) == set(NAMES)

    run_story(story)


def test_workspaces_of_a_service_that_hangs_are_read_after_two_minutes(tmp_path):
    """A service that renews its lease and claims nothing stops no workspace; before that, its share is left alone."""

    async def story() -> None:
        async with run_owner(tmp_path) as hanging, serve(tmp_path, NAMES) as scene:
            owners = {hanging.batches.owner, scene.ledger.batches.owner}
            name = find_name(hanging.batches.owner, owners)
            for _ in range(2):
                await scene.enqueue(sends(name, 3, prefix=str(len(scene.braze.requests))))
                await asyncio.sleep(110)
                assert (await scene.ledger.reports.get_books()).pending == 3
                await asyncio.sleep(60)
                assert (await scene.ledger.reports.get_books()).pending == 0

    run_story(story)


def test_workspaces_of_a_service_that_hung_are_divided_again_when_it_is_replaced(tmp_path):
    """A service that reads them in its place leaves them to the new one, although they have a backlog."""
    slow = {"behaviours": dict.fromkeys(NAMES, lambda _: 3.0), "concurrency": 1}

    async def story() -> None:
        async with serve(tmp_path, NAMES, **slow) as one:
            async with run_owner(tmp_path):
                await asyncio.sleep(SETTLED_SECONDS)
                await one.enqueue(*(sends(name, 200) for name in NAMES))
                await asyncio.sleep(180)
                assert list_requested(one) == set(NAMES)
            async with serve(tmp_path, NAMES, **slow) as other:
                await asyncio.sleep(SETTLED_SECONDS)
                settled = asyncio.get_running_loop().time()
                await asyncio.sleep(20)
                for each in (one, other):
                    assert list_requested(each, since=settled) == list_assigned(each, one, other) != set()

    run_story(story)


def test_a_workspace_that_only_one_service_has_is_read(tmp_path):
    """Services with different configurations read every workspace that one of them has."""

    async def story() -> None:
        async with serve(tmp_path, NAMES) as has_all, serve(tmp_path, NAMES) as has_one_less:
            await asyncio.sleep(SETTLED_SECONDS)
            owners = [each.ledger.batches.owner for each in (has_all, has_one_less)]
            name = find_name(owners[1], owners)
            await has_one_less.engine.apply(configure(*(each for each in NAMES if each != name)))
            await has_all.enqueue(sends(name, 3))
            await asyncio.sleep(170)
            assert (await has_all.ledger.reports.get_books()).pending == 0
            assert list_requested(has_all) == {name}

    run_story(story)


def test_a_workspace_that_waits_is_left_to_its_service(tmp_path):
    """While Braze refuses its key, or it works through a backlog, no other service claims for it."""

    async def story() -> None:
        behaviours = dict.fromkeys(NAMES, lambda _: 401) | {NAMES[0]: lambda _: 20.0}
        async with (
            serve(tmp_path, NAMES, behaviours=behaviours, concurrency=1) as one,
            serve(tmp_path, NAMES, behaviours=behaviours, concurrency=1) as other,
        ):
            await asyncio.sleep(SETTLED_SECONDS)
            await one.enqueue(*(sends(name, 200) for name in NAMES))
            await asyncio.sleep(900)
            for each in (one, other):
                assert list_requested(each) == list_assigned(each, one, other) != set()

    run_story(story)


def test_a_run_takes_no_share_of_the_workspaces(tmp_path):
    """A run on the ledger of a service reads its own pairs of any workspace, and the service keeps all of its share."""

    async def story() -> None:
        async with serve(tmp_path, NAMES) as service, create_engine(tmp_path, NAMES, until_stopped=False) as created:
            engine, ledger, braze, *_ = created
            await ledger.intake.enqueue([each for name in NAMES for each in sends(name, 200)], once=True)
            await engine.run()
            assert {name for name, _, _ in braze.requests} == set(NAMES)
            assert await ledger.batches.list_replicas() == [service.ledger.batches.owner]
            await service.enqueue(*(sends(name, 1, prefix="later") for name in NAMES))
            await service.wait_until_pending(0)
            assert list_requested(service) == set(NAMES)

    run_story(story)
