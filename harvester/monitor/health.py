"""Caches snapshots, and decides what a missing or old one means for the health of the service."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harvester.clock import Clock
from harvester.errors import HarvesterError
from harvester.formatting import safe_text
from harvester.monitor.snapshot import Snapshot

MIN_AGE_SECONDS, MAX_AGE_SECONDS = 2.0, 30.0
AGE_PER_DURATION = 20.0
"""A snapshot is used for this many times the time it took, so that snapshots take a twentieth of the ledger's time."""

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """The newest snapshot, and the ``problem`` if no newer one could be taken."""

    snapshot: Snapshot | None
    problem: str | None = None

    def unready_reasons(self) -> list[str]:
        """Return sentences that say why the process can do no useful work; an empty list means that it is ready."""
        if self.problem is not None or self.snapshot is None:
            return [safe_text(self.problem or "there is no snapshot")]
        return self.snapshot.unready_reasons()

    def alerts(self) -> list[str]:
        """Return sentences for an operator, the most urgent first; an empty list means that the service is healthy."""
        problem = [safe_text(self.problem)] if self.problem is not None else []
        return problem + (self.snapshot.alerts() if self.snapshot is not None else [])


class SnapshotCache:
    """Shares one snapshot among all requests until it is too old."""

    def __init__(self, take_snapshot: Callable[[], Awaitable[Snapshot]], clock: Clock, reading: asyncio.Lock) -> None:
        """``take_snapshot`` may raise ``HarvesterError``, which becomes the ``problem``.

        ``reading`` is held while a snapshot is taken, and by others while they read the ledger.
        """
        self._take_snapshot = take_snapshot
        self._clock = clock
        self._lock = asyncio.Lock()
        self._reading = reading
        self._health = Health(None, "there is no snapshot yet")
        self._expires_at = 0.0

    async def get(self) -> Health:
        """Return the cached health, or take a new snapshot if it is too old."""
        async with self._lock:
            began = self._clock.monotonic()
            if began >= self._expires_at:
                self._health = await self._refresh()
                ended = self._clock.monotonic()
                age = min(max(MIN_AGE_SECONDS, AGE_PER_DURATION * (ended - began)), MAX_AGE_SECONDS)
                self._expires_at = ended + age
            return self._health

    async def _refresh(self) -> Health:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._reading:
                return Health(await self._take_snapshot())
        except HarvesterError as error:
            return Health(self._health.snapshot, str(error))
        except TimeoutError:
            problem = f"the ledger has not responded for {TIMEOUT_SECONDS:.0f} seconds"
            return Health(self._health.snapshot, problem)
