"""The limit of searches, in virtual time."""

import asyncio

import pytest

from harvester.simulator.virtual_time import run_virtual
from harvester.web.search_limit import SearchesBusy, SearchLimit


def test_a_snapshot_waits_for_at_most_one_search():
    """However many requests search, the snapshot is taken as soon as the current search ends."""
    events = []

    async def story() -> None:
        reading = asyncio.Lock()
        limit = SearchLimit(reading)

        async def search() -> None:
            await asyncio.sleep(0.1)
            events.append("search")

        async def snapshot() -> None:
            async with reading:
                events.append("snapshot")

        searches = [asyncio.create_task(limit.run(search)) for _ in range(5)]
        await asyncio.sleep(0.05)
        await asyncio.gather(snapshot(), *searches)

    run_virtual(story())
    assert events == ["search", "snapshot", *["search"] * 4]


def test_a_search_that_nobody_waits_for_still_has_its_turn():
    """A search that takes too long is still running, so the next one is refused until it ends."""
    ends = asyncio.Event()

    async def story() -> None:
        limit = SearchLimit(asyncio.Lock())
        with pytest.raises(TimeoutError):
            await limit.run(ends.wait)
        with pytest.raises(SearchesBusy):
            await limit.run(ends.wait)
        ends.set()
        assert await limit.run(ends.wait, patient=True)

    run_virtual(story())


def test_a_failed_search_is_reported_and_ends_its_turn():
    """A search that fails is reported, and the next search runs."""

    async def fail() -> None:
        raise OSError

    async def story() -> None:
        limit = SearchLimit(asyncio.Lock())
        for _ in range(2):
            with pytest.raises(OSError):  # noqa: PT011 - it has no text
                await limit.run(fail)

    run_virtual(story())
