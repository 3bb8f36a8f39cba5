"""Engines with a ledger in PostgreSQL, in virtual time."""

import asyncio
from collections import Counter

import pytest

from harvester.ledger import Ledger
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.many_workspaces import sends, serve

NAMES = ["a", "b", "c"]


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.0, 3.7])
def test_two_engines_store_each_pair_once_while_the_server_ends_their_connections(postgresql, tmp_path, seconds):
    """All connections are terminated every few seconds: no row is lost or repeated, and no request is wasted."""

    async def story() -> None:
        with postgresql.database() as name:
            location = postgresql.url(name)
            async with (
                serve(tmp_path, NAMES, location=location) as one,
                serve(tmp_path, NAMES, location=location) as two,
            ):
                scenes = (one, two)

                async def terminate() -> None:
                    while True:
                        await asyncio.sleep(seconds)
                        postgresql.terminate_connections(name)

                terminating = asyncio.create_task(terminate())
                for number, scene in enumerate((*scenes, *scenes)):
                    await scene.enqueue(*(sends(each, 100, prefix=f"{number}-") for each in NAMES))
                    await asyncio.sleep(2)
                async with asyncio.timeout(600):
                    await one.wait_until_pending(0)
                    while one.engine.uploader.waiting or two.engine.uploader.waiting:
                        await asyncio.sleep(1)
                terminating.cancel()
            stored = Counter(
                (row["workspace"], row["send_id"]) for scene in scenes for _, rows in scene.sink.parts for row in rows
            )
            expected = {(each, f"{number}-{at}") for each in NAMES for number in range(4) for at in range(100)}
            requests = sum(len(scene.braze.requests) for scene in scenes)
            assert (stored, requests) == (Counter(sorted(expected)), 1200)
            async with await Ledger.open(location, clock=VirtualClock()) as ledger:
                assert (await ledger.reports.get_books()).captured == {"empty": 1200}
                assert await ledger.reports.find_wrong_counts() == []

    run_virtual(story())
