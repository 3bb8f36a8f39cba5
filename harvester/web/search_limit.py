"""Limits the searches of the ledger: one at a time, so that they do not delay the snapshots behind the probes.

Searches and snapshots read the ledger on the same thread. A search waits for its turn among the searches first, and
then for the snapshot. So at most one search is ahead of a snapshot, however many clients search.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from harvester.monitor.health import TIMEOUT_SECONDS

BUSY_SECONDS = 1.0
"""How long a request waits for the searches of other requests."""

RETRY_AFTER_SECONDS = 5

R = TypeVar("R")


class SearchesBusy(Exception):  # noqa: N818 - a state of the server, not a fault of it
    """Other requests search the ledger. The message is for the client."""


class SearchLimit:
    """Runs one search at a time."""

    def __init__(self, reading: asyncio.Lock) -> None:
        """Hold ``reading`` while a search runs. A snapshot holds it too."""
        self._turn = asyncio.Lock()
        self._reading = reading

    async def run(self, search: Callable[[], Awaitable[R]], *, patient: bool = False) -> R:
        """Run a search; a ``patient`` one waits longer. Raises ``SearchesBusy``, and ``TimeoutError`` if it hangs."""
        try:
            await asyncio.wait_for(self._turn.acquire(), TIMEOUT_SECONDS if patient else BUSY_SECONDS)
        except TimeoutError:
            raise SearchesBusy("other searches are running; try again in a few seconds") from None
        running = asyncio.create_task(self._run(search), name="search")
        # The ledger's thread finishes a search that nobody waits for any more. Until then, no other one starts.
        running.add_done_callback(self._end)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await asyncio.shield(running)

    async def _run(self, search: Callable[[], Awaitable[R]]) -> R:
        async with self._reading:
            return await search()

    def _end(self, finished: "asyncio.Task[R]") -> None:
        self._turn.release()
        if not finished.cancelled():
            finished.exception()  # asyncio logs an exception that nobody retrieves
